"""Writes records anew when the scorer has changed: `python -m lthbench.rescore PATH…`.

A record holds every count, so its scores follow from it alone: nothing is trained, and the counts
stay as they are. Files are named by their digest, which changes with the scores. A reference that
one of the records was made into is made again first, and records are scored against it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lthbench import reference
from lthbench.errors import RecordError
from lthbench.paths import canonical_json, shipped, write_whole
from lthbench.record import Record, build, record_digest, write_record
from lthbench.task import load_task, task_names


def read(path: Path) -> dict[str, Any]:
    """A record's table without what is computed of it."""
    table = json.loads(path.read_bytes())
    if not isinstance(table, dict) or "cells" not in table:
        raise RecordError(f"{path}: not a record")
    return {key: value for key, value in table.items() if key not in ("aggregates", "scorer")}


def rescored(path: Path) -> Path:
    """Score one published record again, under its new name; the old file is removed last."""
    table = read(path)
    frozen = _reference(table)
    if table["reference"] is not None and frozen is not None:
        table["reference"] = frozen.frozen(table["shown"]).model_dump(mode="json")
    record = build(table)
    new = path.with_name(f"{record.method.name}--{record_digest(record)[:8]}.json")
    write_record(new, record)
    if new != path:
        path.unlink()
    return new


def references(paths: Iterable[Path]) -> list[Path]:
    """Make those references again that were made from one of these records; returns their files."""
    written = []
    for path in paths:
        table = read(path)
        old = _reference(table) if table["method"]["name"] == "imp" else None
        if old is not None and old.dense == _dense(record := build(table)):
            new = reference.build(record, dict(old.noise) if old.noise else None)  # type: ignore[arg-type]
            place = shipped("leaderboard") / "reference" / f"{record.task.name}.json"
            write_whole(place, canonical_json(new.model_dump(mode="json")))
            written.append(place)
    return written


def _reference(table: Mapping[str, Any]) -> reference.Reference | None:
    """The present reference of a record's own protocol."""
    name = table["task"]["name"]
    task = load_task(name) if name in task_names() else None
    same = task is not None and task.digest == table["task"]["digest"]
    return reference.load_reference(task) if task is not None and same else None


def _dense(record: Record) -> tuple[Any, ...]:
    return tuple(cell for cell in record.cells if cell.kind == "dense" and cell.schedule == 1)


def main() -> None:
    """Score every record that is named, and print where it went."""
    parser = argparse.ArgumentParser(prog="python -m lthbench.rescore", description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    paths = parser.parse_args().paths
    for path in references(paths):
        print(path)
    for path in paths:
        print(f"{path} -> {rescored(path).name}")


if __name__ == "__main__":
    main()
