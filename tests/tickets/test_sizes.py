"""What a task's fractions and patterns come to, and the tasks that are refused for it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, get_args

import pytest

from lthbench.cli import listings
from lthbench.errors import TaskError
from lthbench.networks import families
from lthbench.protocol import datasets
from lthbench.protocol.task import Data, Task, load_task, task_names
from lthbench.tickets import sizes
from tests import tiny

TASKS = {name: load_task(name) for name in task_names()}
DIGITS = TASKS["mlp-digits"]


def changed(task: Task, place: str, value: Any) -> Task:
    """The task with another value at "table.key", or of a key of its own."""
    table, _, key = place.partition(".")
    part = getattr(task, table).model_copy(update={key: value}) if key else value
    return task.model_copy(update={table: part})


def refusal(task: Task) -> str:
    with pytest.raises(TaskError) as caught:
        sizes.sizes_of(task)
    line = str(caught.value)
    assert line.startswith(f"{task.name}.toml [") and "\n" not in line
    return line.partition(".toml ")[2]


@pytest.mark.parametrize("name", TASKS)
def test_every_shipped_task_is_sound(name: str) -> None:
    """Those are not looked at when they are read: that would take torch."""
    task = TASKS[name]
    found = sizes.sizes_of(task)
    assert found.shapes == families.shapes(task.network, task.network.depth)
    assert found.prunable == sum(math.prod(shape) for shape in found.shapes.values())
    assert found.trained == tuple(round(d * found.prunable) for d in task.ladder.trained)
    assert found.untrained == tuple(round(d * found.prunable) for d in task.ladder.untrained)


def test_one_s_own_file_is_looked_at_when_it_is_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "tasks" / "tiny-digits.toml").read_text()
    path = tmp_path / "tiny-digits.toml"
    path.write_text(text)
    assert sizes.load_sound(str(path)) == load_task(str(path))
    path.write_text(text.replace("hidden.*.weight", "hiden.*.weight"))
    load_task(str(path))
    with pytest.raises(TaskError, match=r"^tiny-digits\.toml \[network\] prunable: "):
        sizes.load_sound(str(path))


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        ("network.prunable", (), "[network] prunable: names no tensor; there are hidden.0."),
        ("network.prunable", ("nothing",), 'prunable: "nothing" matches no tensor; there are'),
        ("network.prunable", ("neck.*",), 'prunable: "neck.*" matches neck.bias; only weights of'),
        ("recipe.decayed", ("*.wait",), '[recipe] decayed: "*.wait" matches no tensor'),
        ("ladder.trained", (0.5, 1e-6), "[ladder] trained: 1e-06 keeps none of 50,200 weights"),
        ("ladder.untrained", (0.5, 1e-6), "[ladder] untrained: 1e-06 keeps none of 50,200"),
        ("ladder.trained", (0.2621441, 0.262144), "0.2621441 and 0.262144 keep the same 13,160 of"),
        ("transfer.densities", (0.2621441, 0.262144), "[transfer] densities at depth 2: 0.2621441"),
        ("recipe.batch", 1291, "[recipe] batch: 1,291 is more than the 1,290 training examples"),
        ("data.held_out", 1434, "[data] nothing is left to train on"),
    ],
)  # fmt: skip
def test_what_comes_to_nothing_is_refused(place: str, value: Any, expected: str) -> None:
    assert expected in refusal(changed(DIGITS, place, value))


def test_a_batch_of_all_examples_is_allowed() -> None:
    assert sizes.sizes_of(changed(DIGITS, "recipe.batch", 1290)).examples == 1290


def test_initial_distributions_are_looked_at() -> None:
    weights, biases = DIGITS.network.init
    stray = weights.model_copy(update={"tensors": ("*.wait",)})
    expected = '[network.init]: "*.wait" matches no tensor'
    assert expected in refusal(changed(DIGITS, "network.init", (weights, biases, stray)))
    assert "hidden.0.bias: 0 rows match" in refusal(changed(DIGITS, "network.init", (weights,)))


def test_a_depth_that_a_family_has_not() -> None:
    transfer = DIGITS.transfer
    assert "[transfer] depth 1: conv networks repeat no block" in refusal(
        changed(TASKS["conv4-cifar10"], "transfer", transfer)
    )


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_only_weights_of_layers_are_pruned(family: str) -> None:
    """Never biases, norms, positions or class tokens."""
    of = tiny.network(family)
    module = families.build(of, of.depth)
    others = {name for name, p in module.named_parameters() if name.endswith("bias") or p.ndim < 2}
    others |= {name for name, _ in module.named_parameters() if "." not in name}
    task = changed(changed(DIGITS, "network", of), "transfer", None)
    for name in sorted(others):
        assert f'"{name}" matches {name}; only weights' in refusal(
            changed(task, "network.prunable", (*of.prunable, name))
        )
    assert sizes.sizes_of(task).prunable > 0


def test_training_examples_are_counted_without_the_data(cache: Path) -> None:
    """As many as a seed has, or a few fewer where seeds differ; every source is known."""
    known = {"modular-addition", *datasets.TRAINING}
    assert known == set(get_args(Data.model_fields["source"].annotation))
    datasets.prepare(DIGITS, download=False)
    least = min(len(datasets.search(DIGITS, seed).train.y) for seed in range(5))
    assert datasets.training_examples(DIGITS) == least == 1290
    for task in (task for task in TASKS.values() if task.data.source == "modular-addition"):
        counts = [len(datasets.search(task, seed).train.y) for seed in range(5)]
        assert 0 <= min(counts) - datasets.training_examples(task) <= task.data.modulus
    assert datasets.training_examples(TASKS["lenet300-mnist"]) == 55_000


@pytest.mark.parametrize("name", ["mlp-digits", "resnet20-cifar10"])
def test_a_task_s_listing_says_what_it_comes_to(name: str) -> None:
    task = TASKS[name]
    found, text = sizes.sizes_of(task), listings.one_task(name)
    lines = [line.split() for line in text.splitlines()]
    for tensor, shape in found.shapes.items():
        (line,) = (line for line in lines if line and line[0] == tensor)
        share = math.prod(shape) / found.prunable
        assert line[-2:] == [f"{math.prod(shape):,}", f"{share:.2%}"]
    for density, count in zip(task.ladder.trained, found.trained, strict=True):
        assert [f"{density:.4%}", f"{count:,}"] in lines
    assert ["N", f"{found.prunable:,}", "100.00%"] in lines
    assert ["calibrated", "yes," if task.calibration else "no:"] in [line[:2] for line in lines]
