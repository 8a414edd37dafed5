"""From the cells of a record to its scores: one scorer for the terminal, the report and the board.

Definitions: protocol, section 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from lthbench.protocol import design
from lthbench.protocol.constants import CONTROLS, DIVISIONS, IDENTITY, Division
from lthbench.records import intervals, iterations, metrics, transfer_score
from lthbench.records.intervals import FloatArray
from lthbench.records.metrics import Gap, Matching
from lthbench.records.runs import Runs, accuracy_of, estimate, index, of_unequal, subtract
from lthbench.records.scores import (
    AboveErk,
    Measures,
    Rung,
    Scores,
    Untrained,
    UntrainedRung,
)

if TYPE_CHECKING:
    from lthbench.records.schema import Record

VERSION = 6


def aggregate(record: Record) -> Scores:
    """Compute every score of a record; its own `aggregates` are not read."""
    runs = index(record)
    reference, table = record.reference, _ladder_table(runs)
    trained = table is not None
    matching, loss = _matching(runs, table), _loss(runs, table)
    rankable = metrics.rankable(reference.loss_random) if trained and reference else None
    retention = None
    if reference and rankable and loss is not None:
        random = sum(reference.loss_random) / len(reference.loss_random)  # frozen, large enough
        retention = metrics.retention(loss, random).tolist()
    return Scores(
        dense=estimate(runs.dense),
        reproduces=_reproduces(runs),
        rungs=tuple(_rung(runs, density, matching) for density in record.task.ladder),
        loss=estimate(None if loss is None else loss.tolist()),
        retention=estimate(retention),
        rankable=rankable,
        above_erk=_above_erk(runs, loss) if trained else None,
        matching=matching,
        speed=iterations.speed(runs),
        measures=_measures(runs),
        cost=estimate([search.cost for search in record.searches]),
        division=_division(record),
        complete=_complete(runs),
        untrained=_untrained(runs) if runs.untrained else None,
        transfer=transfer_score.transfer(record),
    )


def _rung(runs: Runs, density: float, matching: Matching) -> Rung:
    ticket = runs.values("ticket", density)
    controls = {kind: runs.values(kind, density) for kind in CONTROLS}
    gaps = {kind: _gap(ticket, controls[kind]) for kind in IDENTITY}
    tickets = [cell for cell in runs.at("ticket", density) if cell is not None]
    effective = [c.effective / c.kept for c in tickets if c.effective is not None]
    matters = metrics.identity_matters(gaps["shuffled"], gaps["reinit"])
    unmatched = False if _is_matching_available(runs) else None
    matches = matching.proved is not None and density >= matching.proved
    return Rung(
        density=density,
        ticket=estimate(ticket),
        difference=subtract(ticket, runs.dense),
        **{kind.replace("-", "_"): estimate(values) for kind, values in controls.items()},
        gap_shuffled=gaps["shuffled"],
        gap_reinit=gaps["reinit"],
        gap_reinit_signs=gaps["reinit-signs"],
        identity_matters=matters,
        effective=sum(effective) / len(effective) if effective else None,
        collapsed=sum(c.effective == 0 for c in tickets),
        failed=sum(c.status != "ok" for c in tickets),
        winning=matters if matches else unmatched,
    )


def _gap(ticket: list[float] | None, control: list[float] | None) -> Gap | None:
    gap = None if ticket is None else metrics.identity_gap(ticket, control)
    if gap is None:
        return None
    bounds = of_unequal(gap)
    return replace(gap, low=bounds.low, high=bounds.high)


def _measures(runs: Runs) -> tuple[Measures, ...]:
    """Return measures that no score reads, for dense and for each rung's trained tickets.

    Each is a mean over the seeds that have it, None without any: accuracy on the training part at
    T, learning distance, operations of inference and of training, effective nodes.
    """

    def row(kind: str, density: float) -> Measures:
        ok = [cell for cell in runs.at(kind, density) if cell is not None and cell.status == "ok"]
        fits = [
            cell.correct["train"][-1] / runs.record.sizes[str(cell.seed)]["train"]
            for cell in ok
            if cell.correct.get("train")
        ]
        inference = _mean([cell.flops_inference for cell in ok])
        training = _mean([cell.flops_training for cell in ok])
        return Measures(
            density=density,
            train=_mean(fits),
            distance=_mean([cell.distance for cell in ok]),
            flops_inference=None if inference is None else round(inference),
            flops_training=None if training is None else round(training),
            effective_nodes=_mean([cell.effective_nodes for cell in ok]),
        )

    return (row("dense", 1.0), *(row("ticket", density) for density in runs.record.task.ladder))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def division(origin_name: str, k: int) -> Division:
    """Return the board of a cell: "init", "rewind", "open", or "reference" for trained weights."""
    if origin_name in ("signs", "transferred"):
        return "rewind" if k else "init"
    known: dict[str, Division] = {"init": "init", "scaled": "init", "rewind": "rewind"}
    known |= dict.fromkeys(("final", "pretrained"), "reference")
    return known.get(origin_name, "open")


def _loss(runs: Runs, table: list[list[float]] | None) -> FloatArray | None:
    """Return the loss L per seed in points."""
    dense = runs.dense
    if table is None or dense is None:
        return None
    return metrics.loss_points(dense, table, metrics.log_density_weights(runs.record.task.ladder))


def _above_erk(runs: Runs, loss: FloatArray | None) -> AboveErk | None:
    """Return ticket minus `erk` in points, by seed: a mean over rungs, weighted in log density.

    It uses the record's own `erk` tickets if every rung has them; otherwise the reference's, whose
    mean loss is compared with this record's; otherwise those of the rungs that have them.
    """
    ladder, reference = runs.record.task.ladder, runs.record.reference
    pairs = {
        density: (ticket, erk)
        for density in ladder
        if (ticket := runs.values("ticket", density)) is not None
        and (erk := runs.values("erk", density)) is not None
    }
    if len(pairs) < len(ladder) and reference is not None and loss is not None:
        densities = ladder
        above = sum(reference.loss_random) / len(reference.loss_random) - loss
    elif pairs:
        densities = tuple(pairs)
        scored = np.array(list(pairs.values()), dtype=np.float64)  # [rungs, 2, seeds]
        above = 100 * (metrics.log_density_weights(densities) @ (scored[:, 0] - scored[:, 1]))
    else:
        return None
    found = estimate(above.tolist())
    return None if found is None else AboveErk(**vars(found), densities=densities)


def _ladder_table(runs: Runs) -> list[list[float]] | None:
    """Return scores [seeds][rungs]; None without tickets, or for untrained ones: another ladder."""
    if runs.untrained:
        return None
    rows = [runs.values("ticket", density) for density in runs.record.task.ladder]
    known = [row for row in rows if row is not None]
    return [list(seed) for seed in zip(*known, strict=True)] if known else None


def _is_matching_available(runs: Runs) -> bool:
    """Return whether a matching density is computable: dense runs, a margin, three seeds."""
    judged = runs.record.reference is not None and not runs.untrained
    return judged and runs.dense is not None and len(runs.record.seeds) >= intervals.MIN_SEEDS


def _matching(runs: Runs, table: list[list[float]] | None) -> Matching:
    dense, reference = runs.dense, runs.record.reference
    if table is None or dense is None or reference is None:
        return Matching(None, None)
    differences = [[a - d for a in row] for row, d in zip(table, dense, strict=True)]
    return metrics.matching_density(runs.record.task.ladder, differences, reference.margin)


def _reproduces(runs: Runs) -> bool | None:
    """Return whether local dense runs lie in the reference's 99 % prediction interval."""
    reference, dense = runs.record.reference, runs.dense
    if reference is None or dense is None or runs.record.final or len(reference.dense) < 3:
        return None
    return intervals.predicted(dense, reference.dense, level=0.99)


def _division(record: Record) -> Division | None:
    """Return the most permissive division among the tickets."""
    found = [DIVISIONS.index(c.division) for c in record.cells if c.kind == "ticket"]
    return DIVISIONS[max(found)] if found else None


def _complete(runs: Runs) -> bool:
    """Return whether every rung of every seed has a ticket that was trained and scored.

    If the seeds are published ones, all that the task names must be present.
    """
    record = runs.record
    if record.final and len(record.seeds) < record.task.seeds:
        return False
    wanted = design.ticket_cells(record.task.ladder, record.seeds, untrained=runs.untrained)
    return all(place in runs.cells and runs.cells[place].status == "ok" for place in wanted)


def _untrained(runs: Runs) -> Untrained:
    """Return accuracies without training; the headline rung is the best on the held-out part."""
    record = runs.record

    def of(kind: str, density: float, part: str) -> list[float] | None:
        found = runs.at(kind, density)
        if kind != "untrained" and any(cell is None or cell.status != "ok" for cell in found):
            return None
        chance = record.task.chance
        return [chance if c is None else accuracy_of(record, c, part) for c in found]

    def rung(density: float) -> UntrainedRung:
        ticket = of("untrained", density, record.shown) or []
        dense = of("dense", 1.0, record.shown)
        random = of("untrained_random", density, record.shown)
        held_out = of("untrained", density, "held_out") or []
        gap = metrics.identity_gap(ticket, random)
        scored = estimate(ticket)
        assert scored is not None
        return UntrainedRung(
            density=density,
            ticket=scored,
            held_out=sum(held_out) / len(held_out),
            dense=estimate(dense),
            difference=subtract(ticket, dense),
            random=estimate(random),
            above_random=subtract(ticket, random),
            p=None if gap is None else gap.p,
        )

    rungs = tuple(map(rung, record.task.ladder))
    best = max(rungs, key=lambda found: (found.held_out, -found.density))
    return Untrained(best.density, rungs)
