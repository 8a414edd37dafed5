"""What must not be loaded: imports decide how quick the commands feel."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Each costs between half a second and six, and is loaded by the function that needs it.
HEAVY = ("datasets", "pandas", "plotly", "pyarrow", "ray", "scipy.stats", "sklearn", "timm")
TORCH = (*HEAVY, "torch", "torchvision", "numpy", "scipy")
MAIN = ("-m", "lthbench")

CASES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "import": (("-c", "import lthbench"), (*TORCH, "jinja2", "pydantic", "rich", "typer")),
    "--help": ((*MAIN, "--help"), TORCH),
    "tasks": ((*MAIN, "tasks"), TORCH),
    "validate": ((*MAIN, "validate", "leaderboard/records"), (*HEAVY, "torch", "torchvision")),
    "child": (
        ("-c", "import lthbench.method.child"),
        (*HEAVY, "torchvision", "lthbench.protocol.test_split"),
    ),
}


def loaded(arguments: tuple[str, ...], cache: Path) -> set[str]:
    """The modules that one run of Python imports, all their parents named too."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments],
        cwd=ROOT,
        env={**os.environ, "LTHBENCH_CACHE": str(cache)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize("case", CASES)
def test_what_must_be_absent(case: str, cache: Path) -> None:
    """A listing that waits seconds for torch is a listing nobody asks for."""
    arguments, absent = CASES[case]
    names = loaded(arguments, cache)
    assert "lthbench" in names
    assert sorted(names & set(absent)) == []


def test_the_probe_sees_what_is_loaded(cache: Path) -> None:
    """The probe itself: a module imported late and inside a function is seen."""
    text = "def late():\n    import json.decoder\nlate()"
    assert "json.decoder" in loaded(("-c", text), cache)
