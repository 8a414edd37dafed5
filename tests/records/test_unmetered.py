"""What the meter does not see: a search's processor time, held against what its calls cost."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from lthbench.evaluation import pipeline
from lthbench.evaluation.search import run
from lthbench.evaluation.search.child_process import computed
from lthbench.evaluation.search.session import Search
from lthbench.evaluation.trainings import examples
from lthbench.leaderboard.board.entries import Entry
from lthbench.leaderboard.site.pages import entry
from lthbench.method import pace
from lthbench.method.source import load_method
from lthbench.protocol import datasets
from lthbench.protocol.task import load_task
from lthbench.records import unmetered
from lthbench.records.schema import Record, build, comparable, file_bytes
from lthbench.report import remarks
from lthbench.training.executors.local import Here
from tests.synthetic import synthetic_record as record

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests" / "tasks" / "tiny-digits.toml"
TASK = load_task(str(TINY))
SEED = 1000
OWN = {"seconds": 10.0, "pace": 0.01, "steps": 100.0}


def searched(name: str, folder: Path, **options: Any) -> Search:
    """One seed's search in a child process of its own."""
    method = load_method(name, {key: str(value) for key, value in options.items()})
    datasets.prepare(TASK, download=False)
    (ended,) = asyncio.run(run.find(method, TASK, (SEED,), folder, Here(), run.Conditions()))
    return ended


def allowed(search: Search) -> float:
    return unmetered.allowance(search.pace, search.steps, len(search.rungs))


HONEST = {
    "snip": lambda search: search.cost * TASK.recipe.steps,
    "imp": lambda search: 0.0,  # trainings are done by others
    "edge_popup": lambda search: len(search.rungs) * TASK.recipe.steps,
    **dict.fromkeys(("synflow", "force", "multiprize", "supermask", "tangent"), None),
}


@pytest.mark.parametrize(
    "name",
    [
        name if steps else pytest.param(name, marks=pytest.mark.slow)
        for name, steps in HONEST.items()
    ],
)
def test_an_honest_search_is_not_flagged(name: str, cache: Path, tmp_path: Path) -> None:
    """Far from it: a machine that is busy with other things must not flag it either."""
    search = searched(name, tmp_path)
    steps = HONEST[name]
    assert search.pace > 0
    assert 0 < search.processor < 0.7 * allowed(search)
    assert steps is None or search.steps == pytest.approx(steps(search))


@pytest.mark.slow
def test_a_search_that_trains_on_kept_batches_is(cache: Path, tmp_path: Path) -> None:
    """In its record, by the figures that stand there, and in the words of its pages; its cost is
    next to nothing, and so is what it may take."""
    path = ROOT / "tests" / "hostile" / "trains_on_kept_batches.py"
    (made,) = pipeline.evaluate(
        str(path), tasks=(str(TINY),), seeds=1, workers=0, out=tmp_path / "out", transfer=False
    ).records
    (search,) = made.searches
    assert search.own is not None
    assert search.cost < 0.05 and 8 < search.own.seconds < 20
    (told,) = unmetered.told_of(made)
    assert f"seed {SEED}" in told and "its cost is not all it did" in told
    (remark,) = [one for one in remarks.remarks(made) if one.name == "Unmetered"]
    assert remark.warns and remark.text == told


def test_the_pace_is_that_of_a_step(cache: Path) -> None:
    """Measured in this process it is what such steps take here; it draws nothing of the global
    generators and takes a fraction of a second."""
    datasets.prepare(TASK, download=False)
    train = examples(TASK, datasets.search(TASK, SEED).train)
    began, wall = time.process_time(), time.monotonic()
    found = pace.measure(TASK, SEED, train)
    assert 0 < found < 0.1
    assert time.process_time() - began >= pace.LASTS
    assert time.monotonic() - wall < 30


def test_the_time_of_a_process_counts_those_it_waited_for() -> None:
    own = psutil.Process()
    before = computed(own)
    with psutil.Popen(["python3", "-c", "sum(i * i for i in range(6_000_000))"]) as other:
        other.wait()
    assert computed(own) - before > 0.1


# --- the record ------------------------------------------------------------------------------


def with_own(**changes: float) -> Record:
    """A record of five seeds, whose second search tells of its process."""
    table = record().model_dump(mode="json", exclude={"aggregates", "scorer"})
    table["searches"][1]["own"] = {**OWN, **changes}
    return build(table)


def test_the_allowance_is_the_protocols() -> None:
    assert unmetered.allowance(0.01, 100.0, 3) == pytest.approx(3 * 0.01 * (100 + 100 * 3) + 3)
    tickets = len(record().task.ladder)
    most = unmetered.allowance(OWN["pace"], OWN["steps"], tickets)
    assert unmetered.told_of(with_own(seconds=most)) == ()
    (told,) = unmetered.told_of(with_own(seconds=most + 1))
    assert told.startswith("search of seed 1: ")


def test_a_rung_that_was_not_yielded_allows_nothing() -> None:
    whole = with_own()
    lost = [c for c in whole.cells if (c.kind, c.seed) == ("ticket", 1)]
    cells = tuple(
        c.model_copy(update={"status": "missing"}) if c in lost else c for c in whole.cells
    )
    less = whole.model_copy(update={"cells": cells})
    bare = unmetered.allowance(OWN["pace"], OWN["steps"], 0)
    searches = [
        s.model_copy(update={"own": s.own and s.own.model_copy(update={"seconds": bare + 0.1})})
        for s in less.searches
    ]
    assert unmetered.told_of(less.model_copy(update={"searches": tuple(searches)}))
    assert not unmetered.told_of(whole.model_copy(update={"searches": tuple(searches)}))


def test_two_runs_are_the_same_record_whatever_they_took() -> None:
    """The figures are in the file and are no part of what is compared; a file without them is as
    it was before there were any."""
    plain, quick, slow = record(), with_own(seconds=1.0), with_own(seconds=2.0)
    assert comparable(quick) == comparable(slow) == comparable(plain)
    assert file_bytes(quick) != file_bytes(slow)
    assert b'"own"' not in file_bytes(plain) and b'"own"' in file_bytes(quick)
    assert "own" not in plain.model_dump(mode="json")["searches"][0]


def test_the_entry_s_page_tells_of_the_record_s_and_of_level_three_s_own() -> None:
    """The last report's: an older one was superseded."""
    found = with_own(seconds=100.0)
    reports: list[dict[str, Any]] = [
        {"level": 2, "ok": True, "cells": []},
        {"level": 3, "ok": True, "reproduced": {"unmetered": ["search of seed 5: long ago"]}},
        {"level": 3, "ok": True, "reproduced": {"unmetered": ["search of seed 77: it <b>"]}},
    ]
    lines = tuple({"act": "level", "n": 1, "level": 3, "report": report} for report in reports)
    listed = Entry("imp--1", "1" * 64, "x", found, 3, "accepted", None, (), lines)
    warned = [r.text for r in entry.page(listed, "", {}, {})["warnings"] if r.name == "Unmetered"]
    assert warned == [*unmetered.told_of(found), "reproduced: search of seed 77: it <b>"]
