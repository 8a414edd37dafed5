"""The only code that opens a test split; only `score` may import it."""

from __future__ import annotations

from lthbench.protocol import datasets
from lthbench.protocol.datasets import Examples
from lthbench.protocol.task import Task


def test_examples(task: Task, seed: int) -> Examples:
    """Return the test examples of a task at a seed."""
    if task.data.source == "modular-addition":
        return datasets.modular_addition(task, seed)[2]
    return datasets.read(task, f"fold{seed % task.data.folds}.test" if task.data.folds else "test")


test_examples.__test__ = False  # type: ignore[attr-defined]  # a split, not a test of ours
