"""Building the bundle of a finished evaluation: source, records, tickets, answers, curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lthbench.errors import RecordError, ResourceError
from lthbench.evaluation.environment import installed
from lthbench.evaluation.layout import (
    AGAIN,
    ANSWERS,
    read_bytes,
    read_json,
    read_stored,
    stored_runs,
)
from lthbench.io import canonical_tensors, messages
from lthbench.io.paths import canonical_json, digest
from lthbench.leaderboard.bundle import archive, start_weights, ticket_member
from lthbench.protocol.task import Task, load_task
from lthbench.records.schema import Record, file_bytes
from lthbench.tickets import ticket_files

BUNDLE = "bundle.zip"  # OUT/…, as `lthbench submit` leaves it


def pack(out: Path, records: Sequence[Record]) -> bytes:
    """Build the canonical bundle of some of an evaluation's tasks; equal input gives equal bytes.

    Raises:
        RecordError: If something is missing in the folder, or does not belong together.
        ResourceError: If a file is damaged.
    """
    members = {
        archive.SOURCE: source(out),
        archive.ENVIRONMENT: environment(out),
    }
    for record in records:
        if record.method.digest != digest(members[archive.SOURCE]):
            raise RecordError(
                f"{out / archive.SOURCE}: not the source that the record of {record.task.name} "
                f"names; {AGAIN}"
            )
        for name, data in _of_task(out / record.task.name, record):
            members[f"{record.task.name}/{name}"] = data
    return archive.contain(members)


def source(out: Path) -> bytes:
    """Return the method's source, as the evaluation left it."""
    return read_bytes(out / archive.SOURCE)


def environment(out: Path) -> bytes:
    """Return the list of packages installed during the evaluation.

    Evaluations by older versions of lthbench left none. A submission made from one keeps its list,
    so that the bundle keeps its digest; otherwise the current packages are the best approximation.
    """
    path = out / archive.ENVIRONMENT
    if path.exists():
        listed = read_json(path).get("packages")
        if not isinstance(listed, dict) or not all(isinstance(v, str) for v in listed.values()):
            raise ResourceError(f"{path}: damaged; remove it and {AGAIN}")
        return canonical_json({"packages": listed})
    try:
        return bytes(archive.read(out / BUNDLE).members[archive.ENVIRONMENT])
    except RecordError:
        return installed()


def task_of(record: Record) -> Task:
    """Return the task of a record, in this version; RecordError if its protocol differs."""
    task = load_task(record.task.name)
    if task.digest != record.task.digest:
        raise RecordError(
            f"{task.name}: the record is of another version of the task (digest "
            f"{record.task.digest[:12]}, here {task.digest[:12]}); evaluate again"
        )
    return task


def _of_task(folder: Path, record: Record) -> Iterator[tuple[str, bytes]]:
    bare = record.model_copy(update={"bundle": None})
    yield archive.RECORD, file_bytes(bare)
    task = task_of(record)
    for cell in record.cells:
        if cell.kind != "ticket" or cell.schedule != 1 or cell.status == "missing":
            continue
        rung = ticket_member.rung_name(cell.density)
        yield (
            f"tickets/seed{cell.seed}/{rung}.safetensors",
            _ticket(folder, task, cell.seed, cell.density),
        )
    answered, counted = _answered(folder, record)
    yield archive.ANSWERS, canonical_tensors.dumps({}, answered)
    yield archive.CURVES, canonical_tensors.dumps({}, counted)


def _ticket(folder: Path, task: Task, seed: int, density: float) -> bytes:
    header, masks, weights = ticket_files.read_ticket(folder / "tickets" / f"seed{seed}", density)
    stored = start_weights.stored_of(task, seed, header, masks, weights)
    return ticket_member.dumps(header, {name: mask.numpy() for name, mask in masks.items()}, stored)


def _answered(
    folder: Path, record: Record
) -> tuple[dict[str, NDArray[np.uint8]], dict[str, NDArray[np.int32]]]:
    """Return answers and curves of every run trained for this record, by the run's name."""
    found, curves = {}, {}
    runs = dict(archive.runs(record))
    for run in stored_runs(folder):
        if run.name not in runs:
            raise RecordError(f"{folder / ANSWERS}: {run.name} is no cell of the record; {AGAIN}")
        _, tensors = read_stored(folder, run)
        for part, correct in messages.under("correct", tensors).items():
            curves[f"{run.name}/{part}"] = correct.numpy().astype(np.int32)
        predictions = messages.under("predictions", tensors)
        if "test" in predictions:
            found[run.name] = predictions["test"].numpy()
        elif runs[run.name].status == "ok":
            raise RecordError(f"{folder}: {run.name} was stored without its answers; {AGAIN}")
    return found, curves
