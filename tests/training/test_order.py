"""Which rows each step sees: whole epochs, the same from every start, another for every name."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lthbench.training.batches import BLOCK, batches, steps_per_table
from tests import tiny
from tests.strategies import moderate

ORDER = ("data", "dense", "0")
SHARES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9])


def rows(
    examples: int,
    start: int,
    until: int,
    *,
    batch: int = 0,
    leave_out: float = 0.0,
    seed: int = 0,
    order: tuple[str, ...] = ORDER,
) -> list[list[int]]:
    recipe = tiny.recipe(batch=batch, leave_out=leave_out)
    found = list(batches(recipe, examples, seed, order, start, until))
    assert all(one.dtype == torch.int64 and one.ndim == 1 for one in found)
    return [one.tolist() for one in found]


@moderate
@given(examples=st.integers(1, 60), batch=st.integers(1, 60), epoch=st.integers(0, 5))
def test_an_epoch_is_a_permutation_cut_into_whole_batches(
    examples: int, batch: int, epoch: int
) -> None:
    batch = min(batch, examples)
    steps = examples // batch
    seen = rows(examples, epoch * steps, (epoch + 1) * steps, batch=batch)
    flat = list(itertools.chain(*seen))
    assert [len(one) for one in seen] == [batch] * steps
    assert len(set(flat)) == len(flat) == steps * batch
    assert set(flat) <= set(range(examples))


def test_epochs_differ() -> None:
    epochs = [tuple(itertools.chain(*rows(20, n * 4, n * 4 + 4, batch=5))) for n in range(10)]
    assert len(set(epochs)) == 10
    assert {tuple(sorted(epoch)) for epoch in epochs} == {tuple(range(20))}


@moderate
@given(
    examples=st.integers(1, 30),
    batch=st.integers(0, 30),
    share=SHARES,
    start=st.integers(0, 130),
    steps=st.integers(0, 70),
)
def test_every_start_gives_the_same_rows(
    examples: int, batch: int, share: float, start: int, steps: int
) -> None:
    kind = {"batch": batch} if batch else {"leave_out": share}
    whole = rows(examples, 0, start + steps, **kind)  # type: ignore[arg-type]
    assert rows(examples, start, start + steps, **kind) == whole[start:]  # type: ignore[arg-type]


@moderate
@given(examples=st.integers(1, 60), share=SHARES, start=st.integers(0, 120))
def test_a_step_without_batches_takes_all_but_the_share(
    examples: int, share: float, start: int
) -> None:
    size = examples - round(share * examples)
    (one,) = rows(examples, start, start + 1, leave_out=share)
    assert len(one) == size == tiny.recipe(batch=0, leave_out=share).batch_size(examples)
    assert one == sorted(set(one)) and set(one) <= set(range(examples))


def test_left_out_examples_are_drawn_anew_at_every_step() -> None:
    seen = rows(40, 0, 4 * BLOCK, leave_out=0.25)
    assert len({tuple(one) for one in seen}) == len(seen)
    counts = np.bincount(list(itertools.chain(*seen)), minlength=40) / len(seen)
    deviation = np.sqrt(0.25 * 0.75 / len(seen))
    assert np.abs(counts - 0.75).max() < 4 * deviation
    assert counts.mean() == pytest.approx(0.75)


def test_every_name_and_seed_has_an_order_of_its_own() -> None:
    names = [("data", "dense", "0"), ("data", "dense", "1"), ("score", "data"), ("data", "dense")]
    for kind in ({"batch": 10}, {"leave_out": 0.5}):
        found = [
            str(rows(30, 0, 3, seed=seed, order=order, **kind))  # type: ignore[arg-type]
            for seed in (0, 1, 1000)
            for order in names
        ]
        assert len(set(found)) == len(found)


def test_the_rate_and_the_length_of_a_recipe_change_no_order() -> None:
    recipes = [tiny.recipe(batch=7), tiny.recipe("sgd", batch=7, steps=200)]
    first, second = (list(batches(r, 30, 0, ORDER, 0, 9)) for r in recipes)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_batch_of_more_than_all_examples_is_all_of_them() -> None:
    assert [sorted(one) for one in rows(5, 0, 3, batch=8)] == [[0, 1, 2, 3, 4]] * 3
    assert steps_per_table(tiny.recipe(batch=8), 5) == 1
