"""What levels 2 and 3 of a verification test: which cells are drawn, and what is rejected.

Nothing is trained here. `leaderboard.verification` trains the drawn cells and judges them by these
rules, and the ledger's writer applies the rules to a report again, so that no report is trusted for
its own verdict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lthbench import seeds
from lthbench.errors import RecordError
from lthbench.leaderboard.board import reproduction
from lthbench.leaderboard.board.sampling import (
    PARTS,
    Drawn,
    Place,
    candidates,
    draw,
    part_of,
    place,
)
from lthbench.protocol.constants import UNTRAINED
from lthbench.protocol.task import Task
from lthbench.records import runs
from lthbench.records.intervals import FloatArray
from lthbench.records.reference import FLOOR_DRAWS, Noise, Reference
from lthbench.records.schema import Carried, Record

SPREAD = 1.41  # of a difference of two scores with equal spread
BEYOND = 0.0015  # share of honest records above each limit of level 2 (`python -m tests.level2`)
BEND_LIMIT = 6.0
SIMULATED = 20_000  # honest records
SAME_BITS = ("system", "processor", "arithmetic", "threads", "engine", "numpy")

Ints: TypeAlias = NDArray[np.int_]
Part: TypeAlias = Literal["held_out", "test"]
SETS = ("test", "held_out")


@dataclass(frozen=True)
class Floors:
    """Standard deviations from noise alone, of one rung on one set.

    Attributes:
        score: Of the correct answers at T; in area tasks, of the area in points.
        curve: Root mean square over the evaluations, in examples.
    """

    score: float
    curve: float


Rung: TypeAlias = tuple[int, float]  # depth (0: the task's own) and density
Known: TypeAlias = Mapping[str, Mapping[Rung, Floors]]  # by set


@dataclass(frozen=True)
class Again:
    """A retrained cell.

    Attributes:
        status: How the new training ended.
        retrained: Its correct answers by set, at the evaluations that a record keeps.
        equal: Whether these are the record's own, which holds no answers of a failed draw.
        z: By set, the difference of scores (claimed minus new) in standard deviations.
        bend: By set, the root mean square of the curves' difference in standard deviations.
        rung: The rung whose estimated floor applies; None for the smallest possible floor.
    """

    kind: str
    density: float
    seed: int
    schedule: int
    depth: int
    attempt: int
    status: str
    retrained: Mapping[str, tuple[int, ...]]
    equal: bool
    z: Mapping[str, float]
    bend: Mapping[str, float]
    rung: Rung | None


@dataclass(frozen=True)
class Judged:
    """The outcome: what was tested, and whether the record holds up."""

    ok: bool
    what: str
    cells: tuple[Again, ...]


def floors(task: Task, reference: Reference | None) -> Known:
    """Return the noise in a task's scores and curves, at its own depth and at transfer targets.

    Raises:
        RecordError: If the noise was not measured.
    """
    if reference is None or reference.noise is None:
        raise _unmeasured(task.name)
    found: dict[str, dict[Rung, Floors]] = {part: {} for part in reference.noise}
    _add(found, 0, task.ladder.trained, reference.noise)
    for depth in task.transfer.targets if task.transfer and reference.transfer else ():
        noise = (reference.noise_at or {}).get(str(depth))
        if noise is None:
            raise _unmeasured(f"{task.name}, depth {depth}")
        assert task.transfer
        _add(found, depth, task.transfer.densities, noise)
    return found


def _add(
    found: Mapping[str, dict[Rung, Floors]],
    depth: int,
    densities: Sequence[float],
    noise: Mapping[Part, Noise],
) -> None:
    for part, known in noise.items():
        for density, score, curve in zip(densities, known.score, known.curve, strict=True):
            found[part][depth, density] = Floors(score, curve)


def _unmeasured(where: str) -> RecordError:
    return RecordError(
        f"{where}: the reference has no noise floor; measure it with lthbench dev noise OUT, then "
        "lthbench dev reference OUT"
    )


def judge(record: Record, pairs: Sequence[tuple[Drawn, Drawn]], known: Known) -> Judged:
    """Compare claimed cells with their retraining."""
    return verdict([_row(record, claimed, new, known) for claimed, new in pairs])


def verdict(rows: Sequence[Again]) -> Judged:
    """Judge differences of scores and curves, in units of the noise.

    Both directions count: an understated claim harms a method whose source is public. Tickets,
    transferred tickets and controls are summed separately, since a worsened control would otherwise
    offset an improved ticket, and both flatter the submission. Thresholds: protocol, section 12.
    """
    parts = _parts(rows)
    if 0 not in parts:
        return Judged(False, "no ticket can be trained again", tuple(rows))
    if ended := [row for row in rows if row.status not in ("ok", "as claimed")]:
        row = ended[0]
        drawn = f", draw {row.attempt}" if row.attempt else ""
        told = f"seed {row.seed} {row.kind} at density {row.density:.4g}{drawn}: trained again it "
        return Judged(False, f"{told}is {row.status}", tuple(rows))
    found = statistics_of(np.array([_tested(row) for row in rows])[None], parts)
    allowed = limits(rows)
    bend = max((value for row in rows for value in row.bend.values()), default=0.0)
    names = ["largest |z|"]
    for part in PARTS:
        names += [f"{part}: |sum(z)|/sqrt(m)", "mean square"]
    what = (
        f"{sum(row.equal for row in rows)} of {len(rows)} cells equal bit for bit; "
        + ", ".join(
            f"{name} {value:.2f} (at most {limit:.2f})"
            for name, value, limit in zip(names, found[:, 0], allowed, strict=True)
            if limit  # of a part that is not empty
        )
        + f", curves {bend:.2f} (at most {BEND_LIMIT:g})"
    )
    ok = bool((found[:, 0] <= allowed).all()) and bend <= BEND_LIMIT
    return Judged(ok, what, tuple(rows))


def statistics_of(z: FloatArray, parts: Ints) -> FloatArray:
    """Return the test statistics of level 2, (7, records).

    The largest |z|; then for each part, on the test split, |sum(z)| / sqrt(m) and the mean of z
    squared.

    Args:
        z: (records, cells, sets), the test split first; NaN where a score is unknown.
        parts: Index into `PARTS` for each cell.
    """
    known = np.nan_to_num(z)
    found = [np.abs(known).max(axis=(1, 2))]
    for part in range(len(PARTS)):
        test = known[:, parts == part, 0]
        count = np.maximum(1, np.isfinite(z[:, parts == part, 0]).sum(axis=1))
        found += [np.abs(test.sum(axis=1)) / np.sqrt(count), (test**2).sum(axis=1) / count]
    return np.stack(found)


def limits(rows: Sequence[Again]) -> FloatArray:
    """Simulate the limits that .15 % of honest records exceed when retrained on another machine.

    There is one limit per statistic of `statistics_of`, and the floors are estimated as ours are.
    The cells of one rung share its floor, and thus the error of its estimate.
    """
    dice = seeds.generator(0, "level2")
    known = np.isfinite([_tested(row) for row in rows])
    rungs = {rung: at for at, rung in enumerate({row.rung: None for row in rows})}
    free = FLOOR_DRAWS - 1
    spread = np.sqrt(dice.chisquare(free, (SIMULATED, len(rungs), len(SETS))) / free)
    if None in rungs:  # the smallest floor is not estimated
        spread[:, rungs[None]] = 1.0
    z = dice.standard_normal((SIMULATED, len(rows), len(SETS)))
    z /= spread[:, [rungs[row.rung] for row in rows]]
    found = statistics_of(np.where(known, z, np.nan), _parts(rows))
    return np.asarray(np.quantile(found, 1 - BEYOND, axis=1))


def _tested(row: Again) -> list[float]:
    return [row.z.get(part, math.nan) for part in SETS]


def _parts(rows: Sequence[Again]) -> Ints:
    """Return the index into `PARTS` for each row."""
    return np.array([part_of(row.kind, row.schedule) for row in rows])


def _row(record: Record, claimed: Drawn, new: Drawn, known: Known) -> Again:
    """Compare one cell with its retraining."""
    status: str = "as claimed" if claimed.status == new.status != "ok" else new.status
    if claimed.status != "ok" and new.status == "ok":
        status = f"sound, where the record says {claimed.status}"
    z, bend = {}, {}
    rung: Rung | None = None
    for part in known if claimed.status == new.status == "ok" else ():
        if part not in claimed.correct or part not in new.correct:
            continue
        floor, rung = _floor(record, claimed, known[part], part)
        scores_of = [_points(record, cell, part) for cell in (claimed, new)]
        if scores_of[0] is not None and scores_of[1] is not None:
            z[part] = (scores_of[0] - scores_of[1]) / (SPREAD * floor.score)
        bend[part] = _distance(claimed.correct[part], new.correct[part]) / (SPREAD * floor.curve)
    known_of_it = claimed.correct if any(claimed.correct.values()) else new.correct
    equal = (known_of_it, claimed.status) == (new.correct, new.status)
    return Again(*place(claimed), status, dict(new.correct), equal, z, bend, rung)


def _distance(one: Sequence[int], other: Sequence[int]) -> float:
    """Return the root mean square over evaluations; infinite for curves of different lengths."""
    if len(one) != len(other):
        return math.inf
    return math.sqrt(sum((a - b) ** 2 for a, b in zip(one, other, strict=True)) / max(1, len(one)))


def _floor(
    record: Record, cell: Drawn, known: Mapping[Rung, Floors], part: str
) -> tuple[Floors, Rung | None]:
    """Return the floor of a cell and its rung: the nearest rung of its depth, by ratio.

    The rungs of untrained tickets are not the ladder's own, so the nearest rung is used. Where
    nothing is trained, the floor is one example and the rung None.
    """
    size = record.sizes[str(cell.seed)][part]
    least = Floors(_unit(record, cell, part) / size, 1.0)
    if cell.kind in UNTRAINED:
        return least, None
    depth = cell.depth if isinstance(cell, Carried) else 0
    here = [rung for rung in known if rung[0] == depth]
    rung = min(here, key=lambda at: abs(math.log(at[1] / cell.density)))
    found = Floors(max(least.score, known[rung].score), max(least.curve, known[rung].curve))
    return found, rung if known[rung].score > least.score else None


def _unit(record: Record, cell: Drawn, part: str) -> float:
    """Return the value of a score of 1: the cell's counted examples, or points of area."""
    kind = "accuracy" if cell.kind in UNTRAINED else record.task.kind
    return runs.unit(kind, record.sizes[str(cell.seed)][part])


def _points(record: Record, cell: Drawn, part: str) -> float | None:
    """Return the correct answers at T, or the area in points; None for a partially kept curve."""
    try:
        score = runs.score_of(record, cell, part)
    except ValueError:  # an area needs every evaluation
        return None
    return _unit(record, cell, part) * score


def alike(one: Mapping[str, str], other: Mapping[str, str]) -> bool:
    """Return whether two environments give the same bits: processor class, threads and versions."""
    return all(one.get(name) == other.get(name) is not None for name in SAME_BITS)


# Requirements on a report


def misfit(
    record: Record, task: Task, reference: Reference | None, report: Mapping[str, Any]
) -> str | None:
    """Return why an "ok" report of level 2 or 3 does not follow from its entry; None if it does.

    Args:
        record: The entry's record.
        task: The record's task.
        reference: The task's frozen reference, if any.
        report: A report on this record's bundle, its beacon already checked.
    """
    try:
        return _retrained_misfit(record, task, reference, report) or (
            reproduction.misfit(record, reference, report) if report["level"] >= 3 else None
        )
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        return f"its cells cannot be read ({type(error).__name__})"


def _retrained_misfit(
    record: Record, task: Task, reference: Reference | None, report: Mapping[str, Any]
) -> str | None:
    """Check that the cells are the drawn ones, and that their curves support the verdict."""
    told = {tuple(row[name] for name in Place._fields): row for row in report["cells"]}
    cells = candidates(record, reference)
    wanted = draw(cells, report["bundle"], report["beacon"], len(report["cells"]))
    if len(told) < len(report["cells"]) or set(told) != {place(cell) for cell in wanted}:
        return "its cells are not those that bundle and beacon draw"
    known, rows = floors(task, reference), []
    for cell in wanted:
        row = told[place(cell)]
        counts = {part: tuple(values) for part, values in row["retrained"].items()}
        ended = {"as claimed": cell.status}.get(row["status"], row["status"])
        new = cell.model_copy(update={"correct": counts, "status": ended})
        sizes = record.sizes[str(cell.seed)]
        if counts.keys() != cell.correct.keys() or not all(
            type(count) is int and 0 <= count <= sizes[part]
            for part, values in counts.items()
            for count in values
        ):
            return f"seed {cell.seed} {cell.kind} at {cell.density:.4g}: no counts of its sets"
        rows.append(_row(record, cell, new, known))
    again = verdict(rows)
    return None if again.ok else f"its own cells are refused: {again.what}"
