"""Writes records anew when the scorer has changed: `python -m lthbench.rescore PATH…`.

A record holds every count, so its scores follow from it alone: nothing is trained, and the counts
stay as they are. Files are named by their digest, which changes with the scores.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from lthbench.errors import RecordError
from lthbench.record import build, record_digest, write_record


def rescored(path: Path) -> Path:
    """Score one published record again, under its new name; the old file is removed last."""
    table = json.loads(path.read_bytes())
    if not isinstance(table, dict) or "cells" not in table:
        raise RecordError(f"{path}: not a record")
    record = build({k: v for k, v in table.items() if k not in ("aggregates", "scorer")})
    new = path.with_name(f"{record.method.name}--{record_digest(record)[:8]}.json")
    write_record(new, record)
    if new != path:
        path.unlink()
    return new


def main(arguments: Sequence[str] | None = None) -> None:
    """Score every record that is named, and print where it went."""
    parser = argparse.ArgumentParser(prog="python -m lthbench.rescore", description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    for path in parser.parse_args(arguments).paths:
        print(f"{path} -> {rescored(path).name}")


if __name__ == "__main__":
    main()
