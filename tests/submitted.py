"""A small house with a finished evaluation in it, as `lthbench evaluate … --final` leaves one.

Two tiny tasks in a suite of their own, ranked, with references; one method whose tickets start at
theta_0, at its signs and at weights of their own; the bundle of all. Made once a process, in some
seconds, and removed at its end; tests that change it copy it first.
"""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from lthbench.evaluation.pipeline import evaluate
from lthbench.io import paths
from lthbench.io.paths import canonical_json
from lthbench.leaderboard.bundle.build import pack
from lthbench.method.source import load_method
from lthbench.protocol import datasets
from lthbench.protocol.task import load_task
from lthbench.records.reference import Noise
from lthbench.records.schema import Record, file_bytes
from lthbench.tools.freeze_reference import build
from tests.searching import ROOT, search

DIGITS, MODADD = "tiny-digits", "tiny-modadd"
SUITE = """name = "tiny"
title = "Seconds, for tests"
tasks = ["tiny-digits", "tiny-modadd"]
ranked = true
controls = "all"
compressed = true
"""
METHOD = '''"""Random tickets of three origins, for tests."""

import torch
from lthbench import Ticket, keep_top

METHOD = {"name": "mixed", "authors": "A. Nobody", "licence": "MIT"}


def find_tickets(problem, *, scale: float = 0.5):
    lots = problem.generator("mixed")
    scores = {n: torch.rand(s, generator=lots) for n, s in problem.shapes.items()}
    for number, density in enumerate(problem.densities):
        masks = keep_top(scores, density)
        weights = problem.theta().tensors()
        for name, mask in masks.items():
            if number % 3 == 1:
                weights[name] = weights[name].sign() * scale
            if number % 3 == 2:
                weights[name] = torch.where(mask, weights[name] + 0.01, 0.0)
        yield Ticket(masks, weights=weights if number % 3 else None)
'''


@dataclass(frozen=True)
class House:
    """A place where tests are at home.

    Attributes:
        share: what `paths.shipped` finds, in `_share`: tasks, baselines, leaderboard.
        out: the evaluation's folder, its cache beside it.
        bundle: its bundle, which is not in `out`.
    """

    share: Path
    cache: Path
    out: Path
    bundle: Path
    records: tuple[Record, ...]


@functools.cache
def house() -> House:
    """The house that all tests of a process share; nothing in it may be changed."""
    folder = Path(tempfile.mkdtemp(prefix="lthbench-house-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    share = furnish(folder / "home")
    with at_home(share, folder / "cache"):
        first = finished(folder / "first", METHOD.replace('"mixed"', '"imp"', 1))
        for record in records_of(first):
            freeze(record, share)
        out = scored_again(first, folder / "out")
        records = records_of(out)
        bundle = folder / "bundle.zip"
        bundle.write_bytes(pack(out, records))
    return House(share, folder / "cache", out, bundle, records)


@functools.cache
def carried() -> tuple[Path, Record]:
    """A home with the shipped references, and a record of tickets that were carried elsewhere.

    The record is of the tiny arithmetic task with five seeds, valid where `at_home` finds that
    home; nothing in it may be changed.
    """
    folder = Path(tempfile.mkdtemp(prefix="lthbench-carried-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    share = furnish(folder / "home")
    for path in (ROOT / "leaderboard" / "reference").glob("*.json"):
        shutil.copy(path, share / "_share" / "leaderboard" / "reference")
    # What costs less than a twentieth of a training is searched for at every depth: too long here.
    dear = METHOD.replace("    lots =", "    problem.train(until=10)\n    lots =")
    with at_home(share, folder / "cache"):
        first = finished(
            folder / "first", dear.replace('"mixed"', '"imp"', 1), (MODADD,), 5, transfer=True
        )
        (record,) = records_of(first)
        freeze(record, share)
        (record,) = records_of(scored_again(first, folder / "out", dear, transfer=True))
    return share, record


def furnish(folder: Path) -> Path:
    """The repository's own tasks and baselines, two tiny ones and an empty leaderboard."""
    share = folder / "_share"
    shutil.copytree(ROOT / "tasks", share / "tasks")
    shutil.copytree(ROOT / "baselines", share / "baselines")
    for name in (DIGITS, MODADD):
        shutil.copy(ROOT / "tests" / "tasks" / f"{name}.toml", share / "tasks")
    (share / "tasks" / "suites" / "tiny.toml").write_text(SUITE)
    (share / "leaderboard" / "records").mkdir(parents=True)
    (share / "leaderboard" / "reference").mkdir()
    (share / "leaderboard" / "ledger.jsonl").write_bytes(b"")
    return folder


def freeze(record: Record, share: Path) -> None:
    """A task's reference from a final record of a method called imp, with noise floors.

    Where tickets were carried, random ones stand for what was found at the targets.
    """
    floors = [2.0] * len(record.task.ladder)
    if record.transfer is not None:
        found = [
            cell.model_copy(update={"kind": "direct"})
            for cell in record.transfer.cells
            if cell.kind == "erk"
        ]
        cells = (*record.transfer.cells, *found)
        moved = record.transfer.model_copy(update={"cells": cells})
        record = record.model_copy(update={"transfer": moved})
    noise = Noise(score=tuple(floors), curve=tuple(floors))
    moved = None
    if record.transfer is not None:
        two = Noise(score=(2.0, 2.0), curve=(2.0, 2.0))
        moved = {str(n): {"held_out": two, "test": two} for n in record.transfer.targets}
    reference = build(record, {"held_out": noise, "test": noise}, moved)
    path = share / "_share" / "leaderboard" / "reference" / f"{record.task.name}.json"
    path.write_bytes(file_bytes(reference))


@contextmanager
def at_home(share: Path, cache: Path) -> Iterator[None]:
    """This process finds its tasks and its leaderboard there, and its cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "PACKAGE", share)
        patch.setenv("LTHBENCH_CACHE", str(cache))
        yield


def finished(
    out: Path,
    source: str = METHOD,
    tasks: tuple[str, ...] = (DIGITS, MODADD),
    seeds: int = 2,
    final: bool = True,
    transfer: bool = False,
) -> Path:
    """A finished evaluation's folder; searches are made in this process, which takes no child."""
    file = out.parent / f"{out.name}-method.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source)
    method = load_method(str(file))
    first = 0 if final else 1000
    for name in tasks:
        datasets.prepare(load_task(name), download=False, test=final)
        for seed in range(first, first + seeds):
            state = search(method, load_task(name), seed, out / name)
            ended = state.ended(1.0)
            done = {**vars(ended), "rungs": list(map(vars, ended.rungs))}
            path = out / name / "tickets" / f"seed{seed}" / "search.json"
            path.write_bytes(canonical_json(done))
            shutil.rmtree(out / name / "store")
    evaluated(file, out, tasks, seeds, final, transfer)
    return out


def scored_again(first: Path, out: Path, source: str = METHOD, *, transfer: bool = False) -> Path:
    """The same tickets in another method's name, against the reference: nothing is trained."""
    tasks = tuple(sorted(path.parent.name for path in first.glob("*/record.json")))
    for name in tasks:
        shutil.copytree(first / name, out / name)
        (out / name / "record.json").unlink()
    file = out.parent / f"{out.name}-method.py"
    file.write_text(source)
    evaluated(file, out, tasks, len(records_of(first)[0].seeds), True, transfer)
    return out


def evaluated(
    file: Path, out: Path, tasks: tuple[str, ...], seeds: int, final: bool, transfer: bool
) -> None:
    """What is left of an evaluation when the searches are done."""
    evaluate(
        str(file), tasks=tasks, seeds=seeds, workers=0, final=final, transfer=transfer, out=out
    )


def records_of(out: Path) -> tuple[Record, ...]:
    """An evaluation's records, by task."""
    found = sorted(out.glob("*/record.json"))
    return tuple(Record.model_validate(json.loads(path.read_bytes())) for path in found)
