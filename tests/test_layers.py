"""Which module may import which: the table, and a reading of every file's syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lthbench

ROOT = Path(__file__).resolve().parents[1]

# A module imports from lower layers alone; a folder is one module. A new module must be added.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors", "paths", "seeds", "guard", "untrusted", "outputs", "machine", "names", "visible"),
    ("task", "masks", "mnist1d", "states", "wire", "arrays", "container", "git"),
    ("networks", "data", "stats", "process", "branch"),
    ("engine", "meter", "store", "ticket", "depths", "packed", "sizes"),
    ("executors", "scores", "requests"),
    ("together",),
    (
        *("problem", "child", "worker", "answers", "childprocess"),
        *("method", "record", "testset", "controls", "transfer"),
    ),
    ("find", "tables", "cluster", "bundle", "publishable"),
    ("score", "handover", "starts", "summary"),
    (
        *("calibrate", "carry", "check", "new", "stability"),
        *("packing", "progress", "reference", "rehearsal", "report", "picture"),
    ),
    ("evaluation", "validation", "listing", "rescore", "noise"),
    ("board",),
    ("zoo",),
    ("verify", "compare", "evidence", "citing", "power"),
    ("submission", "site"),
    ("estimate", "bench"),
    ("cli_board",),
    ("cli_dev",),
    ("cli",),
)
LAYER = {module: number for number, layer in enumerate(LAYERS) for module in layer}

# Within a layer nothing imports its neighbours, except in the lowest and for these.
NEIGHBOURS = {("child", "problem")}  # the process that holds the one problem

# These are the package's front doors, and name modules of every layer lazily.
EXEMPT = {"__init__", "__main__"}

# Modules that only these may import.
RESERVED = {"testset": {"score", "validation"}}

# Folders of data, and of files that are loaded by path. An editable install puts the checkout
# on the import path, so that importing them would work there and nowhere else.
NO_PACKAGES = {"baselines", "tasks", "tests", "leaderboard"}


def imports(text: str, package: tuple[str, ...] = ()) -> Iterator[tuple[int, str]]:
    """Line and dotted name of all that a module's text imports, in functions too.

    ``from a import b`` gives ``a.b``; ``package`` is what relative imports start from.
    """
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, name.name) for name in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                above = package[: len(package) - level + 1] if level else ()
                source = ".".join((*above, *([module] if module else [])))
                yield from ((node.lineno, f"{source}.{name.name}") for name in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def may_import(module: str, target: str) -> bool:
    """Whether one module of lthbench may import another, by the table."""
    if target not in LAYER or module not in RESERVED.get(target, {module}):
        return False
    if LAYER[module] == LAYER[target]:
        return module == target or LAYER[module] == 0 or (module, target) in NEIGHBOURS
    return LAYER[module] > LAYER[target]


def violations(module: str, text: str, package: tuple[str, ...] = ("lthbench",)) -> list[str]:
    """What a module of lthbench imports against the table."""
    found = []
    for line, name in imports(text, package):
        parts = name.split(".")
        if parts[0] in NO_PACKAGES:
            found.append(f"{module}:{line} imports {name}: {parts[0]}/ is no package")
        elif name == "lthbench":
            found.append(f"{module}:{line} imports lthbench: name the module instead")
        elif parts[0] == "lthbench" and not may_import(module, parts[1]):
            found.append(f"{module}:{line} imports {name}: not from a lower layer")
    return found


def baseline_violations(text: str, public: set[str]) -> list[str]:
    """What a baseline imports from lthbench besides public names, or from where none may."""
    found = []
    for line, name in imports(text):
        top, _, rest = name.partition(".")
        if top in NO_PACKAGES or (top == "lthbench" and rest not in public):
            found.append(f"line {line} imports {name}")
    return found


MODULES = [
    (path.relative_to(ROOT / "lthbench").with_suffix("").parts, path)
    for path in sorted((ROOT / "lthbench").rglob("*.py"))
    if "_share" not in path.parts
]
BASELINES = sorted((ROOT / "baselines").glob("*.py"))


def test_every_module_is_in_the_table() -> None:
    """A module's layer is decided when it is made, not found out later."""
    assert {parts[0] for parts, _ in MODULES} - EXEMPT <= set(LAYER)


@pytest.mark.parametrize(("parts", "path"), MODULES, ids=["/".join(parts) for parts, _ in MODULES])
def test_modules_import_from_lower_layers(parts: tuple[str, ...], path: Path) -> None:
    """No cycles, no test data in the search, no torch in a listing: all rest on this."""
    if parts[0] in EXEMPT or parts[0] not in LAYER:
        return
    package = ("lthbench", *parts[:-1])
    assert violations(parts[0], path.read_text(encoding="utf-8"), package) == []


@pytest.mark.parametrize("path", BASELINES, ids=lambda path: path.stem)
def test_baselines_use_the_public_names_alone(path: Path) -> None:
    """What a baseline may do, a stranger's method may do."""
    assert baseline_violations(path.read_text(encoding="utf-8"), set(lthbench.__all__)) == []


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("*.py")), ids=lambda path: path.stem)
def test_tests_import_no_data_folder(path: Path) -> None:
    """Tests may share code among themselves; data files they read as lthbench does."""
    names = [name for _, name in imports(path.read_text(encoding="utf-8"))]
    assert [name for name in names if name.split(".")[0] in NO_PACKAGES - {"tests"}] == []


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("masks", "from lthbench.training.job import run"),
        ("masks", "from lthbench.training.engines.plain import run"),
        ("masks", "import lthbench.training.engines.plain as plain"),
        ("masks", "def late():\n    from lthbench.evaluation.search.run import find"),
        ("masks", "async def late():\n    if True:\n        import lthbench.cli.main"),
        ("masks", "from lthbench import engine"),
        ("masks", "from . import engine"),
        ("masks", "from .engine import run"),
        ("masks", "from lthbench.protocol.datasets import search"),
        ("masks", "from lthbench.unheard import of"),
        ("masks", "import lthbench"),
        ("masks", "from lthbench import Problem"),
        ("masks", "from lthbench import *"),
        ("masks", "import importlib\nimportlib.import_module('lthbench.cli.main')"),
        ("engine", "from lthbench.training.executors.local import run"),
        ("networks", "from lthbench.protocol.datasets import search"),
        ("wire", "from lthbench.networks.state import State"),
        ("problem", "from lthbench.method.child import main"),
        ("worker", "from lthbench.method.problem import Problem"),
        ("find", "from lthbench.evaluation.scoring import score"),
        ("report", "from lthbench.evaluation.pipeline import evaluate"),
        ("errors", "from lthbench.protocol.task import Task"),
        ("find", "from lthbench.protocol.test_split import load"),
        ("evaluation", "def late():\n    from lthbench import testset"),
        ("cli", "from lthbench.protocol.test_split import load"),
        ("cli", "import baselines.imp"),
        ("cli", "from tasks import anything"),
    ],
)
def test_a_violation_is_caught(module: str, text: str) -> None:
    """The checker itself: each of these modules breaks the table once."""
    assert len(violations(module, text)) == 1


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("paths", "from lthbench.errors import ResourceError"),
        ("engine", "from lthbench.training.engines.plain import run\nfrom lthbench import masks"),
        ("executors", "from lthbench.training.job import run"),
        ("process", "from lthbench import wire"),
        ("score", "from lthbench.evaluation.search.run import Search"),
        ("evaluation", "from lthbench import reference, score"),
        ("child", "from lthbench.method.problem import Problem"),
        ("score", "from lthbench.protocol.test_split import load"),
        ("cli", "import json, torch\nfrom lthbench.evaluation.pipeline import evaluate"),
    ],
)
def test_what_is_allowed_passes(module: str, text: str) -> None:
    """The checker itself: none of these breaks the table."""
    assert violations(module, text) == []


def test_relative_imports_start_from_the_folder_they_are_in() -> None:
    """``from ..find`` in a folder of lthbench names a module of lthbench."""
    inside = ("lthbench", "engine")
    assert violations("engine", "from . import plain\nfrom ..masks import density", inside) == []
    assert len(violations("engine", "from ..find import find", inside)) == 1


def test_a_baseline_that_reaches_inside_is_caught() -> None:
    """The checker itself, for baselines."""
    public = {"Problem", "Ticket"}
    assert baseline_violations("import torch\nfrom lthbench import Problem, Ticket", public) == []
    for text in (
        "from lthbench import Problem, secret",
        "from lthbench.tickets.masks import keep_top",
        "import lthbench",
        "from baselines import imp",
    ):
        assert len(baseline_violations(text, public)) == 1
