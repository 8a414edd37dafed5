"""Writes records and references anew when scorer or schema have changed.

`lthbench dev rescore PATH…`

A record holds every count, so its scores follow from it alone: nothing is trained, and the counts
stay as they are. Files of schema 1 become files of schema 2, in which what was not measured then is
null. A record is named by its digest, which changes with the scores. A reference that one of the
records was made into is made again first, and records are scored against it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from lthbench.errors import RecordError
from lthbench.io.paths import shipped, write_whole
from lthbench.protocol.task import load_task, task_names
from lthbench.records import reference
from lthbench.records.schema import (
    SCHEMA,
    Cell,
    Record,
    file_bytes,
    record_digest,
    score,
    write_record,
)
from lthbench.tools import freeze_reference


def read(path: Path) -> Record:
    """Read a record of any scorer, without checking its scores."""
    try:
        table = json.loads(path.read_bytes())
        if not isinstance(table, dict) or "cells" not in table:
            raise RecordError(f"{path}: not a record")
        return Record.model_validate({**table, "schema_version": SCHEMA})
    except (ValidationError, ValueError, OSError) as error:
        raise RecordError(f"{path}: not a record: {str(error).splitlines()[0]}") from error


def rescored(path: Path) -> Path:
    """Score one published record again, under its new name; the old file is removed last."""
    record = read(path)
    frozen = _reference(record)
    if record.reference is not None and frozen is not None:
        record = record.model_copy(update={"reference": frozen.frozen(record.shown)})
    record = score(record)
    new = path.with_name(f"{record.method.name}--{record_digest(record)[:8]}.json")
    write_record(new, record)
    if new != path:
        path.unlink()
    return new


def references(paths: Iterable[Path]) -> list[Path]:
    """Rebuild the references that were made from one of these records; return their files."""
    written = []
    for path in paths:
        record = read(path)
        whole = record.method.name == "imp" and record.controls == "all"
        old = _reference(record) if whole else None
        if old is not None and _starts(old.dense) == _starts(record.cells):
            new = freeze_reference.build(score(record), old.noise, old.noise_at)
            place = shipped("leaderboard") / "reference" / f"{record.task.name}.json"
            write_whole(place, file_bytes(new))
            written.append(place)
    return written


def _reference(record: Record) -> reference.Reference | None:
    """Return the present reference of a record's own protocol."""
    task = load_task(record.task.name) if record.task.name in task_names() else None
    same = task is not None and task.digest == record.task.digest
    return reference.load_reference(task) if task is not None and same else None


def _starts(cells: Iterable[Cell]) -> list[tuple[int, str, Mapping[str, Sequence[int]]]]:
    """Return what distinguishes dense runs of one record from those of another."""
    return [(c.seed, c.weights, c.correct) for c in cells if (c.kind, c.schedule) == ("dense", 1)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Score every record that is named, and print where it went."""
    parser = argparse.ArgumentParser(prog="lthbench dev rescore", description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    paths = parser.parse_args(arguments).paths
    for path in references(paths):
        print(path)
    for path in paths:
        print(f"{path} -> {rescored(path).name}")
