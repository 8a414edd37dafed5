"""The transfer score: what a ticket is worth at the depths to which it was transferred.

Definitions: protocol, section 9.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from lthbench.protocol.constants import PARTS
from lthbench.records import intervals
from lthbench.records.intervals import FloatArray
from lthbench.records.runs import estimate, score_of
from lthbench.records.scores import Transfer, TransferRow

if TYPE_CHECKING:
    from lthbench.records.schema import Record

TICKETS = ("carried", "direct")  # a failed one scores chance
GAIN = 1.0  # minimum significant gain of IMP over random, in points, for its share to be reported
Values: TypeAlias = Callable[[str, int, float], list[float] | None]  # of a kind, depth and density


def key(depth: int, density: float) -> str:
    """Return the name of one rung at one depth in a frozen reference."""
    return f"{depth}/{density!r}"


def transfer(record: Record) -> Transfer | None:
    """Compute the transfer score of a record; None if it transferred no ticket.

    Points are hundredths of the task's score. A failed ticket scores chance; a failed control makes
    its comparison None.
    """
    moved = record.transfer
    if moved is None:
        return None
    cells = {(str(c.kind), c.depth, c.density, c.seed): c for c in moved.cells}
    places = [(depth, density) for depth in moved.targets for density in moved.densities]

    def values(kind: str, depth: int, density: float) -> list[float] | None:
        found = [cells.get((kind, depth, density, seed)) for seed in record.seeds]
        chosen = [cell for cell in found if cell is not None]
        failed = kind not in TICKETS and any(cell.status != "ok" for cell in chosen)
        scored = None if failed or len(chosen) < len(found) else chosen
        return None if scored is None else [score_of(record, cell) for cell in scored]

    above = _points(
        [values("carried", *place) for place in places], [values("erk", *place) for place in places]
    )
    return Transfer(
        rows=tuple(_row(depth, density, values) for depth, density in places),
        points=estimate(None if above is None else above.mean(0).tolist()),
        gain=_gain(above, places, record),
        reason=moved.reason,
    )


def _row(depth: int, density: float, values: Values) -> TransferRow:
    """Compute one rung at one depth: the transferred ticket, its comparisons, its components."""
    found = {kind: values(kind, depth, density) for kind in (*TICKETS, "erk", *PARTS)}
    above = _points([found["carried"]], [found["erk"]])
    return TransferRow(
        depth=depth,
        density=density,
        points=estimate(None if above is None else above[0].tolist()),
        **{kind.replace("-", "_"): estimate(scores) for kind, scores in found.items()},
    )


def _points(
    scores: Sequence[list[float] | None], random: Sequence[list[float] | None]
) -> FloatArray | None:
    """Return points above random, (places, seeds), paired by seed; None if any is not available."""
    if not scores or any(row is None for row in (*scores, *random)):
        return None
    above: FloatArray = 100 * (np.array(scores, dtype=float) - np.array(random, dtype=float))
    return above


def _gain(
    above: FloatArray | None, places: Sequence[tuple[int, float]], record: Record
) -> float | None:
    """Return the share of IMP's gain over random at the target: sums over rungs and depths.

    Computed over the seeds that both have, if any; a reference has the published ones, from 0. None
    unless IMP's gain over these seeds is significantly above one point.
    """
    frozen = (record.reference.transfer if record.reference else None) or {}
    known = [frozen[key(*place)] for place in places if key(*place) in frozen]
    if above is None or len(known) < len(places):
        return None
    gains = _points([list(row["imp"]) for row in known], [list(row["erk"]) for row in known])
    assert gains is not None
    ours, theirs = above.sum(0), gains.sum(0)
    both = [(at, seed) for at, seed in enumerate(record.seeds) if seed < len(theirs)]
    if both:
        ours, theirs = ours[[at for at, _ in both]], theirs[[seed for _, seed in both]]
    whole = intervals.t_interval(theirs)
    if whole.low is None or whole.low <= GAIN:
        return None
    return float(ours.mean() / whole.mean)
