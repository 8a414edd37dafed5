"""The transfer score: what a ticket is worth at the depths to which it was transferred.

Works on plain tables, as `scores` does. Definitions: protocol, section 9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from lthbench.protocol.constants import PARTS
from lthbench.records import intervals

Table = Mapping[str, Any]
Score = Callable[[Table], float]  # of one cell, 0 to 1
Points = np.ndarray[Any, np.dtype[np.float64]]
Told = Callable[[Sequence[float] | None], dict[str, Any] | None]
TICKETS = ("carried", "direct")  # a failed one scores chance
GAIN = 1.0  # minimum significant gain of IMP over random, in points, for its share to be reported


def key(depth: int, density: float) -> str:
    """Return the name of one rung at one depth in a frozen reference."""
    return f"{depth}/{density!r}"


def transfer(record: Table, score: Score, interval: Told) -> dict[str, Any] | None:
    """Compute the transfer score of a record; None if it transferred no ticket.

    Points are hundredths of the task's score. A failed ticket scores chance (ensured by `score`); a
    failed control makes its comparison None.

    Args:
        record: Plain table of the record.
        score: Returns the score of a cell.
        interval: Returns the mean and interval of the values of seeds.
    """
    moved = record.get("transfer")
    if moved is None:
        return None
    seeds = record["seeds"]
    cells = {(c["kind"], c["depth"], c["density"], c["seed"]): c for c in moved["cells"]}
    places = [(depth, density) for depth in moved["targets"] for density in moved["densities"]]

    def values(kind: str, depth: int, density: float) -> list[float] | None:
        found = [cells.get((kind, depth, density, seed)) for seed in seeds]
        chosen = [cell for cell in found if cell is not None]
        failed = kind not in TICKETS and any(cell["status"] != "ok" for cell in chosen)
        return None if failed or len(chosen) < len(seeds) else [score(cell) for cell in chosen]

    rows = [_row(depth, density, values, interval) for depth, density in places]
    carried = [values("carried", *place) for place in places]
    random = [values("erk", *place) for place in places]
    above = _points(carried, random)
    return {
        "rows": rows,
        "points": interval(None if above is None else above.mean(0).tolist()),
        "gain": _gain(above, places, record),
        "reason": moved["reason"],
    }


def _row(
    depth: int,
    density: float,
    values: Callable[[str, int, float], list[float] | None],
    interval: Told,
) -> dict[str, Any]:
    """Compute one rung at one depth: the transferred ticket, its comparisons, its components."""
    kinds = ("carried", "erk", "direct", *PARTS)
    found = {kind: values(kind, depth, density) for kind in kinds}
    above = _points([found["carried"]], [found["erk"]])
    return {
        "depth": depth,
        "density": density,
        **{kind: interval(scores) for kind, scores in found.items()},
        "points": interval(None if above is None else above[0].tolist()),
    }


def _points(
    scores: Sequence[list[float] | None], random: Sequence[list[float] | None]
) -> Points | None:
    """Return points above random, (places, seeds), paired by seed; None if any is not available."""
    if not scores or any(row is None for row in (*scores, *random)):
        return None
    above: Points = 100 * (np.array(scores, dtype=float) - np.array(random, dtype=float))
    return above


def _gain(above: Points | None, places: Sequence[tuple[int, float]], record: Table) -> float | None:
    """Return the share of IMP's gain over random at the target: sums over rungs and depths.

    Computed over the seeds that both have, if any; a reference has the published ones, from 0. None
    unless IMP's gain over these seeds is significantly above one point.
    """
    frozen = (record.get("reference") or {}).get("transfer") or {}
    known = [frozen.get(key(*place)) for place in places]
    if above is None or any(row is None for row in known):
        return None
    gains = _points([row["imp"] for row in known if row], [row["erk"] for row in known if row])
    assert gains is not None
    ours, theirs = above.sum(0), gains.sum(0)
    both = [(at, seed) for at, seed in enumerate(record["seeds"]) if seed < len(theirs)]
    if both:
        ours, theirs = ours[[at for at, _ in both]], theirs[[seed for _, seed in both]]
    whole = intervals.t_interval(theirs)
    if whole.low is None or whole.low <= GAIN:
        return None
    return float(ours.mean() / whole.mean)
