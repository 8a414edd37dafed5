"""Iterations to match, by the kind of the task. Definitions: protocol, section 8.4."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from lthbench.records import metrics
from lthbench.records.metrics import IterationsToMatch
from lthbench.records.runs import Runs, estimate, of_unequal
from lthbench.records.scores import Compressed, Delay, Grokking, Moment, Speed

if TYPE_CHECKING:
    from lthbench.records.schema import Cell, Record


def speed(runs: Runs) -> Speed:
    """Compute how soon tickets reach their target, as the task's kind and schedule ask for."""
    record, ladder = runs.record, runs.record.task.ladder
    if runs.untrained:
        return Speed()
    if record.task.kind == "area":
        dense = {
            part: _arrivals(record, runs.at("dense", 1.0), part, record.task.threshold)
            for part in ("train", record.shown)
        }
        return Speed(grokking={_name(d): _grokking(runs, d, dense) for d in [1.0, *ladder]})
    if record.reference is None:
        return Speed()
    if record.task.schedule == "constant":
        return Speed(steps={_name(d): _steps(runs, d) for d in ladder})
    return Speed(compressed=_compressed(runs))


def _name(density: float) -> str:
    return f"{density:.6g}"


def _arrivals(
    record: Record, cells: Sequence[Cell | None], part: str, level: float
) -> list[int | None]:
    return [_first(record, cell, part, level) for cell in cells]


def _first(record: Record, cell: Cell | None, part: str, level: float) -> int | None:
    """Return the step of the first of three consecutive evaluations at or above a level."""
    if cell is None or cell.status != "ok" or part not in cell.correct:
        return None
    size = record.sizes[str(cell.seed)][part]
    found = metrics.first_sustained(cell.correct[part], size, level)
    every = record.task.every
    return None if found is None else (found + 1 + cell.start // every) * every


def _grokking(runs: Runs, density: float, dense: Mapping[str, list[int | None]]) -> Grokking | None:
    """Return memorising step, generalising step and delay of dense or of one rung, by seed.

    Args:
        runs: The record's runs.
        density: Density of the rung; 1 for dense.
        dense: Steps at which dense runs arrive, on each set.
    """
    task = runs.record.task
    found = runs.at("dense" if density == 1.0 else "ticket", density)
    if all(run is None for run in found) or runs.dense is None:
        return None

    memorised, generalised = (
        _moment(_arrivals(runs.record, found, part, task.threshold), dense[part], task.steps)
        for part in ("train", runs.record.shown)
    )
    return Grokking(memorised, generalised, _delay(memorised.steps, generalised.steps, task.steps))


def _moment(ours: Sequence[int | None], dense: Sequence[int | None], steps: int) -> Moment:
    found = metrics.iterations_to_match(ours, dense, steps)
    later = of_unequal(metrics.log2_difference(ours, dense, steps))
    return Moment(found.mean, found.reached, found.n, tuple(ours), later)


def _delay(
    memorised: Sequence[int | None], generalised: Sequence[int | None], steps: int
) -> Delay | None:
    """Return steps from memorising to generalising, over seeds that memorised; None without any.

    A seed that had not generalised by T is censored at the remaining length of its run: its delay
    is longer than that, and the mean is a restricted one.
    """
    pairs = [(m, g) for m, g in zip(memorised, generalised, strict=True) if m is not None]
    values = [(steps if g is None else g) - m for m, g in pairs]
    found = estimate(values)
    if found is None:
        return None
    delays = tuple(None if g is None else g - m for m, g in pairs)
    reached = sum(delay is not None for delay in delays)
    return Delay(found.mean, found.low, found.high, found.n, tuple(values), delays, reached)


def _steps(runs: Runs, density: float) -> IterationsToMatch | None:
    record = runs.record
    assert record.reference is not None
    dense = record.reference.dense
    level = sum(dense) / len(dense) - record.reference.margin
    found = runs.at("ticket", density)
    if all(run is None for run in found) or runs.dense is None:
        return None
    ours, theirs = (
        _arrivals(record, cells, record.shown, level) for cells in (found, runs.at("dense", 1.0))
    )
    return metrics.iterations_to_match(ours, theirs, record.task.steps)


def _compressed(runs: Runs) -> Compressed:
    """Return the shortest whole schedule that matches dense at T, for ticket, dense and reinit."""
    dense, reference = runs.dense, runs.record.reference
    densities = {c.density for c in runs.record.cells if c.schedule > 1 and c.density < 1}
    if dense is None or reference is None or not densities:
        return Compressed()
    rung = min(densities)

    def shortest(kind: str, density: float) -> int | None:
        tried = {n: runs.values(kind, density, n) for n in (8, 4, 2, 1)}
        found = {n: values for n, values in tried.items() if values is not None}
        return metrics.compressed_match(found, dense, reference.margin) if found else None

    return Compressed(
        rung, shortest("ticket", rung), shortest("dense", 1.0), shortest("reinit", rung)
    )
