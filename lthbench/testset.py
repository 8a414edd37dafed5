"""The only code that opens a test split; `score` alone may import it."""

from __future__ import annotations

from lthbench import data
from lthbench.data import Examples
from lthbench.task import Task


def test_examples(task: Task, seed: int) -> Examples:
    """The test examples of a task at a seed."""
    if task.data.source == "modular-addition":
        return data.modular_addition(task, seed)[2]
    return data.read(task, f"fold{seed % task.data.folds}.test" if task.data.folds else "test")


test_examples.__test__ = False  # type: ignore[attr-defined]  # a split, not a test of ours
