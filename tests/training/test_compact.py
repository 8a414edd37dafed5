"""The compact engine is the plain one by another arithmetic: kept weights alone, written out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lthbench.io import messages
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.training.dispatch import RUN, Means, engine_for
from lthbench.training.engines import compact
from lthbench.training.executors import codec
from lthbench.training.job import Evaluation, Examples, Job, Result
from tests import tiny

SPARSE = {"sparse": True, "full": False}


@pytest.fixture(params=SPARSE)
def held(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Every masked layer as sparse rows, or none: a small network's own choice is none."""
    sparse: bool = SPARSE[request.param]
    monkeypatch.setattr(compact, "_thin", lambda mask: sparse)
    return sparse


def by(engine: str, job: Job, data: Examples, evaluation: Evaluation | None = None) -> Result:
    ((_, result),) = RUN[engine]([job], {job.seed: data}, evaluation)
    return result


def doubled(optimiser: str, family: str = "mlp") -> Job:
    """Fifty steps in float64 with an empty tensor, an empty row and an empty column."""
    of = tiny.network(family)
    masks = tiny.masks(of, of.depth, seed=3)
    full, thin, empty, *_ = masks.values()
    full[:, 2], thin[:, 1], empty[:] = False, False, False
    recipe = tiny.recipe(optimiser, steps=50, precision="float64")
    return tiny.job(family, masks=masks, recipe=recipe)


def assert_close(a: State | None, b: State | None, relative: float = 1e-9) -> None:
    assert a is not None and b is not None
    assert list(a) == list(b)
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=relative, atol=relative, msg=name)


# --- equality ------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["mlp", "pair-mlp"])
@pytest.mark.parametrize("optimiser", tiny.OPTIMISERS)
def test_fifty_steps_are_those_of_the_plain_engine(optimiser: str, family: str, held: bool) -> None:
    job, data = doubled(optimiser, family), tiny.examples(family, 40)
    assert_close(by("compact", job, data).state, by("plain", job, data).state)


def test_a_state_that_came_over_a_pipe_is_the_same_state(held: bool) -> None:
    job, data = doubled("adam"), tiny.examples()
    header, tensors = messages.loads(messages.dumps(*codec.pack_job(job)))
    sent = codec.unpack_job(messages.read(codec.JobHeader, header), tensors)
    assert list(sent.start) != list(job.start)
    ours, theirs = by("compact", sent, data).state, by("compact", job, data).state
    assert ours is not None and theirs is not None and ours.digest == theirs.digest


@settings(max_examples=15, deadline=None)
@given(
    density=st.floats(0, 1),
    seed=st.integers(0, 99),
    depth=st.integers(1, 3),
    neck=st.sampled_from((0, 4)),
    smoothing=st.sampled_from((0.0, 0.2)),
    step=st.integers(0, 40),
)
def test_any_masks_and_any_start(
    density: float, seed: int, depth: int, neck: int, smoothing: float, step: int
) -> None:
    prunable = ("hidden.*.weight", "head.weight") + (("neck.weight",) if neck else ())
    of = tiny.network(depth=depth, neck=neck, prunable=prunable)
    generator = torch.Generator().manual_seed(seed)
    masks = {
        name: torch.rand(shape, generator=generator) < density
        for name, shape in families.shapes(of, depth).items()
    }
    start = State(families.initial(of, depth, seed).tensors(), step)
    recipe = tiny.recipe("adam-decay", precision="float64", label_smoothing=smoothing)
    job = replace(tiny.job(recipe=recipe, masks=masks, start=start, until=50), network=of)
    job = replace(job, depth=depth)
    data = tiny.examples()
    expected = by("plain", job, data).state
    with pytest.MonkeyPatch.context() as patch:
        for sparse in SPARSE.values():
            patch.setattr(compact, "_thin", lambda mask, chosen=sparse: chosen)
            assert_close(by("compact", job, data).state, expected)


def test_dense_is_trained_too() -> None:
    job, data = replace(doubled("adam"), masks=None), tiny.examples()
    assert_close(by("compact", job, data).state, by("plain", job, data).state)


def test_a_thin_layer_is_sparse_and_a_small_one_is_not() -> None:
    mask = torch.zeros(300, 784, dtype=torch.bool)
    mask[:, :20] = True
    assert compact._thin(mask)
    assert not compact._thin(torch.ones_like(mask))
    assert not compact._thin(mask[:10, :100])


def test_a_unit_without_inputs_emits_its_bias() -> None:
    of = tiny.network()
    masks = tiny.masks(of, of.depth)
    assert not masks["hidden.1.weight"][1].any()
    job, data = tiny.job(masks=masks, until=0), tiny.examples(count=200)
    evaluation = Evaluation({0: {"held_out": data}}, ())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compact, "_thin", lambda mask: True)
        ours = by("compact", job, data, evaluation)
    theirs = by("plain", job, data, evaluation)
    assert torch.equal(ours.predictions["held_out"], theirs.predictions["held_out"])
    silenced = {n: t * 0 if n.endswith("bias") else t for n, t in job.start.items()}
    quiet = by("compact", replace(job, start=State(silenced, 0)), data, evaluation)
    assert not torch.equal(quiet.predictions["held_out"], theirs.predictions["held_out"])


# --- results -------------------------------------------------------------------------------


def test_counts_and_answers_are_those_of_the_plain_engine(held: bool) -> None:
    data, other = tiny.examples(), tiny.examples(count=200, seed=5)
    sets = {"held_out": other, "train": data}
    evaluation = Evaluation({0: sets}, (10, 20, 45, 50, 80), ("train",))
    job = doubled("adam")
    ours, theirs = by("compact", job, data, evaluation), by("plain", job, data, evaluation)
    for part in evaluation.sets[0]:
        assert ours.correct[part].tolist() == theirs.correct[part].tolist()
        assert torch.equal(ours.predictions[part], theirs.predictions[part])
    assert ours.correct["train"][-1] > len(data.y) / tiny.CLASSES
    assert by("compact", job, data).state is not None
    unseen = by("compact", job, data).state
    assert unseen is not None and ours.state is not None and unseen.digest == ours.state.digest


def test_pruned_weights_are_zero_at_the_end(held: bool) -> None:
    job = doubled("adamw")
    state = by("compact", job, tiny.examples()).state
    assert state is not None and job.masks is not None
    for name, mask in job.masks.items():
        assert bool((state[name][~mask] == 0).all())
        assert bool(state[name][mask].any()) == bool(mask.any())


def test_a_job_leaves_its_start_and_masks_as_they_were(held: bool) -> None:
    job = doubled("sgd-momentum")
    assert job.masks is not None
    before = job.start.digest, {name: mask.clone() for name, mask in job.masks.items()}
    by("compact", job, tiny.examples())
    assert job.start.digest == before[0]
    assert all(torch.equal(job.masks[name], mask) for name, mask in before[1].items())


def test_an_absurd_rate_diverges_as_it_does_in_the_plain_engine(held: bool) -> None:
    job = tiny.job(masks=doubled("sgd").masks, recipe=tiny.recipe("sgd", rate=1e30))
    ours, theirs = by("compact", job, tiny.examples()), by("plain", job, tiny.examples())
    assert (ours.status, ours.reason, ours.state) == ("diverged", theirs.reason, None)


def test_no_bit_depends_on_the_jobs_before(held: bool) -> None:
    data = {0: tiny.examples(), 1: tiny.examples(seed=1)}
    jobs = [replace(doubled("adam"), seed=seed, key=str(seed)) for seed in (0, 1)]
    first = {key: result.state for key, result in compact.run(jobs, data)}
    again = {key: result.state for key, result in compact.run(jobs[::-1], data)}
    for key, state in first.items():
        assert state is not None and state.digest == getattr(again[key], "digest", None)


# --- noise ---------------------------------------------------------------------------------


def nudged(start: State, seed: int) -> State:
    """Each weight moved by one unit in the last place, up or down at random."""
    generator = torch.Generator().manual_seed(seed)

    def moved(tensor: Tensor) -> Tensor:
        up = torch.rand(tensor.shape, generator=generator) < 0.5
        towards = torch.where(up, torch.inf, -torch.inf)
        return torch.nextafter(tensor, towards)

    return State({name: moved(tensor) for name, tensor in start.items()}, start.step)


@pytest.mark.slow
def test_whole_trainings_differ_by_less_than_their_noise() -> None:
    """Twenty seeds in float32: the mean difference of counts is within that of one-ulp moves."""
    data, unseen = tiny.examples(count=200), tiny.examples(count=400, seed=7)
    differences, moves = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compact, "_thin", lambda mask: True)
        for seed in range(20):
            evaluation = Evaluation({seed: {"test": unseen}}, (100,))
            masks = tiny.masks(tiny.network(), 2, 0.6, seed)
            job = tiny.job(seed=seed, masks=masks)
            counts = [
                int(by(engine, each, data, evaluation).correct["test"][-1])
                for engine, each in (
                    ("plain", job),
                    ("compact", job),
                    ("plain", replace(job, start=nudged(job.start, seed))),
                )
            ]
            differences.append(counts[1] - counts[0])
            moves.append(counts[2] - counts[0])
    moved, differed = torch.tensor(moves).double(), torch.tensor(differences).double()
    floor = max(1.0, float(moved.square().mean().sqrt()))  # at least one example
    assert abs(float(differed.mean())) <= floor
    assert float(differed.square().mean().sqrt()) <= 3 * floor


# --- the rule ------------------------------------------------------------------------------


def test_who_trains_what() -> None:
    assert engine_for(Means(), tiny.network()) == "compact"
    for family in tiny.FAMILIES:
        if "mlp" not in family:
            assert engine_for(Means(), tiny.network(family)) == "plain"
            assert engine_for(Means(engine="compact"), tiny.network(family)) == "plain"
            assert engine_for(Means(engine="stacked"), tiny.network(family)) == "stacked"
    assert engine_for(Means(engine="plain"), tiny.network()) == "plain"
    assert engine_for(Means("cuda:1"), tiny.network()) == "stacked"
    assert engine_for(Means("cuda", "plain"), tiny.network()) == "plain"
