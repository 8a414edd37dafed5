"""Masks: exact counts whatever the ties, one answer whatever the order, dtype and layout."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lthbench.errors import TicketError
from lthbench.tickets import masks as masks_module
from lthbench.tickets.allocation import Rule, layer_counts
from lthbench.tickets.masks import (
    counts,
    density,
    digest,
    keep_top,
    kept,
    nested,
    pack,
    target_count,
    total,
    unpack,
)
from lthbench.tickets.overlap import overlap
from tests import strategies
from tests.strategies import moderate

LENET = {"fc1.weight": (300, 784), "fc2.weight": (100, 300), "fc3.weight": (10, 100)}
RULES: list[Rule] = ["uniform", "erk"]


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether two masks have the same names, shapes and entries."""
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- a second, slow keep_top: one sorted list in pure Python ---------------------------------


def splitmix64(state: int, steps: int) -> int:
    """The ``steps``-th output (from 0) of splitmix64 started at ``state``."""
    z = (state + (steps + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def reference(
    scores: Mapping[str, Tensor],
    keep: float | Mapping[str, int],
    within: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """``keep_top`` as its docstring says it, one entry at a time."""
    entries = []
    for name, values in scores.items():
        start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        allowed = within[name].reshape(-1).tolist() if within else itertools.repeat(True)
        pairs = zip(values.reshape(-1).tolist(), allowed, strict=False)
        for index, (value, may) in enumerate(pairs):
            if may:
                entries.append((-value, splitmix64(start, index), name, index))
    entries.sort()
    if isinstance(keep, Mapping):
        chosen = []
        for name, count in keep.items():
            chosen += [entry for entry in entries if entry[2] == name][:count]
    else:
        chosen = entries[: round(keep * sum(values.numel() for values in scores.values()))]
    result = {
        name: torch.zeros(values.numel(), dtype=torch.bool) for name, values in scores.items()
    }
    for *_, name, index in chosen:
        result[name][index] = True
    return {name: result[name].reshape(values.shape) for name, values in scores.items()}


def test_the_reference_mixes_as_published() -> None:
    # The known answers of splitmix64 for the seed 1234567.
    assert [splitmix64(1234567, steps) for steps in range(3)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@moderate
@given(scores=strategies.scores(), density=strategies.densities())
def test_global_choice_is_the_reference(scores: dict[str, Tensor], density: float) -> None:
    chosen = keep_top(scores, density)
    assert same(chosen, reference(scores, density))
    assert kept(chosen) == target_count(density, total(scores))
    assert list(chosen) == list(scores)


@moderate
@given(data=st.data(), pair=strategies.scores_within())
def test_layer_wise_choice_within_masks_is_the_reference(
    data: st.DataObject, pair: tuple[dict[str, Tensor], dict[str, Tensor]]
) -> None:
    scores, within = pair
    wanted = data.draw(strategies.count_for_each(within))
    chosen = keep_top(scores, wanted, within)
    assert same(chosen, reference(scores, wanted, within))
    assert counts(chosen) == wanted
    assert nested(chosen, within)


@moderate
@given(pair=strategies.scores_within(), density=strategies.densities())
def test_global_choice_within_masks_is_the_reference(
    pair: tuple[dict[str, Tensor], dict[str, Tensor]], density: float
) -> None:
    scores, within = pair
    if target_count(density, total(scores)) > kept(within):
        with pytest.raises(TicketError, match="may be kept"):
            keep_top(scores, density, within)
        return
    chosen = keep_top(scores, density, within)
    assert same(chosen, reference(scores, density, within))
    assert nested(chosen, within)


@moderate
@given(
    scores=strategies.scores(),
    ladder=st.lists(strategies.densities(), min_size=2, max_size=4),
)
def test_masks_of_a_ladder_are_nested(scores: dict[str, Tensor], ladder: list[float]) -> None:
    rungs = [keep_top(scores, density) for density in sorted(ladder, reverse=True)]
    for outer, inner in itertools.pairwise(rungs):
        assert nested(inner, outer)
        wanted = kept(inner) / total(inner)
        if wanted:
            # Going down rung by rung or in one step is the same.
            assert same(keep_top(scores, wanted, within=outer), inner)


@moderate
@given(data=st.data(), shapes=strategies.shapes(), density=strategies.densities())
def test_the_dtype_is_irrelevant(
    data: st.DataObject, shapes: dict[str, tuple[int, ...]], density: float
) -> None:
    whole = {
        name: torch.tensor(
            data.draw(st.lists(st.integers(0, 3), min_size=math.prod(s), max_size=math.prod(s)))
        ).reshape(s)
        for name, s in shapes.items()
    }
    expected = keep_top(whole, density)
    for dtype in (
        torch.float64,
        torch.float32,
        torch.bfloat16,
        torch.float16,
        torch.uint8,
        torch.int8,
        torch.int32,
    ):
        assert same(keep_top({n: s.to(dtype) for n, s in whole.items()}, density), expected), dtype
    first = next(iter(whole))
    mixed = {n: s.to(torch.bfloat16) if n == first else s for n, s in whole.items()}
    assert same(keep_top(mixed, density), expected)


def test_scores_that_float32_cannot_tell_apart_are_not_ties() -> None:
    scores = {"a": torch.tensor([2**53 - 2, 2**53 - 1, 2**53 - 3])}
    assert keep_top(scores, {"a": 1})["a"].tolist() == [False, True, False]
    close = {"a": torch.tensor([1.0, 1.0 + 2**-52, 1.0 - 2**-53], dtype=torch.float64)}
    assert keep_top(close, {"a": 1})["a"].tolist() == [False, True, False]


def test_the_memory_layout_is_irrelevant() -> None:
    values = torch.arange(4 * 3 * 5 * 5).reshape(4, 3, 5, 5) % 7
    expected = keep_top({"w": values.float()}, 0.3)
    last = values.float().contiguous(memory_format=torch.channels_last)
    turned = values.float().permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0)
    for other in (last, turned, values.float().requires_grad_()):
        assert same(keep_top({"w": other}, 0.3), expected)
        assert digest(keep_top({"w": other}, 0.3)) == digest(expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_device_is_irrelevant() -> None:
    scores = {"a": torch.arange(1000).float() % 5, "b": torch.zeros(7)}
    there = keep_top({name: values.cuda() for name, values in scores.items()}, 0.3)
    here = keep_top(scores, 0.3)
    assert {mask.device.type for mask in there.values()} == {"cuda"}
    assert same({name: mask.cpu() for name, mask in there.items()}, here)
    assert digest(there) == digest(here)
    assert nested(there, here) and overlap(there, here).pooled.jaccard == 1
    assert same(keep_top(scores, 0.2, within=there), keep_top(scores, 0.2))


def test_ties_are_spread_over_tensors_and_entries() -> None:
    scores = {name: torch.ones(shape) for name, shape in LENET.items()}
    chosen = keep_top(scores, 0.1)
    assert kept(chosen) == 26_620
    for name, mask in chosen.items():
        rows = mask.reshape(mask.shape[0], -1).double().mean(dim=1)
        # Hypergeometric, so at most binomial: within five standard errors.
        assert abs(float(rows.mean()) - 0.1) < 5 * math.sqrt(0.09 / mask.numel()), name
        halves = mask.reshape(2, -1).double().mean(dim=1)
        assert abs(float(halves[0] - halves[1])) < 5 * math.sqrt(4 * 0.09 / mask.numel()), name


def test_equal_tie_ranks_go_by_name_and_index(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two names whose 64-bit ranks meet are not to be found, so all ranks are made equal here.
    monkeypatch.setattr(masks_module, "_tie_ranks", lambda name, at: np.zeros(at.size, np.uint64))
    for names in ("ab", "ba"):
        chosen = keep_top({name: torch.ones(3) for name in names}, 4 / 6)
        assert chosen["a"].tolist() == [True, True, True]
        assert chosen["b"].tolist() == [True, False, False]


def test_golden_ties() -> None:
    # Frozen: masks of records depend on the rule of ties.
    scores = {name: torch.ones(shape) for name, shape in LENET.items()}
    assert (
        digest(keep_top(scores, 0.1))
        == "810996a3533c59c76a6657b972ccad2df3658c9665379da16b4d7d8127d39323"
    )


def test_scores_are_left_alone_and_masks_share_no_memory() -> None:
    scores = {"a": torch.zeros(5), "b": torch.zeros(4)}
    chosen = keep_top(scores, 0.5)
    assert all(bool((values == 0).all()) for values in scores.values())
    before = counts(chosen)["b"]
    chosen["a"].fill_(True)
    assert counts(chosen) == {"a": 5, "b": before}
    assert chosen["a"].untyped_storage().nbytes() == 5


@pytest.mark.parametrize("keep", [0.5, {"a": 1, "fc.weight": 1}])
def test_nan_is_refused_by_name(keep: float | dict[str, int]) -> None:
    scores = {"a": torch.ones(3), "fc.weight": torch.tensor([1.0, math.nan, math.nan])}
    with pytest.raises(TicketError, match=r"fc\.weight contain NaN \(2 of 3 entries\)"):
        keep_top(scores, keep)


@pytest.mark.parametrize(
    ("scores", "keep", "within", "message"),
    [
        ({}, 0.5, None, "there are no scores"),
        ({"a": torch.ones(2, dtype=torch.complex64)}, 0.5, None, "complex"),
        ({"a": torch.tensor([2**53, 0])}, 0.5, None, r"a hold integers beyond 2\*\*53"),
        ({"a": torch.tensor([-(2**60), 0])}, 0.5, None, "integers beyond"),
        ({"a": torch.ones(2)}, {"b": 1}, None, "a is in scores but not in counts"),
        ({"a": torch.ones(2)}, {"a": 1, "b": 1}, None, "b is in counts but not in scores"),
        ({"a": torch.ones(2)}, {"a": 3}, None, "3 entries are to be kept in a, but 2"),
        ({"a": torch.ones(2)}, {"a": -1}, None, "-1 entries"),
        ({"a": torch.ones(2)}, {"a": 1.0}, None, "not a whole number"),
        ({"a": torch.ones(4)}, 0.5, {"a": torch.arange(4) == 0}, "2 entries .* but 1 may"),
        ({"a": torch.ones(4)}, {"a": 2}, {"a": torch.arange(4) == 0}, "2 entries .* but 1 may"),
        ({"a": torch.ones(4)}, 0.5, {"a": torch.ones(4)}, "mask of a is torch.float32"),
        (
            {"a": torch.ones(4)},
            0.5,
            {"a": torch.ones(2, 2) > 0},
            r"shape \[4\] in scores, \[2, 2\]",
        ),
        ({"a": torch.ones(4)}, 0.5, {}, "a is in scores but not in within"),
    ],
)
def test_what_cannot_be_kept_is_refused(scores: Any, keep: Any, within: Any, message: str) -> None:
    with pytest.raises(TicketError, match=message):
        keep_top(scores, keep, within)


@pytest.mark.parametrize("bad", [0, -0.1, 1.0001, 20, 101, math.nan, math.inf])
def test_densities_outside_the_range_are_refused(bad: float) -> None:
    calls: list[Any] = [
        lambda: keep_top({"a": torch.ones(3)}, bad),
        lambda: target_count(bad, 3),
        lambda: layer_counts({"a": (3,)}, bad, "uniform"),
    ]
    for call in calls:
        with pytest.raises(TicketError, match=r"outside \(0, 1\]"):
            call()


def test_a_percentage_is_explained() -> None:
    with pytest.raises(TicketError, match=r"for 20 % write 0\.2"):
        target_count(20, 100)


def test_target_count_rounds_half_to_even() -> None:
    assert [target_count(0.5, size) for size in (1, 3, 5, 7)] == [0, 2, 2, 4]
    assert target_count(1, 266_200) == 266_200
    assert [target_count(0.8**n, 266_200) for n in (3, 11, 23)] == [136_294, 22_866, 1_571]


# --- counts for each tensor ----------------------------------------------------------------


@moderate
@given(shapes=strategies.shapes(max_side=9), density=strategies.densities())
def test_layer_counts_are_exact_and_possible(
    shapes: dict[str, tuple[int, ...]], density: float
) -> None:
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    for rule in RULES:
        found = layer_counts(shapes, density, rule)
        assert list(found) == list(shapes)
        assert sum(found.values()) == target_count(density, sum(sizes.values()))
        assert all(0 <= found[name] <= size for name, size in sizes.items())
        assert layer_counts(dict(reversed(shapes.items())), density, rule) == found
        assert layer_counts(shapes, 1.0, rule) == sizes


@moderate
@given(shapes=strategies.shapes(max_side=9), density=strategies.densities())
def test_uniform_counts_are_within_one_of_their_share(
    shapes: dict[str, tuple[int, ...]], density: float
) -> None:
    for name, count in layer_counts(shapes, density, "uniform").items():
        assert abs(count - Fraction(density) * math.prod(shapes[name])) < 1


def erk_reference(shapes: Mapping[str, tuple[int, ...]], density: float) -> dict[str, float]:
    """Quotas as in the loop of the published code: one densest tensor a round, in floats."""
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    raw = {name: (sum(shape) or 1) / sizes[name] for name, shape in shapes.items()}
    dense: set[str] = set()
    while True:
        rest = [name for name in shapes if name not in dense]
        wanted = density * sum(sizes.values()) - sum(sizes[name] for name in dense)
        if not rest:
            return {name: float(size) for name, size in sizes.items()}
        scale = wanted / sum(raw[name] * sizes[name] for name in rest)
        densest = max(rest, key=raw.__getitem__)
        if raw[densest] * scale <= 1:
            return {n: sizes[n] * (1 if n in dense else raw[n] * scale) for n in shapes}
        dense.add(densest)


@moderate
@given(shapes=strategies.shapes(max_side=9), density=strategies.densities())
def test_erk_counts_are_within_one_of_the_published_loop(
    shapes: dict[str, tuple[int, ...]], density: float
) -> None:
    found, quotas = layer_counts(shapes, density, "erk"), erk_reference(shapes, density)
    assert all(abs(found[name] - quotas[name]) < 1 + 1e-9 for name in shapes)


def test_erk_of_lenet_by_hand() -> None:
    # 26,620 entries over sums of sides 1,084 + 400 + 110 give fc3 1,837 of its 1,000: dense.
    # The other 25,620 over 1,484: fc1 18,714.34, fc2 6,905.66.
    assert layer_counts(LENET, 0.1, "erk") == {
        "fc1.weight": 18_714,
        "fc2.weight": 6_906,
        "fc3.weight": 1_000,
    }


def test_erk_fills_more_than_one_tensor() -> None:
    shapes = {"wide": (100, 100), "small": (4, 4), "edge": (30, 8)}
    # First pass: 5,128 / (200 + 8 + 38) = 20.8, so small (8 x) and edge (38 x) are over-full.
    assert layer_counts(shapes, 0.5, "erk") == {"wide": 4_872, "small": 16, "edge": 240}


def test_equal_remainders_go_by_name() -> None:
    shapes = {"c": (5,), "a": (5,), "b": (5,)}
    assert layer_counts(shapes, 0.5, "uniform") == {"c": 2, "a": 3, "b": 3}


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(TicketError, match="unknown rule 'even'"):
        layer_counts(LENET, 0.1, "even")  # type: ignore[arg-type]


# --- counting and comparing ----------------------------------------------------------------


@moderate
@given(masks=strategies.masks())
def test_counting_is_counting(masks: dict[str, Tensor]) -> None:
    expected = {name: sum(mask.reshape(-1).tolist()) for name, mask in masks.items()}
    assert counts(masks) == expected
    assert kept(masks) == sum(expected.values())
    assert total(masks) == sum(len(mask.reshape(-1)) for mask in masks.values())
    assert density(masks) == kept(masks) / total(masks)


def test_no_entries_have_no_density() -> None:
    assert total({}) == kept({}) == 0
    with pytest.raises(TicketError, match="no entries"):
        density({})


def test_other_dtypes_are_no_masks() -> None:
    weights = {"a": torch.ones(3)}
    for call in (counts, kept, density, pack, digest):
        with pytest.raises(TicketError, match=r"mask of a is torch\.float32"):
            call(weights)
    with pytest.raises(TicketError, match=r"mask of a is torch\.float32"):
        nested({"a": torch.ones(3) > 0}, weights)


def kept_set(masks: Mapping[str, Tensor]) -> set[tuple[str, int]]:
    """The kept entries as (name, flat index)."""
    return {
        (name, index)
        for name, mask in masks.items()
        for index, keep in enumerate(mask.reshape(-1).tolist())
        if keep
    }


@moderate
@given(pair=strategies.mask_pairs())
def test_nested_is_the_subset_relation(pair: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
    a, b = pair
    assert nested(a, b) == (kept_set(a) <= kept_set(b))
    both = {name: a[name] & b[name] for name in a}
    assert nested(both, a) and nested(both, b) and nested(a, a)


def test_masks_that_do_not_match_are_not_compared() -> None:
    one = {"a": torch.ones(2, 3) > 0}
    for compare in (nested, overlap):
        with pytest.raises(TicketError, match="b is in"):
            compare(one, {**one, "b": torch.ones(1) > 0})
        with pytest.raises(TicketError, match="a has shape"):
            compare(one, {"a": torch.ones(3, 2) > 0})


def hypergeometric(size: int, first: int, second: int) -> tuple[float, float]:
    """Mean and standard deviation of the intersection, summed over its distribution."""
    ways = math.comb(size, second)
    chances = [
        math.comb(first, both) * math.comb(size - first, second - both) / ways
        for both in range(second + 1)
    ]
    mean = sum(both * chance for both, chance in enumerate(chances))
    square = sum((both - mean) ** 2 * chance for both, chance in enumerate(chances))
    return mean, math.sqrt(square)


@moderate
@given(pair=strategies.mask_pairs())
def test_overlap_is_that_of_sets(pair: tuple[dict[str, Tensor], dict[str, Tensor]]) -> None:
    a, b = pair
    found = overlap(a, b)
    assert list(found.tensors) == sorted(a)
    means, variances, most, union_of_most = 0.0, 0.0, 0, 0
    for name, figures in found.tensors.items():
        first, second = kept_set({name: a[name]}), kept_set({name: b[name]})
        size = a[name].numel()
        mean, deviation = hypergeometric(size, len(first), len(second))
        assert (figures.size, figures.kept_a, figures.kept_b) == (size, len(first), len(second))
        assert figures.intersection == len(first & second)
        assert figures.expected == pytest.approx(mean, abs=1e-9)
        assert figures.deviation == pytest.approx(deviation, abs=1e-6)
        if first | second:
            assert figures.jaccard == pytest.approx(len(first & second) / len(first | second))
            assert figures.limit == pytest.approx(
                min(len(first), len(second)) / max(len(first), len(second))
            )
            assert figures.chance == pytest.approx(mean / (len(first) + len(second) - mean))
        else:
            assert figures.jaccard is figures.chance is figures.limit is None
        means, variances = means + mean, variances + deviation**2
        most += min(len(first), len(second))
        union_of_most += max(len(first), len(second))
    pooled, both, either = found.pooled, kept_set(a) & kept_set(b), kept_set(a) | kept_set(b)
    assert pooled.intersection == len(both)
    assert pooled.expected == pytest.approx(means, abs=1e-9)
    assert pooled.deviation == pytest.approx(math.sqrt(variances), abs=1e-6)
    if either:
        assert pooled.jaccard == pytest.approx(len(both) / len(either))
        assert pooled.limit == pytest.approx(most / union_of_most)
    check_standardised(pooled)
    for figures in found.tensors.values():
        check_standardised(figures)


def check_standardised(figures: Any) -> None:
    """Excess and z follow from the other figures and are absent where these leave no freedom."""
    if figures.deviation:
        z = (figures.intersection - figures.expected) / figures.deviation
        assert figures.z == pytest.approx(z)
        room = figures.limit - figures.chance
        assert figures.excess == pytest.approx((figures.jaccard - figures.chance) / room)
        assert figures.excess <= 1
    else:
        assert figures.z is None and figures.excess is None


def test_overlap_of_random_masks_is_chance() -> None:
    draws = np.random.default_rng(0)
    a = {"x": torch.arange(400) < 80, "y": torch.arange(60) < 40}
    found = []
    for _ in range(1500):
        b = {name: torch.from_numpy(draws.permutation(mask.numpy())) for name, mask in a.items()}
        found.append(overlap(a, b).pooled)
    z = np.array([figures.z for figures in found])
    assert abs(z.mean()) < 4 / math.sqrt(1500)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / 1500)
    jaccard = np.array([figures.jaccard for figures in found])
    # J0 is a ratio of expectations; at this size its distance from the mean of J is below .001.
    error = jaccard.std() / math.sqrt(1500)
    assert found[0].chance is not None
    assert abs(jaccard.mean() - found[0].chance) < 4 * error + 1e-3


def test_pooled_chance_keeps_each_tensors_counts() -> None:
    # Same layer densities and nothing else in common: pooled counts would call this overlap.
    a = {"full": torch.ones(100) > 0, "half": torch.arange(1000) % 4 < 2}
    b = {"full": torch.ones(100) > 0, "half": torch.arange(1000) % 2 < 1}
    pooled = overlap(a, b).pooled
    assert pooled.expected == 100 + 250 and pooled.intersection == 350
    assert pooled.excess == 0 and pooled.z == 0


def test_excess_is_one_for_nested_masks() -> None:
    scores = {"a": torch.arange(50.0), "b": torch.arange(30.0)}
    inner, outer = keep_top(scores, {"a": 5, "b": 10}), keep_top(scores, {"a": 20, "b": 15})
    found = overlap(inner, outer)
    assert [figures.excess for figures in found.tensors.values()] == [1, 1]
    assert found.pooled.excess == 1 and found.pooled.jaccard == 15 / 35


# --- files ---------------------------------------------------------------------------------


@moderate
@given(data=st.data(), masks=strategies.masks())
def test_pack_and_unpack(data: st.DataObject, masks: dict[str, Tensor]) -> None:
    bits, shapes = pack(masks)
    assert same(unpack(bits, json.loads(json.dumps(shapes))), masks)
    for name, packed in bits.items():
        assert packed.dtype == torch.uint8
        assert tuple(packed.shape) == (math.ceil(masks[name].numel() / 8),)
    names = data.draw(strategies.reordered(list(masks)))
    again, _ = pack({name: masks[name] for name in names})
    assert list(again) == list(bits) == sorted(masks)
    assert same(again, bits)


def test_packed_bits_begin_at_the_highest() -> None:
    bits, shapes = pack({"a": torch.tensor([[True, False, False], [True, True, False]])})
    assert bits["a"].tolist() == [0b10011000] and shapes == {"a": [2, 3]}


def test_empty_tensors_are_masks() -> None:
    masks = {"a": torch.ones(0, 3) > 0, "b": torch.ones(2) > 0}
    assert same(unpack(*pack(masks)), masks)
    assert same(keep_top({"a": torch.ones(0, 3), "b": torch.ones(2)}, 1.0), masks)
    assert layer_counts({"a": (0, 3), "b": (2,)}, 1.0, "erk") == {"a": 0, "b": 2}
    assert overlap(masks, masks).tensors["a"].z is None


@pytest.mark.parametrize(
    ("bits", "shape", "message"),
    [
        (torch.zeros(1, dtype=torch.uint8), [9], r"needs torch\.uint8 of shape \[2\]"),
        (torch.zeros(2, dtype=torch.uint8), [8], r"needs torch\.uint8 of shape \[1\]"),
        (torch.zeros(1, dtype=torch.int8), [8], "needs"),
        (torch.zeros(1, 1, dtype=torch.uint8), [8], "needs"),
        (torch.ones(1, dtype=torch.uint8), [7], "filling bits after entry 7"),
        (torch.zeros(1, dtype=torch.uint8), [-2, -4], "is not a shape"),
        (torch.zeros(1, dtype=torch.uint8), [8.0], "is not a shape"),
        (torch.zeros(1, dtype=torch.uint8), [True], "is not a shape"),
    ],
)
def test_bits_that_are_no_masks_are_refused(bits: Tensor, shape: list[Any], message: str) -> None:
    with pytest.raises(TicketError, match=f"packed mask of a: .*{message}"):
        unpack({"a": bits}, {"a": shape})


def test_bits_without_a_shape_are_refused() -> None:
    with pytest.raises(TicketError, match="a is in bits but not in shapes"):
        unpack({"a": torch.zeros(1, dtype=torch.uint8)}, {})


@moderate
@given(data=st.data(), masks=strategies.masks())
def test_digest_tells_masks_apart_and_nothing_else(
    data: st.DataObject, masks: dict[str, Tensor]
) -> None:
    expected = digest(masks)
    names = data.draw(strategies.reordered(list(masks)))
    assert digest({name: masks[name].clone() for name in names}) == expected
    name = data.draw(st.sampled_from(names))
    flipped = masks[name].clone().reshape(-1)
    index = data.draw(st.integers(0, flipped.numel() - 1))
    flipped[index] = ~flipped[index]
    others = [
        {**masks, name: flipped.reshape(masks[name].shape)},
        {**masks, name: masks[name].unsqueeze(0)},
        {**masks, "another": masks[name]},
        {(n + "x" if n == name else n): mask for n, mask in masks.items()},
        {n: mask for n, mask in masks.items() if n != name},
    ]
    assert expected not in {digest(other) for other in others}


def test_golden_digest() -> None:
    masks = {"b": torch.tensor(True), "a": torch.tensor([[True, False], [False, True]])}
    expected = hashlib.sha256(b'[["a",[2,2]],["b",[]]]\n' + bytes([0b10010000, 0b10000000]))
    assert digest(masks) == expected.hexdigest()


def test_scores_that_are_no_tensors_are_told() -> None:
    with pytest.raises(TicketError, match=r"^scores of fc\.weight are ndarray: give torch tensors"):
        keep_top({"fc.weight": np.ones((2, 3))}, 0.5)  # type: ignore[dict-item]
