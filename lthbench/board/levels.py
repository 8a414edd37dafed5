"""What levels 2 and 3 of a verification test: which cells are drawn, and what is refused.

Nothing is trained here. `lthbench.verify` trains what is drawn and judges it by these rules, and
the ledger's writer holds a report against them again, so that no report is believed for its own
verdict.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lthbench import scores
from lthbench.errors import RecordError
from lthbench.paths import canonical_json, digest
from lthbench.record import Cell, Record
from lthbench.reference import Reference
from lthbench.task import Task

LEAST, DRAWN = 8, 16  # cells of level 2: at least, and unless told otherwise
CONTROLS = ("shuffled", "reinit", "reinit-signs", "random", "erk", "untrained_random")
TICKETS = ("ticket", "untrained")
OWN_WEIGHTS = ("transferred", "final", "free")  # a bundle does not hold what they prune
SPREAD = 1.41  # of a difference of two scores that have one spread
SUM_LIMIT, ONE_LIMIT = 3.0, 5.0
SEEDS = 3  # of level 3
FIRST, SPAN = 10**6, 10**9  # fresh seeds are none of the published ones and their controls'
ERRORS = 2.0  # standard errors


@dataclass(frozen=True)
class Again:
    """A cell that was trained again: counts at T (means of the last ones at a constant rate), or in
    area tasks the area in points.

    Attributes:
        z: in standard deviations of a difference.
    """

    kind: str
    density: float
    seed: int
    claimed: float
    retrained: float
    z: float


Table = dict[str, Any]
NAMES = {"retention": "retention", "above erk": "points above erk"}  # of trained tickets' headlines
AGAIN = tuple(Again.__dataclass_fields__)


@dataclass(frozen=True)
class Judged:
    """The outcome: what was tested, and whether the record holds."""

    ok: bool
    what: str
    statistic: float
    cells: tuple[Again, ...]


def candidates(record: Record) -> list[Cell]:
    """The cells that may be drawn: all that a bundle is enough to train again.

    Dense cells are the frozen reference's. Of a shuffled ticket with weights of its own the bundle
    does not hold the weights that its control keeps.
    """
    return [
        cell
        for cell in record.cells
        if cell.kind in (*TICKETS, *CONTROLS)
        and cell.schedule == 1
        and cell.status == "ok"
        and not (cell.kind == "shuffled" and cell.origin in OWN_WEIGHTS)
    ]


def drawn(cells: Sequence[Cell], count: int, bundle: str, beacon: str) -> list[Cell]:
    """As many cells as asked for, a quarter of them controls, by lot.

    A cell's lot is sha256 of bundle, beacon and its own place, and the lowest are drawn: tickets
    for three quarters, for they make the score, and controls for the rest. Where there are too few
    of the one, the others take their places.
    """
    ranked = sorted(cells, key=lambda cell: lot(bundle, beacon, cell))
    tickets = [cell for cell in ranked if cell.kind in TICKETS]
    controls = [cell for cell in ranked if cell.kind in CONTROLS]
    quarter = math.ceil(count / 4)
    kept = max(quarter, count - len(tickets))
    chosen = controls[:kept]
    chosen += tickets[: count - len(chosen)]
    return sorted(chosen, key=lambda cell: (cell.seed, -cell.density, cell.kind))


def lot(bundle: str, beacon: str, cell: Cell) -> str:
    """What decides whether a cell is drawn."""
    return digest(canonical_json([bundle, beacon, cell.kind, cell.density, cell.seed]))


def floors(task: Task, reference: Reference | None) -> Mapping[float, float]:
    """By density, the standard deviation of a score by noise alone: of counts, or of points.

    Raises:
        RecordError: where no floor was measured.
    """
    if reference is None or reference.noise is None or "test" not in reference.noise:
        raise RecordError(
            f"{task.name}: the reference has no noise floor; measure it with python -m "
            "lthbench.noise OUT, then python -m lthbench.reference OUT"
        )
    return dict(zip(task.ladder.trained, reference.noise["test"], strict=True))


def floor_at(known: Mapping[float, float], kind: str, density: float, example: float) -> float:
    """The floor of a cell: that of the nearest rung, by ratio; one example where none is trained.

    The rungs of untrained tickets are not the ladder's own, so the nearest stands for them.

    Args:
        example: what one example comes to in the cell's unit: the least floor.
    """
    if kind in scores.UNTRAINED:
        return example
    rung = min(known, key=lambda at: abs(math.log(at / density)))
    return max(example, known[rung])


def judge(
    record: Record, pairs: Sequence[tuple[Cell, Cell]], known: Mapping[float, float]
) -> Judged:
    """Compare claimed cells with their new trainings.

    Args:
        known: floors by density.
    """
    table = _table(record)
    return verdict(
        [
            _row(table, cell, _points(table, cell), _points(table, again), known)
            for cell, again in pairs
        ]
    )


def verdict(rows: Sequence[Again]) -> Judged:
    """Differences of scores, in standard deviations of what noise alone makes of them.

    Tickets and controls are summed apart: a control that was made worse would pay for a ticket that
    was made better, and both flatter the submission.
    """
    if not rows:
        return Judged(False, "no cell can be trained again", 0.0, ())
    tickets, controls = ([row.z for row in part] for part in _apart(rows))
    statistic, of_controls = (sum(z) / math.sqrt(max(1, len(z))) for z in (tickets, controls))
    largest = max(map(abs, tickets + controls))
    what = (
        f"{len(tickets)} tickets trained again: sum(z)/sqrt(m) {statistic:.2f} (at most "
        f"{SUM_LIMIT:g}); {len(controls)} controls: {of_controls:.2f} (at most {SUM_LIMIT:g} "
        f"either way); largest |z| {largest:.2f} (at most {ONE_LIMIT:g})"
    )
    ok = statistic <= SUM_LIMIT and abs(of_controls) <= SUM_LIMIT and largest <= ONE_LIMIT
    return Judged(ok, what, statistic, tuple(rows))


def _apart(rows: Sequence[Again]) -> tuple[list[Again], list[Again]]:
    """Tickets, and controls."""
    return (
        [row for row in rows if row.kind in TICKETS],
        [row for row in rows if row.kind not in TICKETS],
    )


def _table(record: Record) -> Table:
    """What scoring a cell needs of its record."""
    return record.model_dump(mode="json", include={"task", "sizes", "cells"})


def _unit(table: Table, cell: Cell) -> float:
    """What a score of 1 comes to: examples of a cell that are counted, points of an area."""
    kind = "accuracy" if cell.kind in scores.UNTRAINED else table["task"]["kind"]
    return scores.unit(kind, table["sizes"][str(cell.seed)]["test"])


def _points(table: Table, cell: Cell) -> float:
    """On the test split: the right answers at T, or the area in points."""
    return _unit(table, cell) * scores.score_of(table, cell.model_dump(mode="json"), "test")


def _row(
    table: Table, cell: Cell, claimed: float, retrained: float, known: Mapping[float, float]
) -> Again:
    example = _unit(table, cell) / table["sizes"][str(cell.seed)]["test"]
    floor = floor_at(known, cell.kind, cell.density, example)
    z = (claimed - retrained) / (SPREAD * floor)
    return Again(cell.kind, cell.density, cell.seed, round(claimed, 6), round(retrained, 6), z)


@dataclass(frozen=True)
class Reproduced:
    """The outcome: each seed's score as published and on fresh seeds."""

    ok: bool
    what: str
    optimism: float | None
    error: float | None
    published: tuple[float, ...]
    fresh: tuple[float, ...]
    seeds: tuple[int, ...]


def fresh_seeds(bundle: str, beacon: str, count: int = SEEDS) -> tuple[int, ...]:
    """Seeds by lot, from sha256 of bundle, beacon and their number."""
    lots = (digest(canonical_json([bundle, beacon, "seed", n])) for n in range(count))
    return tuple(FIRST + int(lot, 16) % SPAN for lot in lots)


def compared(
    published: Sequence[float], fresh: Sequence[float], seeds: Sequence[int], what: str
) -> Reproduced:
    """Refuse where the published mean is above the fresh one by more than two standard errors."""
    optimism = statistics.mean(published) - statistics.mean(fresh)
    error = math.sqrt(sum(statistics.variance(v) / len(v) for v in (published, fresh)))
    ok = optimism <= ERRORS * error + 1e-12
    told = (
        f"optimism {optimism:+.4f}: mean {what} {statistics.mean(published):.4f} of "
        f"{len(published)} published seeds, {statistics.mean(fresh):.4f} of {len(fresh)} fresh "
        f"ones; two standard errors are {ERRORS * error:.4f}"
    )
    return Reproduced(ok, told, optimism, error, tuple(published), tuple(fresh), tuple(seeds))


def score_of(record: Record, published: Record) -> tuple[list[float], str] | None:
    """One score a seed and its name: retention or what stands for it, or of untrained tickets the
    accuracy at the rung that the published record shows."""
    told = record.aggregates
    if "untrained" in published.aggregates:
        rung = published.aggregates["untrained"]["headline"]
        rungs = {row["density"]: row["ticket"] for row in told["untrained"]["rungs"]}
        return list(rungs[rung]["values"]), f"accuracy at density {rung:.4g}"
    found = scores.headline(told)
    return None if found is None else (list(found["values"]), NAMES[found["what"]])


# What a report must be


def misfit(
    record: Record, task: Task, reference: Reference | None, report: Mapping[str, Any]
) -> str | None:
    """Why a report of level 2 or 3 that says "ok" does not follow from its entry; None if it does.

    Args:
        report: of this record's bundle, its beacon checked.
    """
    try:
        return _retrained_misfit(record, task, reference, report) or (
            _reproduced_misfit(record, report) if report["level"] >= 3 else None
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        return f"its cells cannot be read ({type(error).__name__})"


def _retrained_misfit(
    record: Record, task: Task, reference: Reference | None, report: Mapping[str, Any]
) -> str | None:
    """The cells must be those that were drawn, their claims the record's, their verdict ours."""
    told = [Again(**{name: row[name] for name in AGAIN}) for row in report["cells"]]
    cells = candidates(record)
    if len(told) < min(LEAST, len(cells)):
        return f"{len(told)} cells; at least {LEAST} are trained again"
    wanted = drawn(cells, len(told), report["bundle"], report["beacon"])
    by_place = {(str(cell.kind), cell.density, cell.seed): cell for cell in wanted}
    if sorted(by_place) != sorted((row.kind, row.density, row.seed) for row in told):
        return "its cells are not those that bundle and beacon draw"
    known, table, rows = floors(task, reference), _table(record), []
    for row in told:
        cell = by_place[row.kind, row.density, row.seed]
        claimed = _points(table, cell)
        if row.claimed != round(claimed, 6) or not 0 <= row.retrained <= _unit(table, cell):
            return f"seed {row.seed} at {row.density:.4g}: the record claims {claimed:g}"
        rows.append(_row(table, cell, claimed, row.retrained, known))
    again = verdict(rows)
    return None if again.ok else f"its own cells are refused: {again.what}"


def _reproduced_misfit(record: Record, report: Mapping[str, Any]) -> str | None:
    """The seeds must be those that were drawn, and the fresh scores not too far below."""
    told, claimed = report["reproduced"], score_of(record, record)
    if claimed is None or list(told["published"]) != claimed[0]:
        return "its published scores are not the record's"
    if tuple(told["seeds"]) != fresh_seeds(report["bundle"], report["beacon"]):
        return "its seeds are not those that bundle and beacon draw"
    fresh = [float(score) for score in told["fresh"]]
    if len(fresh) != SEEDS or not all(map(math.isfinite, fresh)):
        return f"it has no score of {SEEDS} fresh seeds"
    again = compared(claimed[0], fresh, told["seeds"], claimed[1])
    return None if again.ok else f"its own scores are refused: {again.what}"
