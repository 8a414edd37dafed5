"""The stacked engine: what `plain` computes, for many jobs at once, none of which sees another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lthbench.networks import families, mlp
from lthbench.networks.state import State, same
from lthbench.protocol.task import Recipe
from lthbench.training.engines import plain, stacked, stacked_network, stacked_optimisers
from lthbench.training.engines.stacked import Group, stackable
from lthbench.training.engines.stacked_network import Stack, Way
from lthbench.training.executors import local
from lthbench.training.job import Evaluation, Examples, Job, Result
from tests import tiny

WAYS: tuple[Way, ...] = ("vmap", "unrolled")
Results = dict[str, Result]


def examples(family: str) -> dict[int, Examples]:
    return {seed: tiny.examples(family, 40, seed) for seed in (0, 1, 2)}


def evaluation(family: str) -> Evaluation:
    """Sets of which one differs in shape between seeds and one has the training's content."""
    sets = {
        seed: {"own": tiny.examples(family, 30 + seed % 2, 7 + seed), "train": data}
        for seed, data in examples(family).items()
    }
    return Evaluation(sets, (10, 25, 45, 50), ("train",))


def recipe(family: str, optimiser: str, **changes: Any) -> Recipe:
    augment = "crop-flip" if family in tiny.IMAGES else "none"
    table = {"steps": 60, "label_smoothing": 0.1, "augment": augment}
    return tiny.recipe(optimiser, **{**table, **changes})


def holes(family: str, seed: int = 0) -> dict[str, Tensor]:
    """Random masks with an empty row, an empty column and a tensor that is empty as a whole."""
    of = tiny.network(family)
    masks = tiny.masks(of, of.depth, 0.6, seed)
    first, _, third, *_ = masks.values()
    first[:, 1] = False
    third[:] = False
    return masks


def later(family: str, step: int, seed: int = 0) -> State:
    """Initial weights that are said to be of a later step."""
    of = tiny.network(family)
    return State(families.initial(of, of.depth, seed).tensors(), step)


def stacked_run(
    jobs: Sequence[Job], family: str, way: Way, counted: bool = False, **options: Any
) -> Results:
    seen = evaluation(family) if counted else None
    return dict(stacked.run(jobs, examples(family), seen, way=way, **options))


def assert_alike(ours: State | None, theirs: State | None) -> None:
    """Equal to 1e-9 of each tensor's largest value."""
    assert ours is not None and theirs is not None
    assert (list(ours), ours.step) == (list(theirs), theirs.step)
    for name, tensor in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (tensor.dtype, tensor.shape)
        assert ours[name].is_contiguous()
        within = 1e-9 * float(tensor.abs().max())
        assert torch.allclose(ours[name], tensor, rtol=1e-9, atol=within), name


def assert_same(ours: Result, theirs: Result) -> None:
    """Status, counts, predictions, learning distance, and every bit of the state."""
    assert ours.distance == theirs.distance
    assert ours.status == theirs.status
    assert_counted_alike(ours, theirs)
    assert (ours.state and ours.state.digest) == (theirs.state and theirs.state.digest)


def assert_counted_alike(ours: Result, theirs: Result) -> None:
    assert {name: counts.tolist() for name, counts in ours.correct.items()} == {
        name: counts.tolist() for name, counts in theirs.correct.items()
    }
    assert list(ours.predictions) == list(theirs.predictions)
    for name, answers in theirs.predictions.items():
        assert same(ours.predictions[name], answers)


# --- the plain engine's results ------------------------------------------------------------


def fifty_steps(family: str, optimiser: str) -> list[Job]:
    """A masked job, and a dense one that starts later and ends earlier."""
    of = recipe(family, optimiser, precision="float64")
    other = of.model_copy(update={"rate": of.rate / 2, "schedule": "constant"})
    return [
        tiny.job(family, "masked", masks=holes(family), recipe=of, until=50),
        tiny.job(family, "dense", seed=1, start=later(family, 7, 1), recipe=other, until=47),
    ]


@cache
def plainly(family: str, optimiser: str) -> Results:
    jobs = fifty_steps(family, optimiser)
    return dict(plain.run(jobs, examples(family), evaluation(family)))


# All of them take a minute: of the networks on images only those of the tasks are always run.
USUAL = {"conv": "adam", "resnet": "sgd-momentum", "vit": "adamw"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("family", "optimiser"),
    [
        pytest.param(f, o, marks=() if USUAL.get(f, o) == o else pytest.mark.slow)
        for f in tiny.FAMILIES
        for o in tiny.OPTIMISERS
    ],
)
def test_fifty_steps_are_the_plain_engines(family: str, optimiser: str, way: Way) -> None:
    jobs = fifty_steps(family, optimiser)
    ours = stacked_run(jobs, family, way, counted=True)
    theirs = plainly(family, optimiser)
    assert set(ours) == set(theirs) == {"masked", "dense"}
    for key, result in theirs.items():
        assert_alike(ours[key].state, result.state)
        assert_counted_alike(ours[key], result)
    lengths = {part: len(counts) for part, counts in theirs["dense"].correct.items()}
    assert lengths == {"own": 3, "train": 1}
    state = ours["masked"].state
    assert state is not None
    for name, mask in holes(family).items():
        assert bool((state[name][~mask] == 0).all())


@pytest.mark.parametrize("optimiser", list(tiny.OPTIMISERS))
def test_an_update_is_torchs_own(optimiser: str) -> None:
    """Weights and all that the optimiser keeps, each job at its own rate and own masks."""
    of = tiny.recipe(optimiser, precision="float64")
    draw = np.random.default_rng(0)
    start = torch.from_numpy(draw.standard_normal((2, 12)))
    decay = torch.zeros(12, dtype=torch.float64)
    decay[:8] = of.weight_decay
    kept = torch.from_numpy(draw.random((2, 12)) < 0.7)
    weights = start * kept
    remembered = stacked_optimisers.moments(of, weights)
    theirs = [_Theirs(of, row) for row in weights]
    for step in range(1, 51):
        gradients = torch.from_numpy(draw.standard_normal((2, 12)))
        steps = [step, step + 20]  # the second job began at step 20
        table = [stacked_optimisers.figures(of, s, step) for s in steps]
        now = torch.tensor(table, dtype=torch.float64).mT
        for j, one in enumerate(theirs):
            one.step(gradients[j], plain.rate(of, steps[j]), kept[j])
        stacked_optimisers.update(of, weights, gradients * kept, remembered, decay, now)
        for j, one in enumerate(theirs):
            found = [weights[j], *(tensor[j] for tensor in remembered)]
            for ours, expected in zip(found, one.tensors(), strict=True):
                torch.testing.assert_close(ours, expected, rtol=1e-9, atol=1e-14)


class _Theirs:
    """One job by torch.optim, the first eight of its twelve weights decayed, masked as plain is."""

    def __init__(self, of: Recipe, row: Tensor) -> None:
        self.parts = [row[:8].clone().requires_grad_(), row[8:].clone().requires_grad_()]
        decays = of.weight_decay, 0.0
        groups = [
            {"params": [part], "weight_decay": decay}
            for part, decay in zip(self.parts, decays, strict=True)
        ]
        self.optimiser = plain.optimiser_of(groups, of)

    def step(self, gradients: Tensor, rate: float, kept: Tensor) -> None:
        for part, own in zip(self.parts, (gradients[:8], gradients[8:]), strict=True):
            part.grad = own.clone()
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        with torch.no_grad():
            for tensor, mask in zip(self.parts, (kept[:8], kept[8:]), strict=True):
                tensor.mul_(mask)
                for state in self._moments(tensor):
                    state.mul_(mask)

    def _moments(self, part: Tensor) -> list[Tensor]:
        state = self.optimiser.state[part]
        names = ("momentum_buffer", "exp_avg", "exp_avg_sq")
        return [state[name] for name in names if state.get(name) is not None]

    def tensors(self) -> list[Tensor]:
        """Weights, then what the optimiser keeps."""
        first, second = ([part.detach(), *self._moments(part)] for part in self.parts)
        return [torch.cat(pair) for pair in zip(first, second, strict=True)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("family", "batches"), [("resnet", 3), ("resnet", 0), ("mlp", 3)])
def test_a_job_that_only_evaluates_settles_its_own_norms(
    family: str, batches: int, way: Way
) -> None:
    of = recipe(family, "adam", precision="float64")
    jobs = [
        replace(
            tiny.job(family, f"{seed}", seed=seed, masks=holes(family, seed), recipe=of, until=0),
            norm_batches=batches,
        )
        for seed in (0, 1)
    ]
    ours = stacked_run(jobs, family, way, counted=True)
    for key, result in plain.run(jobs, examples(family), evaluation(family)):
        assert_alike(ours[key].state, result.state)
        assert_counted_alike(ours[key], result)
        assert [len(counts) for counts in result.correct.values()] == [1, 1]


@pytest.mark.parametrize("family", ["pair-mlp", "transformer"])
def test_full_batches_with_left_out_examples_are_the_plain_engines(family: str) -> None:
    of = recipe(family, "adamw", batch=0, leave_out=0.25, precision="float64")
    jobs = [tiny.job(family, f"{s}", seed=s, recipe=of, until=55) for s in (0, 1, 2)]
    ours = stacked_run(jobs, family, "vmap")
    for key, result in plain.run(jobs, examples(family)):
        assert_alike(ours[key].state, result.state)


# --- no job sees another -------------------------------------------------------------------


def three(family: str, kind: str) -> list[Job]:
    """A job that stays as it is, between two that are of this kind."""
    of = recipe(family, "adamw")
    wild = of.model_copy(update={"rate": 1e30})
    middle = tiny.job(family, "own", masks=holes(family), recipe=of, until=10)
    if kind == "calm":
        sides = [tiny.job(family, f"{s}", seed=s, recipe=of, until=10) for s in (1, 2)]
    elif kind == "other":
        sides = [
            tiny.job(family, "1", seed=0, order=("other",), recipe=of, until=4),
            tiny.job(family, "2", start=later(family, 30, 5), recipe=of, until=42),
        ]
    else:
        sides = [
            tiny.job(family, f"{s}", seed=s, masks=holes(family, s), recipe=wild, until=10)
            for s in (1, 2)
        ]
    return [sides[0], middle, sides[1]]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_neighbours_change_no_bit(family: str, way: Way) -> None:
    """Whatever they are, wherever they stand, and if they diverge."""
    calm = three(family, "calm")
    expected = stacked_run(calm, family, way, counted=True)["own"]
    assert expected.status == "ok"
    for jobs in (calm[::-1], [calm[1], *calm[::2]], three(family, "other"), three(family, "wild")):
        found = stacked_run(jobs, family, way, counted=True)
        assert_same(found["own"], expected)
    assert [found[key].status for key in "12"] == ["diverged", "diverged"]


def some_jobs() -> list[Job]:
    """Jobs of one group that differ in all that they may differ in."""
    of = recipe("mlp", "adam-decay")
    return [
        tiny.job(key="dense", recipe=of, until=20),
        tiny.job(key="masked", masks=holes("mlp"), recipe=of, until=20),
        tiny.job(key="seed", seed=1, recipe=of, until=33),
        tiny.job(key="order", order=("data", "dense", "1"), recipe=of, until=5),
        tiny.job(key="wild", recipe=of.model_copy(update={"rate": 1e30}), until=55),
        tiny.job(key="late", seed=2, start=later("mlp", 31), recipe=of, until=58),
    ]


@cache
def in_this_order(way: Way) -> Results:
    return stacked_run(some_jobs(), "mlp", way, counted=True)


@settings(max_examples=6)
@given(order=st.permutations(range(6)), way=st.sampled_from(WAYS))
def test_the_order_of_jobs_changes_no_bit(order: list[int], way: Way) -> None:
    jobs = some_jobs()
    assert len({stackable(job, examples("mlp")[job.seed]) for job in jobs}) == 1
    found = stacked_run([jobs[i] for i in order], "mlp", way, counted=True)
    expected = in_this_order(way)
    assert set(found) == set(expected)
    for key, result in found.items():
        assert_same(result, expected[key])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("family", "optimiser"), [("resnet", "sgd-momentum"), ("resnet", "adam"), ("mlp", "adamw")]
)
def test_a_job_that_has_ended_stays_as_it_is(family: str, optimiser: str, way: Way) -> None:
    """Weights, optimiser state and running statistics, even if a look at them finds a NaN."""
    of = recipe(family, optimiser, steps=100)
    jobs = [tiny.job(family, recipe=of, until=4), tiny.job(family, seed=1, recipe=of, until=9)]
    group = Group(jobs, examples(family), way)
    group.load(group.feed.ahead(), 0)
    for step in range(9):
        group.advance(step)
        now = [tensor.clone() for tensor in group.changing()]
        if step == 3:
            then = now
    assert all(same(a[0], b[0]) for a, b in zip(now, then, strict=True))
    assert not any(same(a[1], b[1]) for a, b in zip(now, then, strict=True))
    # What a finished job would compute is not finite here; it must not be let in.
    group.figures[8:, :3, 0] = torch.nan
    group.counter.fill_(8)
    group.step(ending=True)
    assert all(same(a[0], b[0]) for a, b in zip(group.changing(), then, strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_a_diverged_run_is_counted_as_far_as_the_plain_one(way: Way) -> None:
    of = recipe("mlp", "sgd", steps=200, rate=1e30)
    jobs = [
        tiny.job(key="0", recipe=of, until=200),
        tiny.job(key="30", start=later("mlp", 30), recipe=of, until=200),
        tiny.job(key="ok", recipe=of.model_copy(update={"rate": 0.1}), until=120),
    ]
    ours = stacked_run(jobs, "mlp", way, counted=True)
    for key, result in plain.run(jobs, examples("mlp"), evaluation("mlp")):
        assert ours[key].status == result.status == ("ok" if key == "ok" else "diverged")
        assert ours[key].reason == result.reason
        assert (ours[key].state is None) == (result.state is None)
        assert_counted_alike(ours[key], result)


def test_one_infinite_weight_is_enough() -> None:
    start = families.initial(tiny.network(), 2, 0).tensors()
    start["head.bias"][0] = -torch.inf
    jobs = [tiny.job(key="lost", start=State(start, 0), until=3), tiny.job(key="ok", until=3)]
    found = stacked_run(jobs, "mlp", "vmap")
    assert [found[key].status for key in ("lost", "ok")] == ["diverged", "ok"]


# --- which jobs go together ----------------------------------------------------------------


def test_jobs_may_differ_in_all_but_shapes_and_arithmetic() -> None:
    data, job = tiny.examples(), tiny.job()
    of = job.recipe

    def key(job: Job, data: Examples = data) -> object:
        return stackable(job, data)

    def with_recipe(**changes: Any) -> Job:
        return replace(job, recipe=Recipe.model_validate({**of.model_dump(), **changes}))

    alike = [
        tiny.job(seed=3, masks=holes("mlp"), order=("other",), until=7),
        tiny.job(start=later("mlp", 5)),
        with_recipe(rate=0.5, steps=80, schedule="drops", drops=(5,), warm_up=2),
    ]
    assert {key(other) for other in alike} == {key(job)}
    unlike = [
        with_recipe(optimiser="sgd"),
        with_recipe(batch=5),
        with_recipe(weight_decay=0.1),
        with_recipe(precision="float64"),
        with_recipe(label_smoothing=0.1),
        replace(job, depth=3),
        replace(job, network=tiny.network(width=4)),
        replace(job, until=0),
        replace(job, until=0, norm_batches=3),
    ]
    keys = [key(job), *(key(other) for other in unlike)]
    keys += [key(job, tiny.examples(count=40)), key(job, replace(data, scale=1.0))]
    assert len(set(keys)) == len(keys)
    assert stackable(job, tiny.examples(seed=1)) == key(job)


def test_groups_are_cut_evenly_with_the_longest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = watched(monkeypatch)
    jobs = [tiny.job(key=f"{until}", until=until) for until in (3, 9, 1, 4, 7)]
    found = list(stacked.run(jobs, {0: tiny.examples()}, most=4))
    assert sizes == [3, 2]
    assert [key for key, _ in found] == ["9", "7", "4", "3", "1"]
    shares = [result.seconds for _, result in found]
    assert all(share > 0 for share in shares)


def test_each_result_comes_as_its_job_ends() -> None:
    jobs = [tiny.job(key="short", until=20), tiny.job(key="long", until=100)]
    results = stacked.run(jobs, {0: tiny.examples()})
    assert next(results)[0] == "short"
    assert next(results)[0] == "long"


def test_several_networks_are_trained_by_one_call() -> None:
    of = recipe("mlp", "adam", precision="float64")
    jobs = [
        tiny.job(key="mlp", recipe=of, until=10),
        replace(tiny.job(key="wide", recipe=of, until=10), network=(wide := tiny.network(width=9))),
    ]
    jobs[1] = replace(jobs[1], start=families.initial(wide, 2, 0))
    found = stacked_run(jobs, "mlp", "vmap")
    for key, result in plain.run(jobs, examples("mlp")):
        assert_alike(found[key].state, result.state)


def watched(
    monkeypatch: pytest.MonkeyPatch, fits: Callable[[Sequence[Job]], bool] = lambda _: True
) -> list[int]:
    """The sizes of groups, whose first step runs out of memory if they do not fit."""
    sizes: list[int] = []
    make, step = Group.__init__, Group.step

    def made(self: Group, jobs: Sequence[Job], data: Mapping[int, Examples], way: Way) -> None:
        sizes.append(len(jobs))
        make(self, jobs, data, way)

    def stepped(self: Group, ending: bool) -> None:
        if not fits(self.jobs):
            raise torch.OutOfMemoryError("CUDA out of memory")
        step(self, ending)

    monkeypatch.setattr(Group, "__init__", made)
    monkeypatch.setattr(Group, "step", stepped)
    return sizes


def test_a_group_that_does_not_fit_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = watched(monkeypatch, lambda jobs: len(jobs) <= 2)
    of = recipe("mlp", "adam", precision="float64")
    jobs = [tiny.job(key=f"{s}", seed=s % 3, recipe=of, until=10 + s) for s in range(6)]
    ours = stacked_run(jobs, "mlp", "vmap")
    assert sizes == [6, 3, 2, 2, 2]
    for key, result in plain.run(jobs, examples("mlp")):
        assert_alike(ours[key].state, result.state)


def test_what_ended_before_memory_ran_out_is_not_trained_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    look, sizes = Group.look, watched(monkeypatch)

    def looked(self: Group, running: Sequence[int], first: int) -> dict[int, int]:
        if len(self.jobs) == 3 and first:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return look(self, running, first)

    monkeypatch.setattr(Group, "look", looked)
    jobs = [tiny.job(key=f"{until}", until=until) for until in (100, 60, 20)]
    keys = [key for key, _ in stacked.run(jobs, {0: tiny.examples()})]
    assert (keys, sizes) == (["20", "100", "60"], [3, 2])


def test_one_job_that_does_not_fit_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    watched(monkeypatch, lambda _: False)
    with pytest.raises(torch.OutOfMemoryError):
        list(stacked.run([tiny.job(), tiny.job()], {0: tiny.examples()}))


def test_networks_that_cannot_be_stacked_train_one_by_one_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By who hands the results on: a worker's own words are not heard."""
    forward = mlp.MLP.forward

    def looking(self: mlp.MLP, x: Tensor) -> Tensor:
        return forward(self, x) if x.sum().item() >= 0 or True else x

    monkeypatch.setattr(mlp.MLP, "forward", looking)
    jobs = [tiny.job(key=f"{s}", seed=s, recipe=recipe("mlp", "adam"), until=5) for s in (0, 1)]
    found = [stacked_run(jobs, "mlp", "vmap", counted=True) for _ in range(2)]
    local._say_once.cache_clear()
    for results in found:
        for result in results.values():
            local.tell(result)
    error = capsys.readouterr().err
    assert error.startswith("lthbench: family mlp cannot be stacked")
    assert error.count("\n") == 1 and error.endswith("train one by one\n")
    for key, result in plain.run(jobs, examples("mlp"), evaluation("mlp")):
        for ours in found:
            assert_same(ours[key], result)


# --- precision, and a GPU's part -----------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_whole_trainings_in_float32_agree_in_their_counts(way: Way) -> None:
    """Over 20 seeds the mean difference is below the noise floor, which is one example at least."""
    ours, theirs = counted(dict(stacked.run(*twenty_seeds(), way=way))), one_by_one()
    assert abs(float((ours - theirs).mean())) <= 1
    assert ours.mean() > HELD_OUT / tiny.CLASSES * 1.5
    assert len(set(ours.tolist())) > 5


HELD_OUT = 300


@cache
def twenty_seeds() -> tuple[list[Job], dict[int, Examples], Evaluation]:
    data = {seed: tiny.examples(count=100, seed=seed) for seed in range(20)}
    held_out = tiny.examples(count=HELD_OUT, seed=99)
    seen = Evaluation({seed: {"held_out": held_out} for seed in data}, (60,))
    of, network = tiny.recipe(steps=60), tiny.network()
    return (
        [
            tiny.job(key=f"{s}", seed=s, masks=tiny.masks(network, 2, 0.9, s), recipe=of)
            for s in data
        ],
        data,
        seen,
    )


@cache
def one_by_one() -> np.ndarray:
    return counted(dict(plain.run(*twenty_seeds())))


def counted(results: Results) -> np.ndarray:
    """Correct answers at the end, by seed."""
    return np.array([int(results[f"{s}"].correct["held_out"][-1]) for s in range(len(results))])


@pytest.mark.parametrize("family", tiny.IMAGES)
def test_vmap_rounds_where_autocast_does(family: str) -> None:
    """A GPU trains images in bfloat16; here autocast's rules for a CPU stand for them."""
    of = tiny.network(family)
    starts = [families.initial(of, of.depth, seed) for seed in (0, 1)]
    data = examples(family)
    x = torch.stack([data[seed].inputs(slice(0, 20)) for seed in (0, 1)])

    def outputs(way: Way, mixed: bool) -> Tensor:
        return Stack(of, of.depth, starts, torch.empty(0), way, mixed).outputs(x).float().detach()

    exact, rounded = outputs("vmap", False), outputs("vmap", True)
    autocast = outputs("unrolled", True)
    scale = exact.abs().mean()
    ours, theirs = (float((found - exact).abs().mean() / scale) for found in (rounded, autocast))
    assert 1e-4 < ours < 0.02
    assert theirs / 2 < ours < theirs * 2


@pytest.mark.parametrize("fails", [False, True])
def test_a_capture_leaves_all_as_it_was_and_may_fail(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With stand-ins for a GPU's streams and graphs: a graph that is replayed calls its step."""
    calls: list[float] = []
    value = torch.zeros(1)

    def step() -> None:
        value.add_(1)
        calls.append(float(value))

    class Stream:
        def __init__(self, *_: Any) -> None: ...

        def wait_stream(self, _: Any) -> None: ...

    class Graph:
        replay = staticmethod(step)

    @contextmanager
    def entered(*_: Any) -> Iterator[None]:
        yield

    @contextmanager
    def capturing(_: Any, stream: Any) -> Iterator[None]:
        yield
        value.sub_(1)  # a capture computes nothing
        if fails:
            raise RuntimeError("operation not permitted when stream is capturing\nmore")

    parts = {"Stream": Stream, "current_stream": Stream, "CUDAGraph": Graph, "graph": capturing}
    parts |= {"device": entered, "stream": entered, "synchronize": lambda _: None}
    for name, part in parts.items():
        monkeypatch.setattr(torch.cuda, name, part)
    ready, said = stacked_network.captured(step, [value])
    assert float(value) == 0
    ready()
    assert float(value) == 1
    assert bool(said) == fails
    assert ("operation not permitted when stream is capturing" in said) == fails
