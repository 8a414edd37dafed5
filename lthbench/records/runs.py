"""The score of one run, and a record's runs by place. Definitions: protocol, section 8.1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lthbench.protocol.constants import LAST, UNTRAINED
from lthbench.protocol.design import Place
from lthbench.protocol.task import grid
from lthbench.records import intervals, metrics
from lthbench.records.intervals import Interval
from lthbench.records.scores import Estimate

if TYPE_CHECKING:
    from lthbench.records.schema import Carried, Cell, Record


@dataclass(frozen=True)
class Runs:
    """A record's runs by place, each with its score, since they are read many times."""

    record: Record
    cells: Mapping[Place, Cell]
    scores: Mapping[Place, float]

    def at(self, kind: str, density: float) -> list[Cell | None]:
        """Return the runs of one rung over the whole schedule, one a seed."""
        return [self.cells.get(Place(kind, density, seed)) for seed in self.record.seeds]

    def values(self, kind: str, density: float, schedule: int = 1) -> list[float] | None:
        """Return one score per seed; None unless every seed has a comparable run.

        A ticket's missing or failed run scores chance, as does a rung without any run; a failed
        control or dense run makes the comparison "not available": it never counts for the ticket.
        """
        places = [Place(kind, density, seed, schedule) for seed in self.record.seeds]
        found = [self.cells.get(place) for place in places]
        if kind != "ticket" and any(cell is None or cell.status != "ok" for cell in found):
            return None
        tried = schedule == 1 and any(place.kind == "ticket" for place in self.cells)
        if all(cell is None for cell in found) and not tried:
            return None
        return [self.scores.get(place, self.record.task.chance) for place in places]

    @property
    def dense(self) -> list[float] | None:
        """One score of dense per seed."""
        return self.values("dense", 1.0)

    @property
    def untrained(self) -> bool:
        """Whether the tickets are scored without training."""
        return any(place.kind == "untrained" for place in self.cells)


def index(record: Record) -> Runs:
    """Index a record's cells by place."""
    cells = {cell.place: cell for cell in record.cells}
    return Runs(record, cells, {at: score_of(record, cell) for at, cell in cells.items()})


def score_of(record: Record, run: Cell | Carried, part: str | None = None) -> float:
    """Return one run's score, 0 to 1: its accuracy at T, or the area of its curve.

    A network scored without training has one evaluation, so its score is its accuracy in every
    task.

    Raises:
        ValueError: If the curve has fewer evaluations than its area needs.
    """
    shown = part or record.shown
    if record.task.kind == "area" and run.kind not in UNTRAINED:
        return area_of(record, run, shown)
    return accuracy_of(record, run, shown)


def unit(kind: str, size: int) -> float:
    """Return the value of a score of 1 in a noise floor's unit: points of area, or examples."""
    return 100.0 if kind == "area" else float(size)


def area_of(record: Record, run: Cell | Carried, part: str) -> float:
    """Return a run's accuracy averaged over log step (`stats.area`); a failed run scores chance."""
    counts = run.correct.get(part, ())
    if run.status != "ok" or not counts:
        return record.task.chance
    size = record.sizes[str(run.seed)][part]
    steps = grid(record.task.every, record.task.steps)
    before = _before(record, run, part, run.start // record.task.every)
    return metrics.area([*before, *(count / size for count in counts)], steps)


def _before(record: Record, run: Cell | Carried, part: str, count: int) -> list[float]:
    """Return the credit of a run that starts at step k for the evaluations up to k.

    The path to theta_k is the dense network's, so these evaluations count as those of the same
    seed's dense run on the scoring stream: a ticket is neither charged for the steps it skipped,
    nor credited beyond what dense has. Chance if there is no such run, as at another depth.
    """
    if not count:
        return []
    for dense in () if hasattr(run, "depth") else record.cells:
        if (dense.kind, dense.seed, dense.schedule) == ("dense", run.seed, 1):
            read = dense.correct.get(part, ()) if dense.status == "ok" else ()
            if len(read) >= count:
                size = record.sizes[str(run.seed)][part]
                return [correct / size for correct in read[:count]]
    return [record.task.chance] * count


def accuracy_of(record: Record, run: Cell | Carried, part: str) -> float:
    """Return one run's accuracy at T.

    It is the mean of the last 5 evaluations where the rate is constant; a failed run scores chance.
    """
    counts = run.correct.get(part, ())
    if run.status != "ok" or not counts:
        return record.task.chance
    last = counts[-LAST:] if record.task.schedule == "constant" else counts[-1:]
    return float(sum(last) / len(last) / record.sizes[str(run.seed)][part])


def estimate(values: Sequence[float] | None) -> Estimate | None:
    """Return mean, interval and the values themselves."""
    if values is None or not len(values):
        return None
    found = of_unequal(intervals.t_interval(values))
    return Estimate(found.mean, found.low, found.high, found.n, tuple(values))


def subtract(a: Sequence[float] | None, b: Sequence[float] | None) -> Estimate | None:
    """Return a - b, paired by seed."""
    if a is None or b is None:
        return None
    return estimate([x - y for x, y in zip(a, b, strict=True)])


def of_unequal(found: Interval) -> Interval:
    """Drop the bounds if all values are equal, since there is no spread to estimate."""
    if found.low is None or found.high is None or not intervals.alike((found.low, found.high)):
        return found
    return Interval(found.mean, None, None, found.n)
