"""The files that an evaluation leaves in its folder, and how they are read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lthbench.errors import RecordError, ResourceError, UsageError
from lthbench.evaluation.scoring import SHARED
from lthbench.io import messages
from lthbench.io.paths import cache, write_whole
from lthbench.io.store import Store

KEY = re.compile(r"[0-9a-f]{64}")  # of a stored result
AGAIN = "run the same `lthbench evaluate` command again"
SOURCE = "method.py"  # OUT/…: the method, as it was evaluated
CLAIM = "evaluation.json"  # OUT/…: whose results the folder holds
TRAINED = "task.json"  # OUT/<task>/…: which protocol, and what its cells were trained on
ANSWERS = "answers.json"  # OUT/<task>/…: where the answers of each cell are stored


@dataclass(frozen=True)
class StoredRun:
    """A run whose answers are stored: its name in a bundle, its row in answers.json.

    Attributes:
        part: "cells", or "carried" for those at other depths.
        row: kind, density, seed, schedule or depth, key.
    """

    name: str
    part: str
    row: tuple[Any, ...]

    @property
    def kind(self) -> str:
        """The kind of cell."""
        return str(self.row[0])

    @property
    def key(self) -> str:
        """The key of the stored result."""
        return str(self.row[-1])


def claim(out: Path) -> dict[str, Any]:
    """Read whose results a folder holds: name, method, options, final."""
    path = out / CLAIM
    if not path.is_file():
        raise UsageError(f"{out}: no evaluation; name the folder that `lthbench evaluate` left")
    try:
        told = json.loads(path.read_bytes())
        if told.keys() == {"name", "method", "options", "final"}:
            return dict(told)
    except (OSError, ValueError, AttributeError):
        pass
    raise RecordError(f"{path}: damaged; remove {out} and {AGAIN}")


def stored_runs(folder: Path) -> Iterator[StoredRun]:
    """Yield every run of OUT/<task> whose result is stored.

    Raises:
        RecordError: if the evaluation is not finished.
        ResourceError: for a damaged file.
    """
    path = folder / ANSWERS
    table = read_json(path)
    try:
        for part, prefix in (("cells", ""), ("carried", "carried-")):
            for row in table[part]:
                kind, density, seed, where, key = row
                if not KEY.fullmatch(key):
                    raise ValueError(f"{key!r} is no key")
                yield StoredRun(f"{prefix}{kind}/{density!r}/{seed}/{where}", part, tuple(row))
    except (ValueError, TypeError, KeyError) as error:
        raise ResourceError(f"{path}: damaged; remove it and {AGAIN}") from error


def gather(folder: Path) -> None:
    """Copy into OUT/<task> the runs that the cache holds, which methods share.

    Then the folder is complete, on another machine and after the cache is gone.
    """
    for run in stored_runs(folder):
        place = _place(folder, run)
        if place.parent != folder / "cells":
            write_whole(folder / "cells" / place.name, stored_bytes(folder, run))


def read_stored(folder: Path, run: StoredRun) -> messages.Message:
    """Read a run's stored result."""
    place = _place(folder, run)
    stored = Store(place.parent).get(run.key)
    if stored is None:
        raise RecordError(f"{place}: gone, with its answers; {AGAIN}")
    return stored


def read_json(path: Path) -> Mapping[str, Any]:
    """Read a JSON file; RecordError or ResourceError names it."""
    try:
        table = json.loads(read_bytes(path))
    except ValueError as error:
        raise ResourceError(f"{path}: damaged; remove it and {AGAIN}") from error
    if not isinstance(table, dict):
        raise ResourceError(f"{path}: damaged; remove it and {AGAIN}")
    return table


def read_bytes(path: Path) -> bytes:
    """Read a file; RecordError or ResourceError names it."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise RecordError(
            f"{path}: not there; the evaluation is not finished, or older than bundles: {AGAIN}"
        ) from error
    except OSError as error:
        raise ResourceError(f"{path}: {error.strerror}; make it readable") from error


def stored_bytes(folder: Path, run: StoredRun) -> bytes:
    """Return a run's stored result as bytes; RecordError if it is gone."""
    place = _place(folder, run)
    try:
        return place.read_bytes()
    except FileNotFoundError as error:
        raise RecordError(f"{place}: gone, with its answers; {AGAIN}") from error


def _place(folder: Path, run: StoredRun) -> Path:
    """Return where a run's result is: beside the tickets, or in the cache if methods share it."""
    own = Store(folder / "cells").path(run.key)
    if run.kind not in SHARED or own.is_file():
        return own
    shared = cache() / "cells" / str(trained_by(folder).get("arithmetic"))
    return Store(shared).path(run.key)


def trained_by(folder: Path) -> Mapping[str, Any]:
    """Return the protocol of the cells of OUT/<task>, and what they were trained on."""
    return read_json(folder / TRAINED)
