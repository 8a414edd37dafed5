"""Benches measure what they say, on tiny work; no time is asserted."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lthbench.errors import LthbenchError, UsageError
from lthbench.io.paths import canonical_json
from lthbench.protocol.task import Task, load_task
from lthbench.records.schema import Record
from lthbench.tools import bench, limits
from lthbench.training import dispatch
from lthbench.training.executors import local
from tests import tiny
from tests.speed import ladder, peers

TASKS = Path(__file__).parents[1] / "tasks"
TINY = str(TASKS / "tiny-digits.toml")
ADDITION = str(TASKS / "tiny-modadd.toml")
Said = Callable[..., str]


@pytest.fixture(scope="module")
def benched() -> bench.Benched:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(limits.COPIED, "cpu", 2**20)
        return bench.bench([TINY], "cpu", 0.02, 1)


def test_every_engine_and_density_has_a_row(benched: bench.Benched) -> None:
    found = {(row.task, row.engine, row.density) for row in benched.rows}
    task = load_task(TINY)
    engines = dispatch.engines(dispatch.Means(), task.network)
    densities = {1.0, 0.2, 0.05, task.ladder.trained[-1]}
    assert found == {(task.name, engine, density) for engine in engines for density in densities}


def test_every_figure_is_positive_and_consistent(benched: bench.Benched) -> None:
    for row in benched.rows:
        assert row.all is not None
        for rate in (row.one, row.all):
            assert min(rate.steps, rate.products, rate.copies) > 0
        assert row.jobs == (bench.GROUPS["cpu"][0] if row.engine == "stacked" else 1)


def test_the_table_and_the_text_say_the_same(benched: bench.Benched) -> None:
    table = json.loads(canonical_json(benched.table()))
    assert len(table["rows"]) == len(benched.rows)
    assert table["torch"] == torch.__version__ and table["threads"] == 1
    assert table["device"] == "cpu" and table["workers"] == 1 and table["name"]
    text = benched.text()
    assert f"{benched.name} (cpu), 1 thread a process, torch {torch.__version__}" in text
    for row in benched.rows:
        assert re.search(
            rf"^{row.task} +{row.engine} +{row.density:.2%} +{row.jobs} ", text, re.MULTILINE
        )


def test_without_workers_one_process_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(limits.COPIED, "cpu", 2**20)
    done = bench.bench([ADDITION], "cpu", 0.01, 0)
    assert {row.all for row in done.rows} == {None}
    assert all(row.one.products > 0 for row in done.rows)
    assert "worker" not in done.text()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((["mnlp-digits"], "cpu", 1.0, 0), "mlp-digits"),
        (([TINY], "abacus", 1.0, 0), "abacus"),
        (([TINY], "cuda:99", 1.0, 0), "cuda:99"),
        (([TINY], "meta", 1.0, 0), "meta"),
        (([TINY], "cpu", 0.0, 0), "0 seconds"),
        (([TINY], "cpu", 1.0, -1), "--workers -1"),
    ],
)
def test_a_mistake_is_told_in_one_line(
    arguments: tuple[list[str], str, float, int], named: str
) -> None:
    with pytest.raises(LthbenchError) as caught:
        bench.bench(*arguments)
    assert named in str(caught.value) and "\n" not in str(caught.value)
    if named != "mlp-digits":
        assert isinstance(caught.value, UsageError)


def test_the_products_of_a_step_are_all_noted() -> None:
    """Three of each layer but the first, whose inputs need no gradient."""
    step = limits._recorded(load_task(TINY), "cpu")
    assert len(step.products) == 3 * 3 - 1
    weights = sum(64 * 24 + 24 * 16 + 16 * 10 + 24 + 16 + 10 for _ in range(4)) * 4
    activations = 60 * (64 + 24 + 16 + 10) * 4
    assert step.moved == weights + activations


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_products_of_every_family_can_be_replayed(family: str) -> None:
    """Alone and with a leading axis of jobs, which costs nothing else."""
    task = _tiny_task(family)
    step = limits._recorded(task, "cpu")
    assert step.products
    for func, args in step.products:
        for jobs in (1, 3):
            out = limits._alone(func, args, jobs)()
            assert out is not None


def _tiny_task(family: str) -> Task:
    images = family in tiny.IMAGES
    tokens = family in ("pair-mlp", "transformer")
    table = {"source": "cifar10" if images else "modular-addition" if tokens else "mnist"}
    if tokens:
        table |= {"modulus": tiny.TOKENS, "train_fraction": 0.5, "held_out_fraction": 0.1}
    task = load_task(TINY)
    data = task.data.model_copy(update={**table, "classes": tiny.CLASSES, "folds": 0})
    network = tiny.network(family, **({"classes": tiny.TOKENS} if tokens else {}))
    changes = {"data": data, "network": network, "recipe": tiny.recipe()}
    return task.model_copy(update=changes)


def test_batched_operands_keep_their_layout() -> None:
    left = torch.arange(6.0).view(2, 3)
    for operand in (left, left.t()):
        many = limits._many(operand, 4)
        assert many.shape == (4, *operand.shape)
        assert all(torch.equal(one, operand) for one in many)
        assert many[0].stride() == operand.stride()
    assert limits._many(torch.zeros(5, 2, 3), 4).shape == (20, 2, 3)


@pytest.fixture
def case(cache: Path) -> peers.Case:
    return peers.prepared(load_task(TINY), "cpu", 24)


def test_the_bare_loop_and_the_plain_engine_end_in_the_same_counts(case: peers.Case) -> None:
    given = case.task, case.job, case.train, case.sets, "cpu", 24
    bare = peers.bare_loop(*given)
    plain = peers.engine_loop(case, "plain", "cpu", 24, 1)
    assert bare.correct == plain.correct
    assert [len(counts) for counts in bare.correct.values()] == [2, 2]
    assert all(torch.equal(bare.state[name], t) for name, t in plain.state.items())
    peers.agree(case, "cpu", 12)


@pytest.mark.parametrize("family", tiny.IMAGES)
def test_so_they_do_on_moved_images(family: str, cache: Path) -> None:
    task = _tiny_task(family)
    job = tiny.job(family, recipe=tiny.recipe("sgd-momentum", augment="crop-flip"), until=6)
    job = replace(job, masks=tiny.masks(job.network, job.depth))
    examples = tiny.examples(family)
    case = peers.Case(task, job, examples, {"held_out": examples}, False)
    peers.agree(case, "cpu", 6)


def test_the_dataloader_loop_keeps_pruned_weights_at_zero_and_learns(cache: Path) -> None:
    case = peers.prepared(load_task(TINY), "cpu", 120)
    recipe = case.job.recipe.model_copy(update={"rate": 0.01})
    case = replace(case, job=replace(case.job, recipe=recipe))
    sets = {"held_out": case.sets["held_out"]}
    timed = peers.dataloader_loop(case.task, case.job, case.train, sets, "cpu", 120)
    assert timed.seconds > 0 and len(timed.correct["held_out"]) == 10
    for name, mask in (case.job.masks or {}).items():
        assert not timed.state[name][~mask].any()
        assert timed.state[name][mask].any()
    assert timed.correct["held_out"][-1] > 0.3 * len(sets["held_out"].y)


def test_a_picture_is_seen_as_the_engines_see_it() -> None:
    for name in ("lenet300-mnist", "resnet20-cifar10"):
        task = load_task(name)
        examples = limits.drawn(task, count=8)
        pictures = peers._dataset(task, examples, None)
        seen = torch.stack([pictures[row][0] for row in range(8)])
        inputs = examples.inputs(slice(None))
        assert torch.allclose(seen.view_as(inputs), inputs, atol=1e-5)
        recipe = task.recipe.model_copy(update={"augment": "crop-flip"})
        moved = peers._dataset(task, examples, recipe)
        assert moved[0][0].shape == pictures[0][0].shape


def test_peers(said: Said) -> None:
    text = said(peers, "--task", TINY, "--steps", "3", "--repeats", "1", "--json")
    rows = json.loads(text)["rows"]
    assert {"engine plain, 1 job", "bare loop", "DataLoader loop"} <= {row["loop"] for row in rows}
    assert all(row["rate"] > 0 and row["ratio"] > 0 and row["real"] for row in rows)


def test_a_record_tells_what_was_trained() -> None:
    """The search's cost in trainings; a compressed schedule is shorter, a rewound start later."""
    cells = [
        {"schedule": 1, "start": 0}, {"schedule": 2, "start": 0}, {"schedule": 1, "start": 20},
    ]  # fmt: skip
    record = Record.model_construct(
        task=_Named(steps=100),
        searches=(_Named(cost=3.0),),
        cells=tuple(_Named(**cell) for cell in cells),
    )
    assert ladder.counted(record) == ladder.Work(3, 300, 3, 100 + 50 + 80)


class _Named:
    def __init__(self, **values: float) -> None:
        self.__dict__.update(values)


@pytest.mark.slow
def test_ladder(said: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "SECONDS", 0.1)
    monkeypatch.setattr(local, "default_workers", lambda *_: 1)
    text = said(ladder, "--task", "mlp-digits", "--steps", "20", "--peer-steps", "2")
    assert re.search(r"^ours: [\d.]+ s", text, re.MULTILINE)
    assert re.search(r"^trained: 12 of the search, ", text, re.MULTILINE)
    assert re.search(r"^ratio: [\d.]+$", text, re.MULTILINE)
    assert re.search(r"^ *6\.87% +[\d,]+ +[\d.]+ ", text, re.MULTILINE)
