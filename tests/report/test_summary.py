"""report.summary: one sentence of a record, for every kind of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lthbench.records import intervals
from lthbench.records.schema import Record, build
from lthbench.report import summary, terminal
from tests.strategies import moderate
from tests.synthetic import ACCURACY, AREA, synthetic_record

LADDER = [0.5, 0.0859, 0.0352]
# Correct answers of 10,000 at T, by kind and rung; seed s has s - 2 more, unless told otherwise.
SHOWN: dict[tuple[str, float], int] = {
    ("dense", 1.0): 9840,
    ("ticket", 0.5): 9842, ("ticket", 0.0859): 9838, ("ticket", 0.0352): 9700,
    ("erk", 0.5): 9800, ("erk", 0.0859): 8240, ("erk", 0.0352): 8000,
    ("reinit", 0.5): 9790, ("reinit", 0.0859): 9500, ("reinit", 0.0352): 9000,
    ("shuffled", 0.5): 9700, ("shuffled", 0.0859): 9100, ("shuffled", 0.0352): 8500,
}  # fmt: skip
SPREAD = {"ticket": (-2, -1, 0, 1, 2), "erk": (20, -10, 0, 10, -20), "reinit": (5, 0, -5, 0, 0)}


def made(
    counts: Mapping[tuple[str, float], int | None] | None = None,
    seeds: int = 5,
    *,
    cost: float = 15.0,
    reference: bool = True,
    only: tuple[str, ...] = ("ticket", "dense", "erk", "reinit", "shuffled"),
    final: bool = True,
) -> Record:
    """A record of a method called imp whose runs end with these counts; None: they failed."""
    task = {"name": "mlp-mnist1d", "ladder": LADDER, "steps": 600}
    drawn = synthetic_record(
        seeds=seeds, task=task, cost=cost, compressed=False, reference=reference, final=final
    )
    table = drawn.model_dump(mode="json")
    told = {**SHOWN, **(counts or {})}
    table["cells"] = [c for c in table["cells"] if c["kind"] in only]
    for cell in table["cells"]:
        place = cell["seed"] % 1000
        count = told[cell["kind"], cell["density"]]
        if count is None:
            cell.update(status="failed", reason="no memory", correct={})
            continue
        spread = SPREAD.get(cell["kind"], (0,) * 5)[place]
        cell["correct"] = {
            part: [(count + spread) * size // 10_000]
            for part, size in table["sizes"][str(cell["seed"])].items()
        }
    if reference:
        table["reference"].update(margin=0.002, dense=[0.984] * 10)
    return build(table)


def test_a_ticket_that_keeps_denses_accuracy() -> None:
    record = made()
    apart = record.aggregates["rungs"][1]
    found = intervals.paired_interval(apart["ticket"]["values"], apart["erk"]["values"])
    low, high = (f"{100 * end:.1f}" for end in (found.low or 0, found.high or 0))
    assert low != high
    assert summary.sentence(record) == (
        "imp keeps dense's accuracy down to 8.6 % of the weights on mlp-mnist1d: 16.0 points "
        f"[{low}, {high}] above random (ERK) masks there; ticket above reinit above shuffled at "
        "8.6 %; a search costs 15 dense trainings."
    )


def test_a_ticket_that_matches_nowhere() -> None:
    worse = {("ticket", d): SHOWN["ticket", d] - 200 for d in LADDER}
    assert summary.sentence(made(worse)).startswith(
        "imp is not shown to match dense at any density of mlp-mnist1d (−2.0 points [−2.0, −2.0] "
        "from dense at 50 %): 15.0 points ["
    )
    assert "above random (ERK) masks at 3.5 %;" in summary.sentence(made(worse))


def test_what_an_interval_leaves_open_is_not_called_above_or_below() -> None:
    level = {("erk", d): SHOWN["ticket", d] for d in LADDER}
    said = summary.sentence(made(level))
    assert "not told apart from random (ERK) masks there (0.0 points [−0.2, 0.2])" in said
    first = {("erk", d): SHOWN["ticket", d] for d in LADDER[:-1]}  # apart on the sparsest rung
    assert "points [" in (said := summary.sentence(made(first)))
    assert "above random (ERK) masks at 3.5 %; ticket above" in said and "told apart" not in said
    better = {("erk", d): SHOWN["ticket", d] + 100 for d in LADDER}
    assert "1.0 points [0.8, 1.2] below random (ERK) masks there" in summary.sentence(made(better))


@pytest.mark.parametrize(
    ("reinit", "shuffled", "told"),
    [
        (9500, 9100, "ticket above reinit above shuffled at 8.6 %"),
        (9100, 9100, "ticket above reinit and shuffled at 8.6 %"),
        (9838, 9100, "ticket above shuffled, not above reinit, at 8.6 %"),
        (9100, 9838, "ticket above reinit, not above shuffled, at 8.6 %"),
        (9838, 9838, "ticket above neither reinit nor shuffled at 8.6 %"),
        (None, 9100, "ticket above shuffled at 8.6 %"),
        (None, 9838, "ticket not above shuffled at 8.6 %"),
    ],
)
def test_the_order_of_ticket_and_controls(
    reinit: int | None, shuffled: int | None, told: str
) -> None:
    said = summary.sentence(made({("reinit", 0.0859): reinit, ("shuffled", 0.0859): shuffled}))
    assert f"; {told}; " in said


def test_without_controls_nothing_is_said_of_them() -> None:
    said = summary.sentence(made(only=("ticket", "dense")))
    assert said == (
        "imp keeps dense's accuracy down to 8.6 % of the weights on mlp-mnist1d; a search costs 15 "
        "dense trainings."
    )


def test_two_seeds_are_told_one_by_one() -> None:
    said = summary.sentence(made(seeds=2))
    assert said == (
        "imp on mlp-mnist1d is −1.4 / −1.4 points from dense at 3.5 % of the weights: +16.8 / "
        "+17.1 points from random (ERK) masks at 3.5 %; a search costs 15 dense trainings."
    )


def test_without_a_reference_the_sparsest_rung_is_told() -> None:
    said = summary.sentence(made(reference=False, final=False))
    assert said.startswith("imp on mlp-mnist1d is 1.4 points [1.4, 1.4] below dense at 3.5 % of")
    bare = summary.sentence(made({("dense", 1.0): None}, reference=False))
    assert bare.startswith("imp on mlp-mnist1d: 97.0 [97.0, 97.0] % accuracy at 3.5 % of the")


def test_a_method_without_tickets() -> None:
    none = {("ticket", density): None for density in LADDER}
    assert summary.sentence(made(none, cost=0.0)) == (
        "imp found no ticket on mlp-mnist1d; a search costs no training."
    )


@pytest.mark.parametrize(
    ("cost", "told"),
    [
        (0.0, "no training"),
        (0.001, "less than 0.01 dense trainings"),
        (0.25, "0.25 dense trainings"),
        (1.0, "1 dense training"),
        (20.0, "20 dense trainings"),
        (22.96, "23 dense trainings"),
        (22.5, "22.5 dense trainings"),
    ],
)
def test_what_a_search_costs(cost: float, told: str) -> None:
    assert summary.sentence(made(cost=cost)).endswith(f"; a search costs {told}.")


# Areas


def grokking(ticket: int, dense: int, *, never: int = 0) -> Record:
    """A record whose runs generalise at these evaluations of a hundred; `never` seeds do not."""
    table = synthetic_record(kind="area").model_dump(mode="json")
    for cell in table["cells"]:
        first = {"dense": dense, "ticket": ticket}.get(cell["kind"], 90) + cell["seed"]
        if cell["kind"] == "ticket" and cell["seed"] < never:
            first = 101
        for part, size in table["sizes"][str(cell["seed"])].items():
            if part in cell["correct"]:
                cell["correct"][part] = [size * (n >= first) for n in range(1, 101)]
    return build(table)


def test_a_ticket_that_generalises_sooner() -> None:
    assert re.match(
        r"imp generalises as soon as dense down to 13 % of the weights on mlp-modadd59, 1\.9 times "
        r"\[1\.\d, [12]\.\d\] sooner there: \d+\.\d points of area \[\d+\.\d, \d+\.\d\] above "
        r"random \(ERK\) masks there; ",
        summary.sentence(grokking(20, 40)),
    )


def test_a_ticket_that_sometimes_never_does_is_not_timed() -> None:
    said = summary.sentence(grokking(60, 40, never=1))
    assert "times" not in said and "not shown to match dense at any density" in said
    assert "points of area" in said


# Untrained tickets


def test_untrained_tickets_are_told_as_they_stand() -> None:
    table = made(cost=5.0).model_dump(mode="json")
    for cell in [c for c in table["cells"] if c["kind"] == "ticket"]:
        for kind, share in (("untrained", 1), ("untrained_random", 9)):
            counts = {part: [row[-1] // share] for part, row in cell["correct"].items()}
            table["cells"].append({**cell, "kind": kind, "correct": counts})
    assert re.fullmatch(
        r"imp reaches 98\.4 \[98\.4, 98\.4\] % accuracy on mlp-mnist1d at 50 % of the weights, "
        r"untrained: 0\.02 points \[0\.00, 0\.04\] above dense, which is trained; "
        r"87\.5 points \[.*\] above a random mask, untrained; a search costs 5 dense trainings\.",
        summary.sentence(build(table)),
    )


# Every record


@moderate
@given(
    seed=st.integers(0, 20),
    kind=st.sampled_from(["accuracy", "area"]),
    seeds=st.integers(1, 6),
    final=st.booleans(),
    reference=st.booleans(),
    controls=st.sampled_from(["all", "one rung"]),
    division=st.sampled_from(["init", "rewind", "open", "reference"]),
    lost=st.sets(st.tuples(st.sampled_from(["dense", "ticket", "erk", "reinit"]),
                           st.integers(0, 2), st.integers(0, 5)), max_size=6),
)  # fmt: skip
def test_every_record_has_one_sentence(
    seed: int, kind: Any, seeds: int, final: bool, reference: bool, controls: Any, division: Any,
    lost: set[tuple[str, int, int]],
) -> None:  # fmt: skip
    ladder = (ACCURACY if kind == "accuracy" else AREA)["ladder"]
    first = 0 if final else 1000
    bad = {
        (kind_, 1.0 if kind_ == "dense" else ladder[at], first + number): ("failed", "no memory")
        for kind_, at, number in lost
    }
    record = synthetic_record(
        seed, kind, seeds, final=final, reference=reference, controls=controls,
        division=division, bad=bad,
    )  # fmt: skip
    said = summary.sentence(record)
    assert said.endswith(".") and "\n" not in said and "n/a" not in said and "nan" not in said
    assert said.startswith("imp ")
    assert len(said) < 400


def test_the_sentence_is_first_in_every_form() -> None:
    records = [made(), grokking(20, 40)]
    assert summary.text(records).startswith("imp keeps dense's accuracy down to 8.6 %")
    assert max(map(len, summary.text(records).splitlines())) <= terminal.WIDTH
    assert summary.text(records, "markdown").count("\n\n") == 1
    latex = summary.text(records, "latex").splitlines()
    assert len(latex) == 2 and all(line.startswith("% imp ") for line in latex)
    assert all(line.isascii() for line in latex)


def test_a_headline_is_never_said_to_be_retention_in_it() -> None:
    assert "etention" not in summary.sentence(made())
    headline = made().scores.headline
    assert headline is not None and headline.what == "retention"
