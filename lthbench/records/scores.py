"""The scores of a record, typed; `tabulate` and `parse` convert them to and from a record's JSON.

What each is: protocol, section 8; of transfer: protocol, section 9. One that is not available is
None.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from lthbench.io.paths import canonical_json
from lthbench.protocol.constants import Division
from lthbench.records.intervals import Interval
from lthbench.records.metrics import Gap, IterationsToMatch, Matching


@dataclass(frozen=True)
class Estimate(Interval):
    """The mean and interval of one value a seed."""

    values: tuple[float, ...]


@dataclass(frozen=True)
class AboveErk(Estimate):
    """Ticket minus `erk` in points, and the rungs that it is a mean over."""

    densities: tuple[float, ...]


@dataclass(frozen=True)
class Headline:
    """A record's leading figure: retention; where a task cannot support it, points above `erk`.

    Of untrained tickets, it is the accuracy at their best rung, a fraction.
    """

    what: Literal["retention", "above erk", "accuracy"]
    found: Estimate


class ByKind:
    """Scores whose fields are kinds of runs."""

    def of(self, kind: str) -> Estimate | None:
        """Return the score of one kind."""
        found: Estimate | None = getattr(self, kind.replace("-", "_"))
        return found


@dataclass(frozen=True)
class Rung(ByKind):
    """Tickets of one density beside dense and the controls; gaps are ticket minus control."""

    density: float
    ticket: Estimate | None
    difference: Estimate | None
    shuffled: Estimate | None
    reinit: Estimate | None
    reinit_signs: Annotated[Estimate | None, Field(alias="reinit-signs")]
    random: Estimate | None
    erk: Estimate | None
    gap_shuffled: Gap | None
    gap_reinit: Gap | None
    gap_reinit_signs: Gap | None
    identity_matters: bool | None
    effective: float | None  # share of kept weights on a path from input to output
    collapsed: int  # tickets without such a path
    failed: int
    winning: bool | None

    def gap(self, control: str) -> Gap | None:
        """Return ticket minus a control that tests identity."""
        found: Gap | None = getattr(self, f"gap_{control.replace('-', '_')}")
        return found


@dataclass(frozen=True)
class UntrainedRung:
    """Tickets of one density scored without training, beside trained dense and a random mask."""

    density: float
    ticket: Estimate
    held_out: float
    dense: Estimate | None
    difference: Estimate | None
    random: Estimate | None
    above_random: Estimate | None
    p: float | None


@dataclass(frozen=True)
class Untrained:
    """Accuracies without training; `headline` is the density best on the held-out part."""

    headline: float
    rungs: tuple[UntrainedRung, ...]

    @property
    def best(self) -> UntrainedRung:
        """The rung of the headline."""
        return next(rung for rung in self.rungs if rung.density == self.headline)


@dataclass(frozen=True)
class Moment:
    """When runs reach a level: restricted mean of steps, and how much later than dense."""

    mean: float
    reached: int
    n: int
    steps: tuple[int | None, ...]  # one a seed; None: not by T
    log2_difference: Interval


@dataclass(frozen=True)
class Delay(Interval):
    """Steps from memorising to generalising, over the seeds that memorised."""

    values: tuple[int, ...]  # to the end of a run that never generalised
    steps: tuple[int | None, ...]  # None there
    reached: int


@dataclass(frozen=True)
class Grokking:
    """When runs memorise and when they generalise."""

    memorised: Moment
    generalised: Moment
    delay: Delay | None


@dataclass(frozen=True)
class Compressed:
    """The divisor of the shortest schedule that matches dense at T; None if none does.

    Without compressed runs, nothing is set, and it is false.
    """

    density: float = 0.0
    ticket: int | None = 0
    dense: int | None = 0
    reinit: int | None = 0

    def __bool__(self) -> bool:
        return self.density > 0


@dataclass(frozen=True)
class Speed:
    """Iterations to match, by the kind of the task; keys are densities, "1" is dense."""

    grokking: dict[str, Grokking | None] | None = None
    steps: dict[str, IterationsToMatch | None] | None = None
    compressed: Compressed | None = None


@dataclass(frozen=True)
class Measures:
    """What no score reads, of dense or of a rung's trained tickets: means over seeds."""

    density: float
    train: float | None
    distance: float | None
    flops_inference: int | None
    flops_training: int | None
    effective_nodes: float | None


@dataclass(frozen=True)
class TransferRow(ByKind):
    """Tickets transferred to one depth, their comparisons and components, at one rung."""

    depth: int
    density: float
    carried: Estimate | None
    erk: Estimate | None
    direct: Estimate | None
    layers: Estimate | None
    mask_only: Annotated[Estimate | None, Field(alias="mask-only")]
    weights_only: Annotated[Estimate | None, Field(alias="weights-only")]
    points: Estimate | None


@dataclass(frozen=True)
class Transfer:
    """The transfer score: points above `erk` tickets, and the share of IMP's gain."""

    rows: tuple[TransferRow, ...]
    points: Estimate | None
    gain: float | None
    reason: str


@dataclass(frozen=True)
class Scores:
    """Everything that is computed from the cells of a record."""

    dense: Estimate | None
    reproduces: bool | None
    rungs: tuple[Rung, ...]
    loss: Estimate | None
    retention: Estimate | None
    rankable: bool | None
    above_erk: AboveErk | None
    matching: Matching
    speed: Speed
    measures: tuple[Measures, ...]  # of dense, then of each rung
    cost: Estimate | None
    division: Division | None
    complete: bool
    untrained: Untrained | None = None
    transfer: Transfer | None = None

    @property
    def mean_cost(self) -> float | None:
        """The mean cost of a search, in dense trainings."""
        return None if self.cost is None else self.cost.mean

    @property
    def headline(self) -> Headline | None:
        """The headline figure; None without a ticket, or anything to compare it with."""
        if self.untrained is not None:
            return Headline("accuracy", self.untrained.best.ticket)
        if self.retention is not None:
            return Headline("retention", self.retention)
        return None if self.above_erk is None else Headline("above erk", self.above_erk)


def tabulate(scores: Scores) -> dict[str, Any]:
    """Return the tables that a record's file holds; what a record lacks as a whole is left out."""
    table = _adapter().dump_python(scores, mode="json", by_alias=True, exclude_defaults=True)
    return dict(table)


def parse(table: Mapping[str, Any]) -> Scores:
    """Build scores from a record's tables.

    Raises:
        pydantic.ValidationError: If a score is missing, or its type is another.
    """
    return _adapter().validate_json(canonical_json(table), strict=True)


@cache
def _adapter() -> TypeAdapter[Scores]:
    return TypeAdapter(Scores)
