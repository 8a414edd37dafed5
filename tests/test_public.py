"""The public names: what a method, a script and a notebook may rely on."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import lthbench

ROOT = Path(__file__).resolve().parents[1]
NAMES = [
    "Batch",
    "BudgetExceeded",
    "LthbenchError",
    "NotApplicable",
    "Problem",
    "State",
    "Ticket",
    "elastic",
    "evaluate",
    "keep_top",
    "layer_counts",
    "load_ticket",
]


def test_the_public_names() -> None:
    """One more is a promise, one less breaks somebody's method: say so here."""
    assert lthbench.__all__ == NAMES == sorted(NAMES)


def test_type_checkers_see_the_same_names() -> None:
    """The block that they read and the table that is used at run time agree on every home."""
    tree = ast.parse(Path(lthbench.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    homes = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        assert node.module is not None
        for alias in node.names:
            assert alias.name == alias.asname  # exported on purpose
            homes[alias.name] = node.module.removeprefix("lthbench.")
    assert homes == lthbench._HOMES
    assert sorted(homes) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_documented_and_at_home(name: str) -> None:
    value = getattr(lthbench, name)
    assert inspect.getdoc(value)
    assert value.__module__ == f"lthbench.{lthbench._HOMES[name]}"
    assert value is getattr(lthbench, name)


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="module 'lthbench' has no attribute 'keep_tops'"):
        lthbench.keep_tops  # noqa: B018


def test_names_are_listed() -> None:
    assert set(NAMES) <= set(dir(lthbench))


def test_names_are_loaded_when_they_are_used() -> None:
    """And a function stays one, whatever was imported in between."""
    text = (
        "import sys, lthbench\n"
        "assert not [n for n in sys.modules if n.startswith('lthbench.')]\n"
        "lthbench.LthbenchError\n"
        "assert 'torch' not in sys.modules and 'lthbench.errors' in sys.modules\n"
        "lthbench.keep_top\n"
        "assert 'lthbench.method.problem' not in sys.modules\n"
        "from lthbench.evaluation.pipeline import Evaluated\n"
        "from lthbench import *\n"
        "assert callable(evaluate) and callable(lthbench.evaluate)\n"
    )
    subprocess.run([sys.executable, "-c", text], check=True, cwd=ROOT)
