"""Writes records and references anew when scorer or schema have changed.

`python -m lthbench.rescore PATH…`, references before the records that were scored by them.

A record holds every count, so its scores follow from it alone: nothing is trained, and the counts
stay as they are. Files of schema 1 become files of schema 2, in which what was not measured then
is null. Records are named by their digest, which changes with the scores.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from lthbench.errors import RecordError, TaskError
from lthbench.paths import write_whole
from lthbench.record import SCHEMA, Frozen, Record, build, file_bytes, record_digest, write_record
from lthbench.reference import Reference, load_reference
from lthbench.task import load_task

COMPUTED = {"aggregates", "scorer", "schema_version"}


def rescored(path: Path) -> Path:
    """Score one published record again, under its new name; the old file is removed last.

    A reference keeps its name, and its values.
    """
    try:
        table = json.loads(path.read_bytes())
        if isinstance(table, dict) and "dense" in table and "values" in table:
            reference = Reference.model_validate({**table, "schema_version": SCHEMA})
            write_whole(path, file_bytes(reference))
            return path
        if not isinstance(table, dict) or "cells" not in table:
            raise RecordError(f"{path}: neither a record nor a reference")
        # What a file leaves out as usual, the scorer reads.
        record = Record.model_validate({**table, "schema_version": SCHEMA})
    except (ValidationError, ValueError, OSError) as error:
        raise RecordError(f"{path}: not a record: {str(error).splitlines()[0]}") from error
    frozen = record.reference and _reference(record, record.reference)
    whole: Mapping[str, Any] = record.model_dump(mode="json", exclude=COMPUTED)
    record = build({**whole, "reference": frozen and frozen.model_dump(mode="json")})
    new = path.with_name(f"{record.method.name}--{record_digest(record)[:8]}.json")
    write_record(new, record)
    if new != path:
        path.unlink()
    return new


def _reference(record: Record, frozen: Frozen) -> Frozen:
    """The shipped reference by its present digest, where its values are the record's."""
    try:
        shipped = load_reference(load_task(record.task.name))
    except TaskError:  # of a task of somebody's own
        return frozen
    now = shipped.frozen(record.shown) if shipped else frozen
    return now if now.model_copy(update={"digest": frozen.digest}) == frozen else frozen


def main() -> None:
    """Score every record that is named, and print where it went."""
    parser = argparse.ArgumentParser(prog="python -m lthbench.rescore", description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    for path in parser.parse_args().paths:
        print(f"{path} -> {rescored(path).name}")


if __name__ == "__main__":
    main()
