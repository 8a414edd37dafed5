"""The plain engine: masks hold after every step, its arithmetic is the optimisers', bits repeat."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn

from lthbench.networks import families
from lthbench.networks.state import State, same
from lthbench.protocol.task import Recipe
from lthbench.training.batches import batches
from lthbench.training.engines import plain
from lthbench.training.job import Evaluation, Examples, Job, Result
from tests import tiny

Array = NDArray[np.float64]
Look = Callable[[nn.Module, torch.optim.Optimizer, Tensor], None]


def trained(job: Job, data: Examples, evaluation: Evaluation | None = None) -> Result:
    ((key, result),) = plain.run([job], {job.seed: data}, evaluation)
    assert key == job.key
    return result


def state_of(result: Result) -> State:
    assert result.state is not None, result.reason
    return result.state


def sets(data: Examples, *names: str, seed: int = 0) -> dict[int, dict[str, Examples]]:
    return {seed: {name: data for name in names or ("held_out",)}}


@pytest.fixture
def at_every_forward(monkeypatch: pytest.MonkeyPatch) -> Callable[[Look], None]:
    """Calls a function with the network, the optimiser and the inputs before each forward pass.

    It looks from outside at what the next step begins with, whatever the engine does in between.
    """

    def install(look: Look) -> None:
        networks_seen: list[nn.Module] = []
        optimisers: list[torch.optim.Optimizer] = []
        load, make = plain.families.load, plain._optimiser

        def loaded(*args: Any) -> nn.Module:
            module = load(*args)
            networks_seen.append(module)
            module.register_forward_pre_hook(lambda m, xs: look(m, optimisers[-1], xs[0]))
            return module

        def made(*args: Any) -> torch.optim.Optimizer:
            optimisers.append(make(*args))
            return optimisers[-1]

        monkeypatch.setattr(plain.families, "load", loaded)
        monkeypatch.setattr(plain, "_optimiser", made)

    return install


# --- masks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "optimiser"),
    [(f, o) for f in tiny.FAMILIES if f not in tiny.IMAGES for o in tiny.OPTIMISERS]
    + [("conv", "adam"), ("resnet", "sgd-momentum"), ("vit", "adamw")],
)
def test_pruned_weights_and_their_optimiser_state_are_zero_after_every_step(
    family: str, optimiser: str, at_every_forward: Callable[[Look], None]
) -> None:
    of = tiny.network(family)
    masks = tiny.masks(of, of.depth)
    masks[list(masks)[2]][:] = False
    seen = {"forward": 0, "state": 0, "alive": 0}

    def look(module: nn.Module, optimiser: torch.optim.Optimizer, _: Tensor) -> None:
        seen["forward"] += 1
        for name, parameter in module.named_parameters():
            if name not in masks:
                continue
            pruned = ~masks[name]
            assert bool((parameter[pruned] == 0).all()), name
            for kind, tensor in optimiser.state[parameter].items():
                if isinstance(tensor, Tensor) and tensor.shape == parameter.shape:
                    assert bool((tensor[pruned] == 0).all()), (name, kind)
                    seen["state"] += 1
                    seen["alive"] += bool(tensor[masks[name]].any())

    at_every_forward(look)
    data = tiny.examples(family, 40)
    # The last look is the evaluation's: it sees what the hundredth step left.
    evaluation = Evaluation(sets(data), (100,))
    job = tiny.job(family, masks=masks, recipe=tiny.recipe(optimiser, steps=100))
    state = state_of(trained(job, data, evaluation))
    assert seen["forward"] == 101
    tensors = {"sgd": 0, "sgd-momentum": 1}.get(optimiser, 2)
    assert seen["state"] == 100 * tensors * len(masks)
    assert seen["alive"] >= 50 * tensors
    for name, tensor in state.items():
        if name in masks:
            assert bool((tensor[~masks[name]] == 0).all())
            assert bool(tensor[masks[name]].any()) == bool(masks[name].any())


def test_masks_change_what_is_trained() -> None:
    of = tiny.network()
    data = tiny.examples()
    dense = state_of(trained(tiny.job(), data))
    masked = state_of(trained(tiny.job(masks=tiny.masks(of, 2)), data))
    assert not same(dense["head.weight"], masked["head.weight"])


def test_full_masks_are_no_masks() -> None:
    of = tiny.network()
    full = {name: mask | True for name, mask in tiny.masks(of, 2).items()}
    data = tiny.examples()
    states = [state_of(trained(tiny.job(masks=m), data)) for m in (full, None, {})]
    assert len({state.digest for state in states}) == 1


def test_a_job_leaves_its_start_and_masks_as_they_were() -> None:
    of = tiny.network()
    masks, start = tiny.masks(of, 2), families.initial(of, 2, 0)
    copies = {name: mask.clone() for name, mask in masks.items()}
    before = start.digest
    trained(tiny.job(masks=masks, start=start), tiny.examples())
    assert start.digest == before
    assert all(same(masks[name], copies[name]) for name in masks)


# --- against a loop of its own -------------------------------------------------------------


def reference(
    job: Job, data: Examples, rows: Iterator[Tensor]
) -> tuple[dict[str, Array], list[float]]:
    """Training in numpy: forward, backward and optimiser written out, masks after each step."""
    recipe, masks = job.recipe, {n: m.numpy() for n, m in (job.masks or {}).items()}
    weights = {n: t.double().numpy() * masks.get(n, 1) for n, t in job.start.items()}
    first = {name: np.zeros_like(w) for name, w in weights.items()}
    second = {name: np.zeros_like(w) for name, w in weights.items()}
    losses = []
    for step, chosen in enumerate(rows, start=1):
        x = data.x.numpy()[chosen.numpy()] * data.scale + data.shift
        loss, gradients = backward(weights, x, data.y.numpy()[chosen.numpy()])
        losses.append(loss)
        rate = recipe.rate * (1 - (step - 1) / recipe.steps)
        for name, g in gradients.items():
            decay = recipe.weight_decay if name.endswith(".weight") else 0.0
            w, m, v = weights[name], first[name], second[name]
            if recipe.optimiser == "adamw":
                w *= 1 - rate * decay
            else:
                g = g + decay * w
            if recipe.optimiser == "sgd":
                m[:] = recipe.momentum * m + g
                w -= rate * m
            else:
                b1, b2 = recipe.betas
                m[:] = b1 * m + (1 - b1) * g
                v[:] = b2 * v + (1 - b2) * g * g
                w -= rate * (m / (1 - b1**step)) / (np.sqrt(v / (1 - b2**step)) + 1e-8)
            for tensor in (w, m, v):
                tensor *= masks.get(name, 1)
    return weights, losses


def backward(
    weights: Mapping[str, Array], x: Array, y: NDArray[np.uint8]
) -> tuple[float, dict[str, Array]]:
    """Mean cross-entropy of a ReLU network, and its gradient in every weight and bias."""
    layers = [name.removesuffix(".weight") for name in weights if name.endswith(".weight")]
    inputs, h = [], x
    for i, layer in enumerate(layers):
        inputs.append(h)
        h = h @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
        h = np.maximum(h, 0) if i < len(layers) - 1 else h
    p = np.exp(h - h.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    loss = -np.log(p[np.arange(len(y)), y]).mean()
    delta = (p - np.eye(p.shape[1])[y]) / len(y)
    gradients = {}
    for layer, seen in zip(layers[::-1], inputs[::-1], strict=True):
        gradients[f"{layer}.weight"], gradients[f"{layer}.bias"] = delta.T @ seen, delta.sum(0)
        delta = delta @ weights[f"{layer}.weight"] * (seen > 0)
    return float(loss), gradients


@pytest.mark.parametrize("optimiser", list(tiny.OPTIMISERS))
def test_training_is_the_optimisers_own_arithmetic(optimiser: str) -> None:
    recipe = tiny.recipe(optimiser, steps=50, precision="float64")
    masks = tiny.masks(tiny.network(), 2)
    data = tiny.examples(count=37)
    job = tiny.job(recipe=recipe, masks=masks)
    ours = state_of(trained(job, data))
    theirs, losses = reference(job, data, batches(recipe, 37, 0, job.order, 0, 50))
    assert np.mean(losses[-10:]) < np.mean(losses[:10])
    for name, weights in theirs.items():
        assert ours[name].dtype == torch.float64
        np.testing.assert_allclose(ours[name].numpy(), weights, rtol=0, atol=1e-9)


@pytest.mark.parametrize("optimiser", ["sgd-momentum", "adamw"])
def test_float32_is_float64_rounded_underway(optimiser: str) -> None:
    data = tiny.examples()
    short, long = (
        state_of(trained(tiny.job(recipe=tiny.recipe(optimiser, precision=p)), data))
        for p in ("float32", "float64")
    )
    assert all(tensor.dtype == torch.float32 for tensor in short.values())
    for name, tensor in short.items():
        assert torch.allclose(tensor.double(), long[name], atol=1e-3)
    assert not torch.equal(short["head.weight"].double(), long["head.weight"])


# --- evaluation ----------------------------------------------------------------------------


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_an_evaluation_changes_no_bit(family: str) -> None:
    data, other = tiny.examples(family, 40), tiny.examples(family, 30, seed=1)
    of = tiny.network(family)
    job = tiny.job(family, masks=tiny.masks(of, of.depth))
    plainly = state_of(trained(job, data))
    seen = {"held_out": other, "again": data, "train": data}
    evaluation = Evaluation({0: seen}, tuple(range(1, 101)), ("train",))
    result = trained(job, data, evaluation)
    assert state_of(result).digest == plainly.digest
    assert {part: len(counts) for part, counts in result.correct.items()} == {
        "held_out": 100, "again": 100, "train": 1,
    }  # fmt: skip
    assert result.correct["train"].tolist() == result.correct["again"].tolist()[-1:]


def test_steps_train_and_evaluations_do_not(at_every_forward: Callable[[Look], None]) -> None:
    seen: list[bool] = []

    def look(module: nn.Module, _: torch.optim.Optimizer, __: Tensor) -> None:
        seen.append(module.training)

    at_every_forward(look)
    data = tiny.examples()
    trained(tiny.job(until=3), data, Evaluation(sets(data), (2, 3)))
    assert seen == [True, True, False, True, False]


def test_counts_are_those_of_a_naive_recount() -> None:
    data, other = tiny.examples(count=50), tiny.examples(count=33, seed=1)
    evaluation = Evaluation({0: {"train": data, "held_out": other}}, (20, 40, 60))
    for until in (20, 40, 60):
        job = tiny.job(recipe=tiny.recipe(steps=60), until=until)
        result = trained(job, data, evaluation)
        for name, examples in evaluation.sets[0].items():
            answers = answered(job, state_of(result), examples)
            assert result.predictions[name].dtype == torch.uint8
            assert result.predictions[name].tolist() == answers
            right = sum(a == int(y) for a, y in zip(answers, examples.y, strict=True))
            assert int(result.correct[name][-1]) == right
            assert len(result.correct[name]) == until // 20
    assert right > 33 / tiny.CLASSES * 1.5


@pytest.mark.parametrize("until", [0, 5, 20])
def test_a_set_is_counted_once_where_a_training_ends(until: int) -> None:
    """Whether or not others are counted there."""
    data = tiny.examples()
    sets = {"held_out": tiny.examples(seed=1), "train": data}
    result = trained(tiny.job(until=until), data, Evaluation({0: sets}, (10, 20), ("train",)))
    lengths = {part: len(counts) for part, counts in result.correct.items()}
    assert lengths == {"train": 1} | {0: {"held_out": 1}, 5: {}, 20: {"held_out": 2}}[until]
    assert int(result.correct["train"][0]) == sum(
        a == int(y)
        for a, y in zip(
            answered(tiny.job(until=until), state_of(result), data), data.y, strict=True
        )
    )


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_learning_distance_is_that_of_kept_prunable_weights(family: str, masked: bool) -> None:
    data, of = tiny.examples(family, 40), tiny.network(family)
    masks = tiny.masks(of, of.depth) if masked else None
    job = tiny.job(family, masks=masks, until=5)
    result = trained(job, data)
    end, squares = state_of(result), []
    for name in families.shapes(of, of.depth):
        moved = (end[name].double() - job.start[name].double()).flatten().tolist()
        kept = masks[name].flatten().tolist() if masks else [True] * len(moved)
        squares += [m * m for m, k in zip(moved, kept, strict=True) if k]
    assert result.distance == pytest.approx(math.sqrt(math.fsum(squares)), rel=1e-12)
    assert trained(tiny.job(family, masks=masks, until=0), data).distance == 0


def answered(job: Job, state: State, examples: Examples) -> list[int]:
    """The answers to one example after the other, in float64."""
    module = families.load(job.network, job.depth, state).double()
    x = examples.x.double() * examples.scale + examples.shift
    return [int(module(row[None]).argmax()) for row in x]


def test_examples_are_counted_alike_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny.examples(count=50)
    evaluation = Evaluation(sets(data), (100,))
    whole = trained(tiny.job(), data, evaluation)
    monkeypatch.setattr(plain, "EVALUATED_TOGETHER", 7)
    parts = trained(tiny.job(), data, evaluation)
    assert torch.equal(whole.predictions["held_out"], parts.predictions["held_out"])
    assert torch.equal(whole.correct["held_out"], parts.correct["held_out"])


def test_only_steps_past_the_start_are_counted() -> None:
    data = tiny.examples()
    start = state_of(trained(tiny.job(until=10), data))
    evaluation = Evaluation(sets(data), (5, 10, 15, 20, 25))
    result = trained(tiny.job(start=start, until=20), data, evaluation)
    assert len(result.correct["held_out"]) == 2


@pytest.mark.parametrize("step", [0, 40, 100])
def test_a_job_that_ends_where_it_starts_only_evaluates(step: int) -> None:
    data = tiny.examples()
    start = State(families.initial(tiny.network(), 2, 0).tensors(), step)
    masks = tiny.masks(tiny.network(), 2)
    result = trained(
        tiny.job(start=start, masks=masks, until=step), data, Evaluation(sets(data), ())
    )
    state = state_of(result)
    assert state.step == step
    for name, tensor in state.items():
        assert torch.equal(tensor, start[name] * masks.get(name, 1))
    assert result.correct["held_out"].shape == (1,)
    assert result.predictions["held_out"].tolist() == answered(tiny.job(), state, data)


def test_two_hundred_and_fifty_six_classes_fit_into_a_byte() -> None:
    of = tiny.network(classes=256)
    x = torch.arange(256, dtype=torch.uint8)[:, None].expand(256, tiny.FEATURES).contiguous()
    data = Examples(x, x[:, 0].contiguous())
    start = families.initial(of, 2, 0).tensors()
    start["head.weight"].zero_()
    start["head.bias"].zero_()[255] = 1
    job = replace(tiny.job(), network=of, start=State(start, 0), until=0)
    result = trained(job, data, Evaluation(sets(data), ()))
    assert set(result.predictions["held_out"].tolist()) == {255}
    assert result.correct["held_out"].tolist() == [1]


# --- which jobs go together ----------------------------------------------------------------


def mixed_jobs() -> list[Job]:
    """Jobs of several seeds, optimisers and masks, one of which diverges."""
    wild = tiny.recipe("sgd", rate=1e30)
    jobs = [
        tiny.job(key="dense", recipe=tiny.recipe(steps=20)),
        tiny.job(key="sgd", recipe=tiny.recipe("sgd-momentum", steps=20)),
        tiny.job(key="masked", masks=tiny.masks(tiny.network(), 2), until=20),
        tiny.job(key="seed", seed=1, until=20),
        tiny.job(key="order", order=("data", "dense", "1"), until=20),
        tiny.job(key="wild", recipe=wild, until=10),
        tiny.job(key="evaluated", until=0),
    ]
    return [replace(job, until=min(job.until, 10)) for job in jobs]


def digests(jobs: list[Job], evaluation: Evaluation | None = None) -> dict[str, tuple[Any, ...]]:
    data = {seed: tiny.examples(seed=seed) for seed in (0, 1)}
    return {
        key: (
            result.status,
            result.state and result.state.digest,
            {name: counts.tolist() for name, counts in result.correct.items()},
        )
        for key, result in plain.run(jobs, data, evaluation)
    }


@cache
def alone(index: int) -> tuple[Any, ...]:
    (result,) = digests([mixed_jobs()[index]]).values()
    return result


@settings(max_examples=15)
@given(order=st.permutations(range(7)), count=st.integers(1, 7))
def test_no_result_depends_on_its_neighbours(order: list[int], count: int) -> None:
    some = [mixed_jobs()[i] for i in order[:count]]
    together = digests(some)
    assert list(together) == [job.key for job in some]
    assert list(together.values()) == [alone(i) for i in order[:count]]


def test_seeds_orders_masks_and_recipes_all_matter() -> None:
    states = [alone(i)[1] for i in range(7)]
    assert states.count(None) == 1
    assert len(set(states)) == len(states)


def test_each_result_comes_as_its_job_ends() -> None:
    fed: list[str] = []

    def feed() -> Iterator[Job]:
        for key in "ab":
            fed.append(key)
            yield tiny.job(key=key, until=5)

    results = plain.run(feed(), {0: tiny.examples()})
    key, result = next(results)
    assert (key, fed) == ("a", ["a"])
    assert result.status == "ok" and result.seconds > 0


# --- the order of examples, and the schedule -----------------------------------------------


@pytest.mark.parametrize("batch", [10, 0])
def test_a_continued_run_sees_the_rows_of_an_uninterrupted_one(
    batch: int, at_every_forward: Callable[[Look], None]
) -> None:
    seen: list[Tensor] = []

    def look(_: nn.Module, __: torch.optim.Optimizer, x: Tensor) -> None:
        seen.append(x.clone())

    at_every_forward(look)
    recipe = tiny.recipe(batch=batch, leave_out=0.25 if batch == 0 else 0.0)
    data = tiny.examples(count=37)
    trained(tiny.job(recipe=recipe), data)
    whole, seen[:] = list(seen), []
    middle = state_of(trained(tiny.job(recipe=recipe, until=43), data))
    assert middle.step == 43
    trained(tiny.job(recipe=recipe, start=middle), data)
    assert len(seen) == len(whole) == 100
    assert all(torch.equal(a, b) for a, b in zip(seen, whole, strict=True))


def rates(recipe: Recipe, start: int, until: int, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The rates that an optimiser steps with, from its own groups."""
    found: list[float] = []
    make = plain._optimiser

    def made(*args: Any) -> torch.optim.Optimizer:
        optimiser = make(*args)

        def look(optimiser: torch.optim.Optimizer, *_: Any) -> None:
            (rate,) = {group["lr"] for group in optimiser.param_groups}
            found.append(rate)

        optimiser.register_step_pre_hook(look)
        return optimiser

    with monkeypatch.context() as patch:
        patch.setattr(plain, "_optimiser", made)
        begin = State(families.initial(tiny.network(), 2, 0).tensors(), start)
        trained(tiny.job(recipe=recipe, start=begin, until=until), tiny.examples())
    return found


def test_a_linear_rate_begins_full_and_ends_at_its_last_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = tiny.recipe(rate=0.02, steps=100)
    whole = rates(recipe, 0, 100, monkeypatch)
    assert whole == pytest.approx(np.linspace(0.02, 0.02 / 100, 100))
    assert whole[0] == 0.02 and whole[-1] == pytest.approx(0.02 / 100)
    assert rates(recipe, 60, 80, monkeypatch) == whole[60:80]


def test_a_constant_rate_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny.recipe(rate=0.02, schedule="constant", steps=30)
    assert rates(recipe, 5, 30, monkeypatch) == [0.02] * 25


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_compressed_recipe_runs_the_whole_schedule(
    factor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny.recipe(rate=0.02, steps=80)
    short = recipe.compressed(factor)
    assert short == recipe.model_copy(update={"steps": 80 // factor})
    found = rates(short, 0, short.steps, monkeypatch)
    assert found == pytest.approx(np.linspace(0.02, 0.02 / short.steps, 80 // factor))


# --- runs that go wrong --------------------------------------------------------------------


@pytest.mark.parametrize("optimiser", ["sgd", "sgd-momentum", "adam-decay", "adamw"])
@pytest.mark.parametrize("masked", [False, True])
def test_a_run_at_an_absurd_rate_diverges(optimiser: str, masked: bool) -> None:
    masks = tiny.masks(tiny.network(), 2) if masked else None
    recipe = tiny.recipe(optimiser, rate=1e30)
    result = trained(tiny.job(recipe=recipe, masks=masks), tiny.examples())
    assert (result.status, result.state) == ("diverged", None)
    assert "not finite" in result.reason


def test_a_diverged_run_ends_early(at_every_forward: Callable[[Look], None]) -> None:
    steps = itertools.count()

    def look(*_: Any) -> None:
        next(steps)

    at_every_forward(look)
    recipe = tiny.recipe("sgd", rate=1e30, steps=10_000)
    assert trained(tiny.job(recipe=recipe), tiny.examples()).state is None
    assert next(steps) == plain.CHECKED_EVERY


def test_one_infinite_weight_is_enough() -> None:
    start = families.initial(tiny.network(), 2, 0).tensors()
    start["head.bias"][0] = -torch.inf  # its class is never answered: every loss may be finite
    data = tiny.examples()
    there = Examples(data.x, torch.ones_like(data.y), data.scale, data.shift)
    job = tiny.job(start=State(start, 0), until=3)
    result = trained(job, there)
    assert (result.status, result.state) == ("diverged", None)
