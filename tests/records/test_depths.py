"""The transfer score by hand: points above random, the share of IMP's gain, what is not told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from lthbench.records import transfer_score
from lthbench.records.scores import Transfer
from tests.scoring import as_record

SEEDS = (0, 1, 2)
LATER = (1000, 1001, 1002)
SIZE = 1000
TARGETS, DENSITIES = (1, 3), (0.5, 0.25)


def cells(kind: str, accuracy: dict[tuple[int, float], Sequence[float]]) -> list[dict[str, Any]]:
    return [
        {"kind": kind, "depth": d, "density": p, "seed": s, "status": "ok",
         "correct": {"test": (round(SIZE * value),)}}
        for (d, p), values in accuracy.items()
        for s, value in zip(SEEDS, values, strict=True)
    ]  # fmt: skip


def everywhere(values: Sequence[float]) -> dict[tuple[int, float], Sequence[float]]:
    return {(depth, density): values for depth in TARGETS for density in DENSITIES}


def record(*rows: list[dict[str, Any]], frozen: dict[str, Any] | None = None) -> dict[str, Any]:
    moved = {"targets": TARGETS, "densities": DENSITIES, "reason": ""}
    moved["cells"] = [cell for row in rows for cell in row]
    return {
        "task": {"kind": "accuracy", "schedule": "linear", "chance": 0.1},
        "shown": "test",
        "seeds": SEEDS,
        "sizes": {str(seed): {"test": SIZE} for seed in (*SEEDS, *LATER)},
        "transfer": moved,
        "reference": frozen and {"transfer": frozen},
    }


def scored(table: dict[str, Any]) -> Transfer:
    found = transfer_score.transfer(as_record(table))
    assert found is not None
    return found


def gained(imp: Sequence[float], erk: Sequence[float]) -> dict[str, Any]:
    return {
        transfer_score.key(depth, density): {"imp": imp, "erk": erk}
        for depth in TARGETS
        for density in DENSITIES
    }


def test_points_are_the_mean_over_places_of_what_is_above_random() -> None:
    erk = cells("erk", everywhere((0.5, 0.6, 0.7)))
    uneven = everywhere((0.6, 0.7, 0.9)) | {(3, 0.25): (0.5, 0.5, 0.7)}
    found = scored(record(cells("carried", uneven), erk))
    # By hand: three places at +10, +10, +20 points and one at 0, -10, 0, mean over the four.
    assert found.points.values == pytest.approx([7.5, 5.0, 15.0])
    assert found.points.mean == pytest.approx(27.5 / 3)
    assert found.rows[3].points.values == pytest.approx([0, -10, 0])
    assert [(row.depth, row.density) for row in found.rows] == list(uneven)


def test_a_failed_ticket_scores_chance_and_a_failed_control_nothing() -> None:
    erk, carried = (cells(k, everywhere((0.5, 0.5, 0.5))) for k in ("erk", "carried"))
    carried[0]["status"] = "diverged"
    assert scored(record(carried, erk)).rows[0].points.values[0] == pytest.approx(-40)
    erk[0]["status"] = "diverged"
    found = scored(record(carried, erk))
    assert found.points is None
    assert found.rows[0].points is None
    assert found.rows[1].points.mean == 0


def test_the_share_of_imps_gain_is_a_ratio_of_sums() -> None:
    erk, carried = cells("erk", everywhere((0.5,) * 3)), cells("carried", everywhere((0.54,) * 3))
    frozen = gained((0.58, 0.6, 0.62), (0.5, 0.5, 0.5))
    assert scored(record(carried, erk, frozen=frozen)).gain == pytest.approx(0.4)


def test_the_share_of_imps_gain_is_paired_by_seed() -> None:
    """Three seeds beside a reference of five; development seeds beside all of them."""
    erk, carried = cells("erk", everywhere((0.5,) * 3)), cells("carried", everywhere((0.54,) * 3))
    table = record(carried, erk, frozen=gained((0.58, 0.6, 0.62, 0.7, 0.75), (0.5,) * 5))
    assert scored(table).gain == pytest.approx(0.4)
    assert scored({**table, "seeds": SEEDS[:2]}).gain is None  # two have no interval
    for cell in table["transfer"]["cells"]:
        cell["seed"] += 1000
    later = {**table, "seeds": [seed + 1000 for seed in SEEDS]}
    assert scored(later).gain == pytest.approx(20 / 75)


@pytest.mark.parametrize("imp", [(0.501, 0.502, 0.503), (0.4, 0.6, 0.9)])
def test_no_share_is_told_of_a_gain_that_is_not_surely_there(imp: Sequence[float]) -> None:
    """Too small (0.8 points over four places), and too uncertain."""
    erk, carried = cells("erk", everywhere((0.5,) * 3)), cells("carried", everywhere((0.54,) * 3))
    assert scored(record(carried, erk, frozen=gained(imp, (0.5, 0.5, 0.5)))).gain is None


def test_without_transfer_there_is_no_score() -> None:
    assert transfer_score.transfer(as_record({**record(), "transfer": None})) is None


def test_a_reason_is_handed_on() -> None:
    table = record()
    table["transfer"]["reason"] = "not transferable"
    found = scored(table)
    assert (found.reason, found.points, found.gain) == ("not transferable", None, None)
