"""The scripts that print speed figures still run; what they print depends on the machine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lthbench.task import load_task
from tests.searching import ROOT
from tests.speed import workers


def said(script: str, cache: Path, *arguments: str) -> str:
    environment = {n: v for n, v in os.environ.items() if n != "LTHBENCH_DATA"}
    done = subprocess.run(
        [sys.executable, "-m", f"tests.speed.{script}", *arguments],
        cwd=ROOT, env={**environment, "LTHBENCH_CACHE": str(cache)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_harness(cache: Path) -> None:
    """Also that the two loops, written apart, end in the same counts."""
    text = said("harness", cache, "--steps", "4", "--repeats", "1")
    assert re.search(r"^lenet300-mnist \(noise\) +\d", text, re.MULTILINE)
    assert re.search(r"^mlp-digits +\d", text, re.MULTILINE)
    assert re.search(r"^mlp-digits: evaluation takes -?[\d.]+% of the harness", text, re.MULTILINE)


def test_startup(cache: Path) -> None:
    text = said("startup", cache, "--repeats", "1")
    assert re.match(r"lthbench --help: wall [\d.]+ s \(least [\d.]+\), cpu", text)


def test_a_short_copy_is_a_task(tmp_path: Path) -> None:
    task = load_task(str(workers.shortened("lenet300-mnist", 1000, tmp_path)))
    assert (task.recipe.steps, task.score.every, len(task.grid)) == (1000, 50, 20)
    whole = load_task("lenet300-mnist")
    assert task.recipe.model_copy(update={"steps": whole.recipe.steps}) == whole.recipe
    assert task.training_digest == whole.training_digest
    assert load_task(str(workers.shortened("mlp-digits", 30, tmp_path))).recipe.steps == 30


@pytest.mark.slow
def test_workers(cache: Path) -> None:
    text = said("workers", cache, "--task", "mlp-digits", "--steps", "20", "--seeds", "1")
    assert re.search(
        r"^1 worker: [\d.]+ s\n2 workers: [\d.]+ s\nratio: [\d.]+$", text, re.MULTILINE
    )
