"""Which tickets are already trained: a rule on measurements made before their own training.

A file may contain weights that were trained elsewhere. The figures are in the record, so that level
0 can decide again, and follow from a bundle's weights (protocol, section 5). No torch.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lthbench.records.schema import Cell

ORIGIN = "pretrained"
SHARE = 0.9  # of the distance from chance to dense
LEARNED = 0.1  # minimum margin of dense above chance for the rule to apply
ALIKE = 0.5  # correlation of two seeds' weights
COMMON = 100  # minimum number of weights in both, for which a chance correlation has s.d. .1
DIGITS = 4

# For each prunable tensor, the mask and the values of its kept entries in row-major order.
Kept: TypeAlias = "Mapping[str, tuple[NDArray[np.bool_], NDArray[np.float32]]]"


def found(origin: str) -> str:
    """Return the origin in a ticket's file: its bits do not show what was trained elsewhere."""
    return "free" if origin == ORIGIN else origin


def bar(chance: float, dense: Sequence[float]) -> float | None:
    """Return the accuracy from which a ticket counts as trained; None if dense learned nothing.

    Args:
        chance: Accuracy of chance.
        dense: Accuracies of the dense runs on the held-out part at T.
    """
    if not dense or (gain := statistics.mean(dense) - chance) < LEARNED:
        return None
    return chance + SHARE * gain


def dense_accuracies(cells: Iterable[Cell], sizes: Mapping[str, Mapping[str, int]]) -> list[float]:
    """Return the accuracies of dense runs at T on the held-out part."""
    return [
        cell.correct["held_out"][-1] / sizes[str(cell.seed)]["held_out"]
        for cell in cells
        if cell.kind == "dense" and cell.schedule == 1 and cell.status == "ok"
    ]


def why(accuracy: float, alike: float | None, least: float | None) -> str:
    """Return why a free ticket is pretrained; "" if it is not.

    Args:
        accuracy: On the held-out part, before its training.
        alike: The largest correlation of its weights with another seed's.
        least: The threshold from `bar`.
    """
    if least is not None and accuracy >= least:
        return f"{accuracy:.3f} right before its training, of a trained network {least:.3f} is"
    if alike is not None and alike >= ALIKE:
        return f"correlation {alike:.3f} with another seed's weights, at least {ALIKE:g}"
    return ""


def likeness(seeds: Mapping[int, Kept]) -> dict[int, float | None]:
    """Return the largest correlation of each seed's weights with another's, on one rung."""
    largest: dict[int, float | None] = dict.fromkeys(seeds)
    for one, mine in seeds.items():
        for other, theirs in seeds.items():
            if one < other and (r := correlation(mine, theirs)) is not None:
                for seed in (one, other):
                    largest[seed] = r if (known := largest[seed]) is None else max(r, known)
    return largest


def correlation(one: Kept, other: Kept) -> float | None:
    """Compute Pearson's correlation over the weights kept by both, standardised per tensor.

    So a tensor's mean or scale does not make two draws similar, and each weight counts the same.
    None with fewer than 100 such weights; a constant tensor is uninformative and counts as 0.
    """
    import numpy as np

    total, count = 0.0, 0
    for name, (mask, values) in one.items():
        theirs, given = other[name]
        both = mask & theirs
        size = int(both.sum())
        count += size
        if size < 2:
            continue
        a, b = values[both[mask]].astype(np.float64), given[both[theirs]].astype(np.float64)
        spread = float(a.std() * b.std())
        if spread > 0:
            total += float(((a - a.mean()) * (b - b.mean())).sum()) / spread
    return round(total / count, DIGITS) if count >= COMMON else None
