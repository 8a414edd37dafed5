"""The list of mutations is about the code and the tests that there are."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests import mutations
from tests.mutations import MUTATIONS, Mutation, copy, moved, tried
from tests.searching import ROOT


def test_every_place_is_there_once() -> None:
    """Otherwise a mutation would silently test nothing: give its new place."""
    assert moved() == []


def test_names_are_apart_and_tests_exist() -> None:
    assert len({m.name for m in MUTATIONS}) == len(MUTATIONS) >= 99
    for mutation in MUTATIONS:
        assert mutation.old != mutation.new and mutation.tests
        for test in mutation.tests.split():
            file, name = test.split("::")
            assert name in functions(file)


@cache
def functions(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


LEAF = "def one() -> int:\n    return 1\n"
TESTS = (
    "import leaf\n"
    "def test_one():\n    assert leaf.one() == 1\n"
    "def test_nothing():\n    assert leaf.__file__\n"
)


@pytest.mark.slow
def test_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noticed, not noticed, and a place that is no longer there; the copy is put right again."""
    source, folder = tmp_path / "source", tmp_path / "copy"
    (source / "tests").mkdir(parents=True)
    folder.mkdir()
    (source / "leaf.py").write_text(LEAF)
    (source / "tests" / "test_leaf.py").write_text(TESTS)
    monkeypatch.setattr(mutations, "ROOT", source)
    monkeypatch.setattr(mutations, "COPIED", ("leaf.py", "tests"))
    copy(folder)
    noticed = Mutation("two", "leaf:one", "1", "2", "test_leaf.py")
    assert tried(folder, noticed) == ("test_leaf.py::test_one", "killed")
    missed = Mutation("two", "leaf:", "1", "2", "test_leaf.py::test_nothing")
    assert tried(folder, missed) == ("", "SURVIVED")
    gone = Mutation("gone", "leaf:one", "return 3", "return 2", "test_leaf.py")
    assert tried(folder, gone) == ("", "MOVED")
    absent = Mutation("absent", "leaf:one", "return 1", "return 2", "test_leaf.py::test_two")
    assert tried(folder, absent)[1].startswith("BROKEN")
    assert (folder / "leaf.py").read_text() == LEAF
