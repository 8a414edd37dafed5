"""Which tickets arrive already trained: a rule on what is measured before their own training.

A file may carry weights that were trained elsewhere. The figures stand in the record, so that level
0 decides again, and follow from a bundle's weights (protocol, section 5). No torch.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ORIGIN = "pretrained"
SHARE = 0.9  # of the way from chance to dense
LEARNED = 0.1  # by which dense must lie above chance for that to tell anything
ALIKE = 0.5  # correlation of two seeds' weights
COMMON = 100  # weights that both keep, at least: by chance the correlation has s.d. .1 then
DIGITS = 4

# Of each prunable tensor the mask, and the values of its kept entries in row-major order.
Kept: TypeAlias = "Mapping[str, tuple[NDArray[np.bool_], NDArray[np.float32]]]"


def found(origin: str) -> str:
    """The origin that a ticket's file has: bits do not tell what was trained elsewhere."""
    return "free" if origin == ORIGIN else origin


def bar(chance: float, dense: Sequence[float]) -> float | None:
    """The accuracy from which a ticket counts as trained; None where dense itself learned nothing.

    Args:
        dense: accuracies of the dense runs on the held-out part at T.
    """
    if not dense or (gain := statistics.mean(dense) - chance) < LEARNED:
        return None
    return chance + SHARE * gain


def dense_accuracies(record: Mapping[str, Any]) -> list[float]:
    """Of a record's dense runs at T, on the held-out part; from its plain table."""
    return [
        cell["correct"]["held_out"][-1] / record["sizes"][str(cell["seed"])]["held_out"]
        for cell in record["cells"]
        if cell["kind"] == "dense" and cell["schedule"] == 1 and cell["status"] == "ok"
    ]


def why(accuracy: float, alike: float | None, least: float | None) -> str:
    """Why a free ticket is pretrained; "" if it is not.

    Args:
        accuracy: on the held-out part, before its training.
        alike: the largest correlation of its weights with another seed's.
        least: the accuracy that `bar` gives.
    """
    if least is not None and accuracy >= least:
        return f"{accuracy:.3f} right before its training, of a trained network {least:.3f} is"
    if alike is not None and alike >= ALIKE:
        return f"correlation {alike:.3f} with another seed's weights, at least {ALIKE:g}"
    return ""


def likeness(seeds: Mapping[int, Kept]) -> dict[int, float | None]:
    """The largest correlation of each seed's weights with another's, on one rung."""
    largest: dict[int, float | None] = dict.fromkeys(seeds)
    for one, mine in seeds.items():
        for other, theirs in seeds.items():
            if one < other and (r := correlation(mine, theirs)) is not None:
                for seed in (one, other):
                    largest[seed] = r if (known := largest[seed]) is None else max(r, known)
    return largest


def correlation(one: Kept, other: Kept) -> float | None:
    """Pearson's, over the weights that both keep, each tensor standardised first.

    So no tensor's mean or scale makes two draws alike, and each weight counts the same. None with
    fewer than 100 such weights; a tensor of one value tells nothing and counts as 0.
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
