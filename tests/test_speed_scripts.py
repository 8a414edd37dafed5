"""The scripts that print speed figures still run; what they print depends on the machine."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lthbench.protocol.task import load_task
from tests.speed import engines, estimate, gpu, growth, harness, quick, startup, workers

TINY = Path(__file__).parent / "tasks" / "tiny-digits.toml"
Said = Callable[..., str]


def test_harness(said: Said) -> None:
    text = said(harness, "--steps", "4", "--repeats", "1", "--task", "mlp-digits")
    assert re.search(r"^mlp-digits +\d", text, re.MULTILINE)
    assert re.search(r"^mlp-digits: evaluation takes -?[\d.]+% of the harness", text, re.MULTILINE)


@pytest.mark.parametrize("name", harness.TASKS)
def test_the_two_loops_end_in_the_same_counts(
    name: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written apart, they do the same: after every step, on noise where there is no data."""
    monkeypatch.delenv("LTHBENCH_DATA", raising=False)
    case = harness.prepared(name, 6)
    sets = {
        part: replace(examples, x=examples.x[:300], y=examples.y[:300])
        for part, examples in case.sets.items()
    }
    case = replace(case, sets=sets, at=(1, 2, 3, 4, 5, 6))
    counts = harness.harness(case)
    assert counts == harness.bare(case)
    assert [len(curve) for curve in counts.values()] == [6, 6]
    assert harness.harness(case, False) == harness.bare(case, False) == {}


def test_startup(said: Said) -> None:
    text = said(startup, "--repeats", "1")
    assert re.match(r"lthbench --help: wall [\d.]+ s \(least [\d.]+\), cpu", text)


def test_a_short_copy_is_a_task(tmp_path: Path) -> None:
    task = load_task(str(workers.shortened("lenet300-mnist", 1000, tmp_path)))
    assert (task.recipe.steps, task.score.every, len(task.grid)) == (1000, 50, 20)
    whole = load_task("lenet300-mnist")
    assert task.recipe.model_copy(update={"steps": whole.recipe.steps}) == whole.recipe
    assert task.training_digest == whole.training_digest
    assert load_task(str(workers.shortened("mlp-digits", 30, tmp_path))).recipe.steps == 30


@pytest.mark.slow
def test_workers(said: Said) -> None:
    text = said(workers, "--task", "mlp-digits", "--steps", "20", "--seeds", "1")
    assert re.search(
        r"^1 worker: [\d.]+ s\n2 workers: [\d.]+ s\nratio: [\d.]+$", text, re.MULTILINE
    )


@pytest.mark.slow
def test_growth(said: Said) -> None:
    text = said(growth, "--jobs", "1", "--steps", "3", "--workers", "0")
    for name in ("as it is", "twice the jobs", "twice the steps", "twice the batch"):
        assert re.search(rf"^{name} +[\d.]+ +[\d.]+ +[\d,]+$", text, re.MULTILINE)


@pytest.mark.slow
def test_engines(said: Said) -> None:
    text = said(engines, "--task", "mlp-digits", "--jobs", "2")
    for name in ("plain", "compact", "vmap", "unrolled"):
        assert name in text


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_gpu_one_line_says_so(said: Said, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^2$"):
        gpu.main()
    assert capsys.readouterr().err == "no CUDA device here: nothing was checked or measured\n"


@pytest.mark.slow
def test_quick(said: Said) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        said(quick, "--method", "erk", "--task", str(TINY), "--seeds", "1")
    lines = "a: begun\na: seed 1, 9 steps/s, 1:40 left\na: scored, 1:02:03 left\n"
    told: list[tuple[float, int]] = []
    quick.follow(io.StringIO(lines), time.perf_counter(), told)
    assert [left for _, left in told] == [100, 3723]
    assert quick.half_way([(10.0, 100), (60.0, 1)], 90.0).endswith("80 s it was, ratio 1.25")


@pytest.mark.slow
def test_estimate(said: Said) -> None:
    told = "--task", "mlp-digits", "--steps", "20", "--method", "erk"
    text = said(estimate, *told, "--seeds", "1", "--workers", "1")
    assert re.search(r"^erk +mlp-digits +[\d.]+ +[\d.]+ +[\d.]+ +[\d.]+", text, re.MULTILINE)
    assert re.search(r"^processor time within a factor of 1\.5: ", text, re.MULTILINE)
