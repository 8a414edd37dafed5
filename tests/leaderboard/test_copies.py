"""tickets.sketch and board.copies: how far two entries have the same tickets."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lthbench.io.paths import digest
from lthbench.leaderboard.board import copies
from lthbench.leaderboard.board.entries import Entry
from lthbench.leaderboard.board.standings import Standing, standings
from lthbench.records.schema import Record, build
from lthbench.tickets.sketch import PARTS, jaccard, sketch, unpacked
from tests.boards import LITE, board_of, board_record, entry_of

pytestmark = pytest.mark.usefixtures("small_lite")

Bools = NDArray[np.bool_]
SIZE = 20_000


def pair(kept: int, index: float, dice: np.random.Generator, size: int = SIZE) -> list[Bools]:
    """Two masks of so many weights whose Jaccard index is that one, to the nearest weight."""
    both = round(2 * kept * index / (1 + index))
    places = dice.permutation(size)[: 2 * kept - both]
    made = [np.zeros(size, dtype=np.bool_) for _ in range(2)]
    made[0][places[:kept]] = made[1][places[kept - both :]] = True
    return made


def estimated(one: Bools, other: Bools) -> float:
    ours, others = unpacked([sketch({"w": one})]), unpacked([sketch({"w": other})])
    return float(jaccard(ours, others)[0])


# Sketches


def slow(flat: Bools) -> list[int]:
    """The bits of a sketch by the text of the protocol, a weight at a time."""

    def mix(value: int) -> int:
        z = (value + 1) * 0x9E3779B97F4A7C15 % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    least: dict[int, int] = {}
    for place in np.flatnonzero(flat).tolist():
        value = mix(place)
        part = min(PARTS - 1, value // (2**64 // PARTS))
        least[part] = min(value, least.get(part, value))
    bits = []
    for part in range(PARTS):
        turn, source = 0, part
        while source not in least:
            turn += 1
            source = mix(turn * 2**32 + part) % PARTS
        bits.append(least[source] % 2)
    return bits


@pytest.mark.parametrize("kept", [1, 3, 300, 6000])
def test_a_sketch_is_what_the_protocol_says(kept: int) -> None:
    flat = pair(kept, 0.5, np.random.default_rng(kept))[0]
    assert np.unpackbits(unpacked([sketch({"w": flat})])[0]).tolist() == slow(flat)


def test_tensors_are_counted_through_by_name() -> None:
    flat = pair(700, 0.5, np.random.default_rng(1))[0]
    parts = {"b": flat[600:].reshape(100, -1), "a": flat[:600].reshape(20, 30)}
    assert sketch(parts) == sketch({"w": flat})
    assert len(sketch(parts)) == 64


@pytest.mark.parametrize("kept", [3000, 10_000])
@pytest.mark.parametrize("index", [0.34, 0.5, 0.9, 0.98])
def test_the_error_is_as_it_is_said(kept: int, index: float) -> None:
    """Mean and spread of 200 estimates, each of other places and so of other hashes."""
    dice = np.random.default_rng(round(100 * index) + kept)

    def once() -> float:
        before = np.zeros(dice.integers(500_000), dtype=np.bool_)
        return estimated(*(np.append(before, mask) for mask in pair(kept, index, dice)))

    found = np.array([once() for _ in range(200)])
    error = math.sqrt((1 - index**2) / PARTS)
    assert found.mean() == pytest.approx(index, abs=4 * error / math.sqrt(200) + 1e-3)
    assert found.std() == pytest.approx(error, rel=0.2)
    assert estimated(*[pair(kept, index, dice)[0]] * 2) == 1


# Entries


@functools.cache
def masks_of(seed: int, density: float, who: int) -> Bools:
    """A mask that somebody found."""
    dice = np.random.default_rng([seed, round(1e6 * density), who])
    return dice.permutation(SIZE) < round(density * SIZE)


def swapped(flat: Bools, share: float) -> Bools:
    """The same mask with so much of what it keeps given up for as many others."""
    dice, made = np.random.default_rng(7), flat.copy()
    count = min(round(share * flat.sum()), int((~flat).sum()))
    made[dice.choice(np.flatnonzero(flat), count, replace=False)] = False
    made[dice.choice(np.flatnonzero(~flat), count, replace=False)] = True
    return made


@functools.cache
def plain(task: str, number: int) -> Record:
    return board_record(task, number)


def record_of(number: int, who: Any, *, task: str = LITE[0], sketched: bool = True) -> Record:
    """A record of a method's own scores whose tickets have the masks that `who` tells.

    Args:
        who: of seed and density, the mask's bits.
    """
    table = plain(task, number).model_dump(mode="json")
    own: dict[tuple[int, float], str] = {}
    for cell in table["cells"]:
        at = cell["seed"], cell["density"]
        if cell["kind"] == "ticket" and cell["schedule"] == 1:
            flat = who(*at)
            own[at] = cell["masks"] = digest(np.packbits(flat).tobytes())
            cell["sketch"] = sketch({"w": flat}) if sketched else None
        elif cell["kind"] in ("ticket", "reinit", "reinit-signs"):
            cell["masks"] = own.get(at, cell["masks"])
    return build({k: v for k, v in table.items() if k not in ("aggregates", "scorer")})


def first(seed: int, density: float) -> Bools:
    return masks_of(seed, density, 0)


def flipped(seed: int, density: float) -> Bools:
    return swapped(first(seed, density), 0.01)


def one_seed_changed(seed: int, density: float) -> Bools:
    return masks_of(seed, density, 1 if seed == 0 else 0)


def first_rung(seed: int, density: float) -> Bools:
    return masks_of(seed, density, 0 if density == max(ladder()) else 1)


def apart(seed: int, density: float) -> Bools:
    return masks_of(seed, density, 1)


def half_apart(seed: int, density: float) -> Bools:
    return swapped(first(seed, density), 0.4)


def ladder() -> tuple[float, ...]:
    return plain(LITE[0], 1).task.ladder


def found(record: Record, other: Record) -> tuple[copies.Likeness, ...]:
    """What the second shares with the first, which was accepted before it."""
    listed = [entry_of(record, 1, 2), entry_of(other, 2, 2)]
    return copies.likenesses(listed).get(listed[1].digest, ())


WHAT: Mapping[str, tuple[Any, bool, str]] = {
    "the same": (first, True, "same tickets as"),
    "1 % of each mask swapped": (flipped, True, "0 of"),
    "one seed changed": (one_seed_changed, True, "same tickets as"),
}


@pytest.mark.parametrize("name", WHAT)
def test_a_copy_under_another_name(name: str) -> None:
    """Nothing else of the record is the other's."""
    who, same, words = WHAT[name]
    (one,) = found(record_of(1, first), record_of(2, who))
    assert one.same is same and words in one.text


def test_a_common_first_rung_is_a_remark() -> None:
    """As one-shot pruning and IMP have it."""
    (one,) = found(record_of(1, first), record_of(2, first_rung))
    seeds = len(plain(LITE[0], 1).seeds)
    assert (one.equal, one.near, one.cells) == (seeds, 0, seeds * len(ladder()))
    assert one.rungs == (max(ladder()),)
    assert not one.same and one.text.startswith("in part the masks of")


@pytest.mark.parametrize("who", [apart, half_apart])
def test_others_share_nothing(who: Any) -> None:
    assert found(record_of(1, first), record_of(2, who)) == ()


def test_without_sketches_digests_alone_tell() -> None:
    old = record_of(1, first, sketched=False)
    (one,) = found(old, record_of(2, first))
    assert one.same and one.overlap is None
    assert found(old, record_of(2, flipped)) == ()
    assert found(old, record_of(2, apart, sketched=False)) == ()


def test_what_came_first_is_the_original() -> None:
    """By the ledger; what was retracted, or superseded by the same method, is none."""
    mine, other = record_of(1, first), record_of(2, first)
    listed = [entry_of(mine, 5, 2), entry_of(other, 4, 2)]
    ((raw, (one,)),) = copies.likenesses(listed).items()
    assert (raw, one.id) == (listed[0].digest, listed[1].id)
    gone = replace(listed[1], state="retracted")
    assert copies.likenesses([listed[0], gone]) == {}
    older = replace(listed[1], state="superseded")
    assert list(copies.likenesses([listed[0], older])) == [listed[0].digest]
    again = replace(entry_of(mine, 3, 2), state="superseded")
    assert copies.likenesses([listed[0], again]) == {}


@given(share=st.floats(0, 1), density=st.sampled_from([0.8, 0.5, 0.05]))
def test_near_is_nine_tenths_of_the_way_from_chance(share: float, density: float) -> None:
    """By exact indices; masks that only look alike because they are dense are not near."""
    chance = density / (2 - density)
    place = (0, density)
    index = chance + share * (1 - chance)
    one = copies.likeness("a", {place: ("b", None)}, {place: ("c", None)}, {place: index})
    assert one.overlap == pytest.approx(share)
    assert one.near == (one.overlap is not None and one.overlap >= copies.NEAR)


# Boards


def lite(number: int, who: Any, at: int) -> list[Entry]:
    """A method's entries on the three tasks, with these masks on the first."""
    records = [record_of(number, who), *(plain(task, number) for task in LITE[1:])]
    return [entry_of(record, at + n, 2) for n, record in enumerate(records)]


def early(listed: list[Entry]) -> Standing:
    (chosen,) = [s for s in standings(board_of(listed), "lite") if s.board == "open"]
    return chosen


@pytest.mark.parametrize("who", [first, flipped, one_seed_changed])
def test_a_copy_stands_beneath_the_original_and_is_not_ranked(who: Any) -> None:
    for copied in (2, 5):
        original, copy = lite(1, first, 10), lite(copied, who, 20)
        rows = early([*original, *copy]).rows
        assert [row.contender.name for row in rows] == [
            original[0].record.method.name, copy[0].record.method.name
        ]  # fmt: skip
        assert rows[0].rank == (1, 1) and rows[1].rank is None
        assert rows[1].why_unranked == f"same tickets as {original[0].id}"


@pytest.mark.parametrize("numbers", [*itertools.permutations((1, 2, 5))])
def test_a_copy_stands_right_beneath_an_original_that_is_not_ranked(numbers: list[int]) -> None:
    """Whatever it scores, and whoever scores between."""
    original, copy, other = numbers
    listed = [*lite(original, first, 10), *lite(copy, flipped, 20), *lite(other, apart, 30)]
    rows = early([replace(entry, level=1) for entry in listed]).rows
    names = [row.contender.name for row in rows]
    at = names.index(listed[0].record.method.name)
    assert names[at + 1] == listed[3].record.method.name


def test_a_common_rung_is_ranked() -> None:
    rows = early([*lite(1, first, 10), *lite(2, first_rung, 20)]).rows
    assert all(row.rank for row in rows)
