"""What import-linter cannot say of imports; the rooms are contracts in pyproject.toml."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lthbench

ROOT = Path(__file__).resolve().parents[1]

# Folders of data, and of files that are loaded by path. An editable install puts the checkout
# on the import path, so that importing them would work there and nowhere else.
NO_PACKAGES = {"baselines", "tasks", "leaderboard"}
FILES = sorted((ROOT / "tests").rglob("*.py")) + [
    path for path in sorted((ROOT / "lthbench").rglob("*.py")) if "_share" not in path.parts
]
BASELINES = sorted((ROOT / "baselines").glob("*.py"))


def imports(text: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of all that a module's text imports, in functions too.

    ``from a import b`` gives ``a.b``.
    """
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, name.name) for name in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield from ((node.lineno, f"{module}.{name.name}") for name in names)


def baseline_violations(text: str, public: set[str]) -> list[str]:
    """What a baseline imports from lthbench besides public names, or from where none may."""
    found = []
    for line, name in imports(text):
        top, _, rest = name.partition(".")
        if top in NO_PACKAGES | {"tests"} or (top == "lthbench" and rest not in public):
            found.append(f"line {line} imports {name}")
    return found


@pytest.mark.parametrize("path", BASELINES, ids=lambda path: path.stem)
def test_baselines_use_the_public_names_alone(path: Path) -> None:
    """What a baseline may do, a stranger's method may do."""
    assert baseline_violations(path.read_text(encoding="utf-8"), set(lthbench.__all__)) == []


def test_nothing_imports_a_folder_of_data() -> None:
    """Tests share code among themselves; data files they read as lthbench does."""
    for path in FILES:
        names = {name.split(".")[0] for _, name in imports(path.read_text(encoding="utf-8"))}
        assert not names & NO_PACKAGES, path
        assert path.is_relative_to(ROOT / "tests") or "tests" not in names, path


def test_packages_hold_no_logic() -> None:
    """A package's own file says what is in it; the first alone names what users import."""
    for path in FILES:
        if path.name == "__init__.py" and path.parent != ROOT / "lthbench":
            (docstring,) = ast.parse(path.read_text(encoding="utf-8")).body
            assert isinstance(docstring, ast.Expr), path


def test_there_are_few_rooms_and_none_is_crowded() -> None:
    """A newcomer finds a thing by its folder alone: 12 packages and 6 files at the top."""
    top = ROOT / "lthbench"
    assert len({path.parent for path in top.glob("*/__init__.py")}) <= 12
    assert len([path for path in top.iterdir() if path.is_file()]) <= 6


def test_a_baseline_that_reaches_inside_is_caught() -> None:
    """The checker itself."""
    public = {"Problem", "Ticket"}
    assert baseline_violations("import torch\nfrom lthbench import Problem, Ticket", public) == []
    for text in (
        "from lthbench import Problem, secret",
        "from lthbench.tickets.masks import keep_top",
        "import lthbench",
        "from baselines import imp",
        "def late():\n    from tests import strategies",
    ):
        assert len(baseline_violations(text, public)) == 1
