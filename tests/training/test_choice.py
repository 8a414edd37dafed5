"""Which engine trains a job, on which device, and that results of two are never mixed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lthbench.errors import UsageError
from lthbench.evaluation import scoring, trainings
from lthbench.evaluation.cells import entry_of
from lthbench.evaluation.starts import Given
from lthbench.networks import families
from lthbench.protocol.design import Place, Plan
from lthbench.tools.check import TASK
from lthbench.training import dispatch
from lthbench.training.dispatch import HERE, VERSIONS, Means, arithmetic, device_told, means_of
from lthbench.training.job import Job
from tests import tiny

SEED = 1000


def search_job(means: Means) -> Job:
    theta = families.initial(TASK.network, TASK.network.depth, SEED)
    return trainings.training(TASK, SEED, theta, None, 10, means=means)


def scoring_job(means: Means) -> Job:
    theta = families.initial(TASK.network, TASK.network.depth, SEED)
    seen = scoring.see(TASK, [SEED], Plan(), means)
    return entry_of(TASK, Place("dense", 1.0, SEED), Given(None, theta), seen).job


@pytest.mark.parametrize("made", [search_job, scoring_job])
def test_the_engine_is_in_the_key(made: object, cache: Path) -> None:
    """By its version; the device's kind too, not its number."""
    assert callable(made)
    jobs = {name: made(Means(engine=name)) for name in VERSIONS}
    assert {name: job.engine for name, job in jobs.items()} == {n: n for n in VERSIONS}
    assert len({job.key for job in jobs.values()}) == len(VERSIONS)
    assert made(HERE).key == jobs["compact"].key
    there = [made(Means(f"cuda{number}", "plain")).key for number in ("", ":0", ":1")]
    assert len(set(there)) == 1
    assert there[0] != jobs["plain"].key


def test_a_rise_of_a_version_is_another_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = search_job(HERE).key
    monkeypatch.setitem(VERSIONS, "plain", "plain-next")
    assert search_job(HERE).key == before
    monkeypatch.setitem(VERSIONS, "compact", "compact-next")
    assert search_job(HERE).key != before


def test_jobs_go_together_where_they_are_stacked() -> None:
    jobs = [
        replace(tiny.job(key=str(n), seed=n % 2), engine=("stacked", "plain")[n < 2])
        for n in range(6)
    ]
    data = {seed: tiny.examples(seed=seed) for seed in (0, 1)}
    found = dispatch.chunks(jobs, data)
    assert [[job.key for job in chunk] for chunk in found] == [["0"], ["1"], ["2", "3", "4", "5"]]
    told = {key: result.status for key, result in dispatch.run(jobs, data)}
    assert told == {str(n): "ok" for n in range(6)}


def test_after_an_error_of_ours_what_is_left_has_failed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    jobs = [tiny.job(key=str(n), until=5) for n in range(3)]
    run = dispatch.RUN["plain"]

    def broken(some: list[Job], *rest: object) -> object:
        yield from run(some[:1], *rest)  # type: ignore[arg-type]
        raise MemoryError("no more")

    monkeypatch.setitem(dispatch.RUN, "plain", broken)
    found = dict(dispatch.run_whole(jobs, {0: tiny.examples()}))
    assert [found[str(n)].status for n in range(3)] == ["ok", "failed", "failed"]
    assert found["2"].reason == "MemoryError: no more"
    assert "MemoryError" in capsys.readouterr().err


def test_devices_that_were_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert means_of(None, None) == HERE
    assert means_of("cpu", "stacked") == Means("cpu", "stacked")
    for device in ("cuda", "cuda:1", "mps:3", "nonsense", "xpu"):
        with pytest.raises(UsageError, match=f"--device {device}: "):
            means_of(device, None)
    with pytest.raises(UsageError, match=r"--engine palin: .*did you mean plain"):
        means_of(None, "palin")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert means_of(None, None) == Means("cuda")
    assert means_of("cuda:1", None).kind == "cuda"
    with pytest.raises(UsageError, match=r"there is cpu, cuda:0, cuda:1$"):
        means_of("cuda:2", None)
    assert means_of("cuda:7", None, here=False) == Means("cuda:7")


def test_what_a_cluster_says_of_its_devices_counts() -> None:
    means = Means("cuda", there="torch-2.15.0_NVIDIA_H100")
    assert arithmetic(means) == "torch-2.15.0_NVIDIA_H100"
    assert device_told(means) == "NVIDIA H100"
    assert device_told(HERE) == "cpu"
    assert arithmetic().startswith(f"torch-{torch.__version__}")
