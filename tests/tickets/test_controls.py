"""Controls: a shuffle that shuffles, random masks with exact counts, scales and signs."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lthbench.errors import TicketError
from lthbench.tickets.allocation import Rule, layer_counts
from lthbench.tickets.controls import (
    fresh_magnitudes,
    fresh_signs,
    random_masks,
    rescaled,
    shuffled,
)
from lthbench.tickets.masks import counts, digest, kept, nested, target_count
from tests import strategies
from tests.strategies import moderate

LENET = {"fc1.weight": (300, 784), "fc2.weight": (100, 300), "fc3.weight": (10, 100)}
LADDER = [0.8**n for n in (3, 7, 11, 15, 19, 23)]
RULES: list[Rule] = ["uniform", "erk"]


def first_of(size: int, count: int) -> Tensor:
    return torch.arange(size) < count


@moderate
@given(masks=strategies.masks(), seed=strategies.seeds())
def test_a_shuffle_keeps_counts_and_differs(masks: dict[str, Tensor], seed: int) -> None:
    given_masks = {name: mask.clone() for name, mask in masks.items()}
    result, own = shuffled(masks, seed)
    assert list(result) == list(masks)
    assert counts(result) == counts(masks)
    for name, mask in masks.items():
        assert result[name].shape == mask.shape and result[name].dtype == torch.bool
        assert torch.equal(mask, given_masks[name])
        trivial = bool(mask.all()) or not bool(mask.any())
        assert (name in own) == trivial
        assert torch.equal(result[name], mask) == trivial
    assert list(own) == sorted(own)


def test_what_is_its_own_shuffle_is_named() -> None:
    masks = {
        "one": torch.tensor(True),
        "single": torch.tensor([False]),
        "full": torch.ones(2, 3) > 0,
        "empty": torch.zeros(4) > 0,
        "nothing": torch.zeros(0) > 0,
        "mixed": torch.tensor([True, False]),
    }
    result, own = shuffled(masks, 0)
    assert own == ("empty", "full", "nothing", "one", "single")
    assert result["mixed"].tolist() == [False, True]
    result["full"].fill_(False)
    assert bool(masks["full"].all())


@moderate
@given(data=st.data(), masks=strategies.masks(), seed=strategies.seeds())
def test_a_shuffle_is_repeatable_tensor_by_tensor(
    data: st.DataObject, masks: dict[str, Tensor], seed: int
) -> None:
    names = data.draw(strategies.reordered(list(masks)))
    result, _ = shuffled(masks, seed)
    again, _ = shuffled({name: masks[name] for name in names}, seed)
    alone, _ = shuffled({names[0]: masks[names[0]]}, seed)
    assert digest(again) == digest(result)
    assert torch.equal(alone[names[0]], result[names[0]])


def test_seeds_attempts_and_names_shuffle_differently() -> None:
    masks = {"a": first_of(200, 50), "b": first_of(200, 50)}
    result, _ = shuffled(masks, 0)
    assert not torch.equal(result["a"], result["b"])
    others = [shuffled(masks, 1)[0], shuffled(masks, 0, attempt=1)[0]]
    assert len({digest(one) for one in [result, *others]}) == 3
    assert digest(shuffled(masks, 0, attempt=0)[0]) == digest(result)


def test_every_other_arrangement_is_equally_likely() -> None:
    masks = {"w": torch.tensor([True, True, False, False])}
    draws = 900
    seen = Counter(tuple(shuffled(masks, seed)[0]["w"].tolist()) for seed in range(draws))
    assert len(seen) == 5 and (True, True, False, False) not in seen
    chi_square = sum((count - draws / 5) ** 2 / (draws / 5) for count in seen.values())
    assert chi_square < 23.5  # the 99.99 % point of chi-square with 4 degrees of freedom


@moderate
@given(
    shapes=strategies.shapes(max_side=9),
    ladder=st.lists(strategies.densities(), min_size=1, max_size=4),
    seed=strategies.seeds(),
    rule=st.sampled_from(RULES),
)
def test_random_masks_have_their_counts(
    shapes: dict[str, tuple[int, ...]], ladder: list[float], seed: int, rule: Rule
) -> None:
    drawn = random_masks(shapes, ladder, seed, rule)
    assert len(drawn) == len(ladder)
    for density, masks in zip(ladder, drawn, strict=True):
        assert {name: tuple(mask.shape) for name, mask in masks.items()} == shapes
        assert list(masks) == list(shapes)
        assert counts(masks) == layer_counts(shapes, density, rule)
        assert kept(masks) == target_count(density, sum(map(math.prod, shapes.values())))
    for a, b in itertools.permutations(drawn, 2):
        fewer, more = counts(a), counts(b)
        if all(fewer[name] <= more[name] for name in shapes):
            assert nested(a, b)
    turned = random_masks(dict(reversed(shapes.items())), ladder, seed, rule)
    assert [digest(masks) for masks in turned] == [digest(masks) for masks in drawn]


def test_random_ladders_are_nested_and_apart() -> None:
    drawn = {rule: random_masks(LENET, LADDER, 0, rule) for rule in RULES}
    for rungs in drawn.values():
        assert all(nested(inner, outer) for outer, inner in itertools.pairwise(rungs))
    digests = [digest(rungs[0]) for rungs in drawn.values()]
    digests.append(digest(random_masks(LENET, LADDER[:1], 0, "uniform", attempt=1)[0]))
    digests.append(digest(random_masks(LENET, LADDER[:1], 1, "uniform")[0]))
    assert len(set(digests)) == 4


def test_tensors_of_one_shape_get_masks_of_their_own() -> None:
    masks = random_masks({"a": (200,), "b": (200,)}, [0.5], 0, "uniform")[0]
    assert not torch.equal(masks["a"], masks["b"])


def test_a_rung_does_not_depend_on_the_others() -> None:
    alone = random_masks(LENET, [0.1], 0, "erk")[0]
    assert digest(random_masks(LENET, [0.5, 0.1], 0, "erk")[1]) == digest(alone)


def test_random_masks_prefer_no_place() -> None:
    shape = {"w": (10, 10)}
    drawn = [random_masks(shape, [0.2], seed, "uniform")[0]["w"] for seed in range(400)]
    times = torch.stack(drawn).double().sum(0)
    chi_square = float(((times - 80) ** 2 / 64).sum())  # expected 80, variance 400 x .2 x .8
    assert abs(chi_square - 100) < 5 * math.sqrt(200)


def norm(values: Tensor, mask: Tensor) -> float:
    return float(torch.linalg.vector_norm(values.double()[mask]))


@moderate
@given(seed=strategies.seeds(), masks=strategies.masks())
def test_rescaled_weights_have_the_tickets_norm(seed: int, masks: dict[str, Tensor]) -> None:
    draws = np.random.default_rng(seed)
    shapes = {name: tuple(mask.shape) for name, mask in masks.items()}
    fresh = {
        n: torch.from_numpy(draws.normal(size=s)).reshape(s).float() for n, s in shapes.items()
    }
    like = {n: torch.from_numpy(draws.normal(size=s)).reshape(s).float() for n, s in shapes.items()}
    fresh["bias"] = like["bias"] = torch.ones(3)
    result = rescaled(fresh, like, masks, list(masks))
    assert list(result) == list(fresh)
    assert torch.equal(result["bias"], fresh["bias"])
    for name, mask in masks.items():
        assert result[name].dtype == torch.float32 and result[name].shape == mask.shape
        if bool(mask.any()):
            assert norm(result[name], mask) == pytest.approx(norm(like[name], mask), rel=1e-6)
            factor = norm(like[name], mask) / norm(fresh[name], mask)
            expected = (fresh[name].double() * factor).float()
            assert torch.allclose(result[name], expected, rtol=1e-6, atol=0)
        else:
            assert torch.equal(result[name], fresh[name])


def test_weights_without_a_norm_are_not_rescaled() -> None:
    mask = {"w": torch.tensor([True, True, False])}
    zero, some = {"w": torch.tensor([0.0, 0.0, 5.0])}, {"w": torch.tensor([3.0, 4.0, 9.0])}
    assert rescaled(zero, some, mask, ["w"])["w"].tolist() == [0, 0, 5]
    assert rescaled(some, zero, mask, ["w"])["w"].tolist() == [0, 0, 0]
    assert rescaled(some, some, mask, ["w"])["w"].tolist() == [3, 4, 9]
    assert rescaled(some, zero, mask, [])["w"].tolist() == [3, 4, 9]
    assert some["w"].tolist() == [3, 4, 9]


def test_large_and_small_norms_do_not_leave_float32() -> None:
    mask = {"w": torch.ones(2) > 0}
    tiny, huge = {"w": torch.tensor([1e-30, 1e-30])}, {"w": torch.tensor([1e30, 1e30])}
    assert rescaled(tiny, huge, mask, ["w"])["w"].tolist() == pytest.approx([1e30, 1e30])
    assert rescaled(huge, tiny, mask, ["w"])["w"].tolist() == pytest.approx([1e-30, 1e-30])


@moderate
@given(seed=strategies.seeds(), masks=strategies.masks())
def test_fresh_signs_keep_magnitudes(seed: int, masks: dict[str, Tensor]) -> None:
    draws = np.random.default_rng(seed)
    start = {
        name: torch.from_numpy(np.asarray(draws.normal(size=tuple(mask.shape)))).float()
        for name, mask in masks.items()
    }
    start["bias"] = -torch.ones(3)
    given_start = {name: values.clone() for name, values in start.items()}
    result = fresh_signs(start, masks, list(masks), seed)
    assert list(result) == list(start)
    assert torch.equal(result["bias"], start["bias"])
    everything = {name: torch.ones_like(mask) for name, mask in masks.items()}
    full = fresh_signs(start, everything, list(masks), seed)
    for name, mask in masks.items():
        assert result[name].dtype == torch.float32
        assert torch.equal(result[name].abs(), start[name].abs())
        assert torch.equal(result[name][~mask], start[name][~mask])
        assert torch.equal(result[name][mask], full[name][mask])
        assert torch.equal(start[name], given_start[name])


def test_fresh_magnitudes_keep_the_signs_of_what_is_kept() -> None:
    start = {"w": torch.tensor([-2.0, 3.0, 0.0, -0.5, 1.0]), "b": torch.tensor([5.0])}
    fresh = {"w": torch.tensor([0.1, -0.2, -0.3, 0.4, -0.5]), "b": torch.tensor([6.0])}
    masks = {"w": torch.tensor([True, True, True, True, False])}
    result = fresh_magnitudes(start, fresh, masks, ["w"])
    assert result["w"].tolist() == pytest.approx([-0.1, 0.2, 0.3, -0.4, -0.5])
    assert result["b"].tolist() == [6.0]  # what is not pruned is the fresh draw's
    other = {**start, "w": torch.tensor([-2.0, 3.0, 0.0, -0.5, -1.0])}
    assert torch.equal(fresh_magnitudes(other, fresh, masks, ["w"])["w"], result["w"])
    with pytest.raises(TicketError, match="w has shape"):
        fresh_magnitudes({"w": torch.zeros(3)}, fresh, masks, ["w"])


def test_fresh_signs_are_fair_and_forget_the_old_ones() -> None:
    start = {"w": torch.linspace(-2, 2, 20_000)}
    masks = {"w": torch.ones(20_000) > 0}
    signs = torch.sign(fresh_signs(start, masks, ["w"], 0)["w"])
    old = torch.sign(start["w"])
    limit = 5 / math.sqrt(20_000)
    assert abs(float(signs.mean())) < limit
    assert abs(float((signs * old).mean())) < limit
    for other in (
        fresh_signs(start, masks, ["w"], 1),
        fresh_signs(start, masks, ["w"], 0, attempt=1),
    ):
        assert abs(float((signs * torch.sign(other["w"])).mean())) < limit
    again = fresh_signs(start, masks, ["w"], 0, attempt=0)
    assert torch.equal(torch.sign(again["w"]), signs)
    turned = fresh_signs({"w": -start["w"]}, masks, ["w"], 0)
    assert torch.equal(turned["w"], again["w"])


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({}, "w is prunable but has no tensor"),
        ({"w": torch.ones(3) > 0}, r"w has shape \[3\], the start weights have \[2\]"),
    ],
)
def test_missing_and_misshapen_tensors_are_named(masks: dict[str, Tensor], message: str) -> None:
    start = {"w": torch.ones(2)}
    with pytest.raises(TicketError, match=message):
        rescaled(start, start, masks, ["w"])
    with pytest.raises(TicketError, match=message):
        fresh_signs(start, masks, ["w"], 0)


def test_prunable_tensors_must_be_among_the_weights() -> None:
    masks = {"w": torch.ones(2) > 0}
    with pytest.raises(TicketError, match="w is prunable but not among the start weights"):
        fresh_signs({}, masks, ["w"], 0)
    with pytest.raises(TicketError, match="w is prunable but has no tensor to go"):
        rescaled({"w": torch.ones(2)}, {}, masks, ["w"])
