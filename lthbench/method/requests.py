"""What a method's child and its coordinator say to each other: the header of each message.

A method's own calls are well-formed by `method.problem`, but a hostile method writes its own: a
number may be a path, a count negative, a depth a billion. So the coordinator parses every request
once, by these types and limits (`evaluation.search.requests`), and matches on its type after that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field

from lthbench.method.meter import Work
from lthbench.protocol.task import Task

# Steps out of the task's bounds are for the call itself to report.
Step = Annotated[int, Field(strict=True, ge=-(10**9), le=10**9)]
Depth = Annotated[int, Field(strict=True, ge=1, le=64)]
Number = Annotated[int, Field(strict=True, ge=1, le=10**6)]  # of a loop
Seconds = Annotated[float, Field(strict=True, ge=0.0, allow_inf_nan=False)]
Text = Annotated[str, Field(strict=True)]
Flag = Annotated[bool, Field(strict=True)]


# --- from the child ------------------------------------------------------------------------


class _Request:
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class Theta(_Request):
    """The canonical dense run at step `k`."""

    depth: Depth
    k: Step
    op: Literal["theta"] = "theta"


@dataclass(frozen=True)
class Train(_Request):
    """A training from the tensors `start/…` at a step, under those of `mask/…` if `masked`."""

    depth: Depth
    step: Step
    masked: Flag
    until: Step
    order: Annotated[int, Field(strict=True, ge=-(2**63), le=2**63)]
    op: Literal["train"] = "train"


@dataclass(frozen=True)
class Accuracy(_Request):
    """The held-out accuracy of such a state."""

    depth: Depth
    step: Step
    masked: Flag
    op: Literal["accuracy"] = "accuracy"


@dataclass(frozen=True)
class Examples(_Request):
    """A charge for so many training examples."""

    depth: Depth
    count: Annotated[int, Field(strict=True, ge=0, le=10**9)]
    name: Text
    cost: Work
    op: Literal["examples"] = "examples"


@dataclass(frozen=True)
class Loop(_Request):
    """The beginning of a loop in the child."""

    depth: Depth
    number: Number
    steps: Step
    cost: Work
    op: Literal["loop"] = "loop"


@dataclass(frozen=True)
class Snapshot(_Request):
    """The state after a step of a loop; `loops` have begun by then."""

    number: Number
    step: Step
    loops: Annotated[int, Field(strict=True, ge=0, le=10**6)]
    snapshot: object  # JSON, for the child alone
    op: Literal["snapshot"] = "snapshot"


@dataclass(frozen=True)
class _Proposal(_Request):
    """A ticket as the method made it: `start` and what are no tensors are not checked yet.

    Attributes:
        masks: the type of each mask; those that are tensors are `mask/…`.
        step: of the weights `weight/…`; None without weights.
    """

    start: object
    trained: Flag
    masks: dict[Text, Text]
    step: Step | None


@dataclass(frozen=True)
class Proposal(_Proposal):
    """A ticket that `find_tickets` yielded."""

    op: Literal["ticket"] = "ticket"


@dataclass(frozen=True)
class Transferred(_Proposal):
    """A ticket that `transfer_ticket` returned."""

    op: Literal["carried"] = "carried"


@dataclass(frozen=True)
class Next(_Request):
    """The next ticket to transfer."""

    op: Literal["next"] = "next"


@dataclass(frozen=True)
class Pace(_Request):
    """Seconds of a step in this process, before the method is loaded."""

    pace: Seconds
    op: Literal["pace"] = "pace"


@dataclass(frozen=True)
class Timed(_Request):
    """Seconds of a step of a rehearsed loop, of which so many are left out."""

    left: Annotated[int, Field(strict=True, ge=0, le=10**9)]
    wall: Seconds
    processor: Seconds
    op: Literal["timed"] = "timed"


@dataclass(frozen=True)
class Failure(_Request):
    """An error that the method did not catch.

    Attributes:
        left_out: whether it says that the method does not support the task.
        line: of the method's file.
    """

    type: Text
    message: Text
    left_out: Flag
    line: Step | None
    trace: Text
    op: Literal["error"] = "error"


@dataclass(frozen=True)
class End(_Request):
    """The method has yielded its last ticket."""

    op: Literal["end"] = "end"


Request = (
    Theta
    | Train
    | Accuracy
    | Examples
    | Loop
    | Snapshot
    | Proposal
    | Transferred
    | Next
    | Pace
    | Timed
    | Failure
    | End
)


@dataclass(frozen=True)
class Asked:
    """A request, told apart by its `op`."""

    request: Annotated[Request, Field(discriminator="op")]


# --- to the child --------------------------------------------------------------------------


@dataclass(frozen=True)
class Setup:
    """The first message: the task, the method, and what the examples `x` and `y` are.

    Attributes:
        tokens: whether examples are tokens.
        forbidden: folders that the method may not read.
        purpose: a search; a transfer of tickets; or a rehearsal, whose loops are cut short.
    """

    task: Task
    seed: int
    device: str
    tokens: bool
    path: str
    source: str
    options: dict[str, bool | int | float | str]
    forbidden: tuple[str, ...]
    purpose: Literal["search", "transfer", "rehearsal"]


@dataclass(frozen=True)
class Done:
    """What was asked for is done."""

    kind: Literal["done"] = "done"


@dataclass(frozen=True)
class Weights:
    """The tensors of a state at a step."""

    step: int
    kind: Literal["weights"] = "weights"


@dataclass(frozen=True)
class Score:
    """An accuracy, 0 to 1."""

    accuracy: float
    kind: Literal["score"] = "score"


@dataclass(frozen=True)
class Begin:
    """Where a loop begins, and when it sends a snapshot: every so many seconds and at these steps.

    Attributes:
        step: 0, or the step that the snapshot was taken after.
        loops: how many had begun by then.
    """

    every: float
    at: tuple[int, ...]
    step: int = 0
    loops: int = 0
    snapshot: object = None
    kind: Literal["begin"] = "begin"


@dataclass(frozen=True)
class Move:
    """A ticket `mask/…`, its start `weight/…` at that step, and the depth to transfer it to."""

    target: int
    start: int
    kind: Literal["move"] = "move"


@dataclass(frozen=True)
class Refusal:
    """What forbids a call: the child raises it at the method's own line."""

    error: Literal["budget", "call"]
    message: str
    kind: Literal["refusal"] = "refusal"


Answer = Done | Weights | Score | Begin | Move | Refusal


@dataclass(frozen=True)
class Reply:
    """An answer, and the dense trainings that are left after it."""

    left: float
    answer: Annotated[Answer, Field(discriminator="kind")]
