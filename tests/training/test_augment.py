"""Crops and flips: tables made ahead, the same from every start; and how a recipe's rate runs."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lthbench.protocol.task import Recipe
from lthbench.training.augment import PAD, SHIFT, crop_and_flip, fed, shift, tables
from lthbench.training.batches import batches
from lthbench.training.engines import plain
from lthbench.training.job import Examples
from tests import tiny
from tests.strategies import moderate

ORDER = ("data", "dense", "0")


def moves(start: int, until: int, *, seed: int = 0, order: tuple[str, ...] = ORDER) -> list[str]:
    """Each step's table of 64 examples in batches of 10, as text."""
    recipe = tiny.recipe(augment="crop-flip")
    return [str(t.tolist()) for t in tables(recipe, 64, seed, order, start, until)]


@moderate
@given(start=st.integers(0, 40), steps=st.integers(0, 20))
def test_every_start_gives_the_same_moves(start: int, steps: int) -> None:
    assert moves(start, start + steps) == moves(0, start + steps)[start:]


def test_offsets_and_flips_are_even_draws() -> None:
    recipe = tiny.recipe(augment="crop-flip", batch=50)
    drawn = torch.cat(list(tables(recipe, 1000, 0, ORDER, 0, 200))).numpy()
    assert drawn.shape == (10_000, 3) and drawn.dtype == np.int64
    for column, values in ((0, 2 * PAD + 1), (1, 2 * PAD + 1), (2, 2)):
        counts = np.bincount(drawn[:, column], minlength=values)
        share = 1 / values
        assert len(counts) == values
        assert np.abs(counts / 10_000 - share).max() < 5 * math.sqrt(share * (1 - share) / 10_000)
    assert abs(np.corrcoef(drawn.T)[np.triu_indices(3, 1)]).max() < 0.05


def test_every_seed_order_and_step_has_moves_of_its_own() -> None:
    streams = itertools.product((0, 1, 1000), (ORDER, ("score", "data"), ("data", "dense", "1")))
    seen = [t for seed, order in streams for t in moves(0, 13, seed=seed, order=order)]
    assert len(set(seen)) == len(seen) == 9 * 13


def images(count: int = 6, side: int = 9) -> torch.Tensor:
    generator = np.random.default_rng(0)
    return torch.from_numpy(generator.integers(1, 256, (count, side, side, 3)).astype(np.uint8))


@moderate
@given(
    table=st.lists(
        st.tuples(*[st.integers(0, 2 * PAD)] * 2, st.integers(0, 1)), min_size=6, max_size=6
    )
)
def test_a_crop_is_a_window_of_the_padded_image(table: list[tuple[int, int, int]]) -> None:
    x = images()
    padded = np.pad(x.numpy(), ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)))
    moved = crop_and_flip(x, torch.tensor(table)).numpy()
    for image, own, (down, right, mirrored) in zip(moved, padded, table, strict=True):
        window = own[down : down + 9, right : right + 9]
        assert np.array_equal(image, window[:, ::-1] if mirrored else window)


def test_a_flip_undoes_itself_and_the_middle_stays() -> None:
    x = images()
    stay, flip = (torch.tensor([[PAD, PAD, mirrored]] * 6) for mirrored in (0, 1))
    assert torch.equal(crop_and_flip(x, stay), x)
    once = crop_and_flip(x, flip)
    assert not torch.equal(once, x) and torch.equal(crop_and_flip(once, flip), x)


def test_a_network_is_fed_its_rows_moved() -> None:
    data = tiny.examples("resnet", 30)
    recipe = tiny.recipe(augment="crop-flip")
    still = tiny.recipe()
    rows = list(batches(still, 30, 3, ORDER, 2, 9))
    plainly = list(fed(data, still, 3, ORDER, 2, 9))
    moved = list(fed(data, recipe, 3, ORDER, 2, 9))
    drawn = list(tables(recipe, 30, 3, ORDER, 2, 9))
    for chosen, (x, y), (other, same), table in zip(rows, plainly, moved, drawn, strict=True):
        assert torch.equal(y, same) and torch.equal(y, data.y[chosen].long())
        assert torch.equal(x, data.inputs(chosen))
        assert torch.equal(other, data.seen(crop_and_flip(data.x[chosen], table)))
        assert not torch.equal(x, other)


def test_a_network_sees_channels_first_each_with_its_scale() -> None:
    x = images(4)
    data = Examples(x, torch.zeros(4, dtype=torch.uint8), (0.5, 1.0, 2.0), (0.0, -1.0, 3.0))
    seen = data.inputs(slice(1, 3))
    assert seen.shape == (2, 3, 9, 9) and seen.is_contiguous()
    expected = x[1:3].numpy().transpose(0, 3, 1, 2) * np.array([0.5, 1, 2])[:, None, None]
    assert np.allclose(seen.numpy(), expected + np.array([0, -1, 3])[:, None, None])
    other = Examples(data.x, data.y, (0.5, 1.0, 2.5), data.shift)
    assert other.digest != data.digest


def rates(**changes: object) -> list[float]:
    recipe = tiny.recipe("sgd", **{"rate": 2.0, "steps": 100, **changes})
    return [plain.rate(recipe, step) for step in range(1, 101)]


def test_a_rate_drops_after_its_steps() -> None:
    found = rates(schedule="drops", drops=(50, 75))
    assert found == pytest.approx([2.0] * 50 + [0.2] * 25 + [0.02] * 25)


def test_a_warm_up_rises_to_the_rate_and_the_rest_falls() -> None:
    warm = [2.0 * step / 10 for step in range(1, 11)]
    assert rates(schedule="constant", warm_up=10) == pytest.approx(warm + [2.0] * 90)
    line = [2.0 * (1 - n / 90) for n in range(90)]
    assert rates(schedule="linear", warm_up=10) == pytest.approx(warm + line)
    cosine = [1 + math.cos(math.pi * n / 90) for n in range(90)]
    assert rates(schedule="cosine", warm_up=10) == pytest.approx(warm + cosine)


def test_a_linear_rate_without_warm_up_keeps_its_bits() -> None:
    """Frozen references were trained with exactly these."""
    assert rates(schedule="linear") == [2.0 * (1 - (step - 1) / 100) for step in range(1, 101)]


def test_smoothed_labels_spread_a_share_over_all_classes() -> None:
    logits = torch.tensor([[2.0, -1.0, 0.5]], dtype=torch.float64)
    target = torch.tensor([1])
    logs = logits.log_softmax(1)[0]
    expected = -(0.7 * logs[1] + 0.3 * logs.mean())
    assert torch.allclose(plain.loss_of(logits, target, 0.3), expected)
    assert torch.equal(plain.loss_of(logits, target), -logs[1])


@pytest.mark.parametrize("family", ["mlp", "transformer", "resnet"])
def test_on_a_cpu_nothing_is_rounded(family: str) -> None:
    assert (
        plain._mixed(tiny.network(family), torch.device("cpu"), torch.float32) is plain.nullcontext
    )


def test_on_a_gpu_images_alone_are_rounded() -> None:
    cuda = torch.device("cuda")
    mixed = [
        f
        for f in tiny.FAMILIES
        if plain._mixed(tiny.network(f), cuda, torch.float32) is not plain.nullcontext
    ]
    assert mixed == list(tiny.IMAGES)
    assert plain._mixed(tiny.network("resnet"), cuda, torch.float64) is plain.nullcontext


def test_a_small_network_learns_from_moved_images() -> None:
    data = tiny.examples("resnet", 64)
    recipe: Recipe = tiny.recipe("adam", rate=0.05, steps=150, augment="crop-flip")
    recipe = recipe.model_copy(update={"schedule": "cosine", "warm_up": 10})
    evaluation = plain.Evaluation({0: {"train": data}}, (150,))
    ((_, result),) = plain.run([tiny.job("resnet", recipe=recipe)], {0: data}, evaluation)
    assert result.status == "ok"
    assert int(result.correct["train"][-1]) > 64 / tiny.CLASSES * 1.6


def test_signals_are_shifted_in_a_circle_by_up_to_two_points() -> None:
    x = torch.arange(12, dtype=torch.int16).repeat(2 * SHIFT + 1, 1)
    table = torch.zeros(2 * SHIFT + 1, 3, dtype=torch.int64)
    table[:, 1] = torch.arange(2 * SHIFT + 1)
    expected = torch.stack([torch.roll(x[0], SHIFT - n) for n in range(2 * SHIFT + 1)])
    assert torch.equal(shift(x, table), expected)
    recipe = tiny.recipe(augment="shift", batch=50)
    drawn = torch.cat(list(tables(recipe, 1000, 0, ORDER, 0, 40)))
    assert set(drawn[:, 1].tolist()) == set(range(2 * SHIFT + 1))


def test_fed_signals_are_those_of_the_tables() -> None:
    x = torch.from_numpy(np.random.default_rng(0).integers(-99, 99, (30, 12)).astype(np.int16))
    data = Examples(x, torch.zeros(30, dtype=torch.uint8), scale=0.5)
    recipe = tiny.recipe(augment="shift")
    drawn = list(tables(recipe, 30, 3, ORDER, 2, 9))
    rows = list(batches(recipe, 30, 3, ORDER, 2, 9))
    for (inputs, _), table, chosen in zip(
        fed(data, recipe, 3, ORDER, 2, 9), drawn, rows, strict=True
    ):
        assert torch.equal(inputs, shift(x[chosen], table) * 0.5)
