"""The frozen reference of a task: dense, imp and erk, to which every score is relative.

Made from the record of `lthbench evaluate imp --final --controls all`, whose dense runs and random
controls it uses, so that IMP's record and the reference are one run:
`lthbench dev reference OUT/<task>`.
"""

from __future__ import annotations

import json
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, ValidationError

from lthbench.errors import RecordError
from lthbench.io.paths import digest, shipped
from lthbench.protocol.task import Task
from lthbench.records.schema import (
    Cell,
    Frozen,
    Hex,
    MayTransfer,
    Row,
    Short,
    Table,
    TransferEntry,
    file_bytes,
)

PROVISIONAL_BELOW = 10  # seeds
FLOOR_DRAWS = 20  # trainings from which a noise floor is estimated


class Values(MayTransfer):
    """The values used by scores, on one set of examples."""

    dense: tuple[float, ...]
    margin: float
    loss_random: tuple[float, ...]
    loss_imp: tuple[float, ...]
    transfer: dict[str, dict[Literal["erk", "imp"], tuple[float, ...]]] | None = None


class Noise(Table):
    """The noise of each rung: standard deviations over trainings from perturbed starts.

    Attributes:
        score: Of the correct answers at T; in area tasks, of the area in points.
        curve: Of the correct answers, their root mean square over the evaluations.
    """

    score: Row[float]
    curve: Row[float]


Floors: TypeAlias = dict[Literal["held_out", "test"], Noise]


class Reference(MayTransfer):
    """One task's reference on both sets, with those runs of its seeds that all records share.

    Attributes:
        controls: Its erk and random runs, all of which completed; older references have none.
        noise: At the task's own depth.
        noise_at: By depth, at the transfer targets.
    """

    schema_version: Literal[2]
    task: Short
    version: int
    task_digest: Hex
    provisional: bool
    seeds: tuple[int, ...]
    values: dict[Literal["held_out", "test"], Values]
    dense: tuple[Cell, ...]
    controls: tuple[Cell, ...] | None = None
    transfer: TransferEntry | None = None  # erk's and IMP's own cells at the targets
    noise: Floors | None = None
    noise_at: dict[str, Floors] | None = None
    sizes: dict[str, dict[str, int]]
    environment: dict[str, Short]
    environments: dict[str, dict[str, Short]] | None = None  # as in the record
    record: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # digest of IMP's comparable record

    @property
    def digest(self) -> str:
        """The digest of the reference's file."""
        return digest(file_bytes(self))

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The runs that an evaluation of its seeds reuses instead of training them."""
        return (*self.dense, *(self.controls or ()))

    def frozen(self, shown: Literal["held_out", "test"]) -> Frozen:
        """Return the part of the reference that a record holds."""
        values = self.values[shown]
        return Frozen(
            digest=self.digest,
            provisional=self.provisional,
            dense=values.dense,
            margin=values.margin,
            loss_random=values.loss_random,
            transfer=values.transfer,
        )


def load_reference(task: Task) -> Reference | None:
    """Load the task's reference; None if there is none for exactly this protocol."""
    path = shipped("leaderboard") / "reference" / f"{task.name}.json"
    if not path.is_file():
        return None
    try:
        reference = Reference.model_validate(json.loads(path.read_bytes()))
    except (ValidationError, ValueError) as error:
        raise RecordError(f"{path}: not a reference: {str(error).splitlines()[0]}") from error
    return reference if reference.task_digest == task.digest else None
