"""The files that an evaluation leaves in its folder, and how they are read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lthbench.errors import RecordError, ResourceError, UsageError
from lthbench.io import messages
from lthbench.io.paths import cache, canonical_json, write_whole
from lthbench.io.store import Store
from lthbench.protocol.constants import METHOD_FILE, SHARED

KEY = re.compile(r"[0-9a-f]{64}")  # of a stored result
AGAIN = "run the same `lthbench evaluate` command again"
SOURCE = METHOD_FILE  # OUT/…: the method, as it was evaluated
CLAIM = "evaluation.json"  # OUT/…: whose results the folder holds
TRAINED = "task.json"  # OUT/<task>/…: which protocol, and what its cells were trained on
ANSWERS = "answers.json"  # OUT/<task>/…: where the answers of each cell are stored


@dataclass(frozen=True)
class Claim:
    """Whose results a folder holds: one method, its options, one kind of seeds.

    Attributes:
        method: digest of its source.
    """

    name: str
    method: str
    options: Mapping[str, bool | int | float | str]
    final: bool

    def difference(self, other: Claim) -> str:
        """Return the name of the first value that differs; "" if none does."""
        mine, theirs = vars(self), vars(other)
        return next((name for name in mine if mine[name] != theirs[name]), "")


def read_claim(out: Path) -> Claim:
    """Read whose results a folder holds."""
    path = out / CLAIM
    if not path.is_file():
        raise UsageError(f"{out}: no evaluation; name the folder that `lthbench evaluate` left")
    try:
        return Claim(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise RecordError(f"{path}: damaged; remove {out} and {AGAIN}") from error


def write_claim(out: Path, claim: Claim) -> None:
    """Write whose results a folder holds."""
    write_whole(out / CLAIM, canonical_json(vars(claim)))


@dataclass(frozen=True)
class StoredRun:
    """A run whose answers are stored.

    Attributes:
        part: "cells", or "carried" for those at other depths.
        where: its schedule, or its depth.
        key: of the stored result.
    """

    part: Literal["cells", "carried"]
    kind: str
    density: float
    seed: int
    where: int
    key: str

    @property
    def name(self) -> str:
        """Its name in a bundle."""
        prefix = "carried-" if self.part == "carried" else ""
        return f"{prefix}{self.kind}/{self.density!r}/{self.seed}/{self.where}"


def write_answers(folder: Path, runs: Iterable[StoredRun]) -> None:
    """Write into OUT/<task> where the answers of its runs are stored; a record does not say."""
    told: dict[str, list[list[str | int | float]]] = {"cells": [], "carried": []}
    for run in runs:
        told[run.part].append([run.kind, run.density, run.seed, run.where, run.key])
    write_whole(folder / ANSWERS, canonical_json(told))


def stored_runs(folder: Path) -> Iterator[StoredRun]:
    """Yield every run of OUT/<task> whose result is stored.

    Raises:
        RecordError: if the evaluation is not finished.
        ResourceError: for a damaged file.
    """
    path = folder / ANSWERS
    table = read_json(path)
    parts: tuple[Literal["cells", "carried"], ...] = ("cells", "carried")
    try:
        for part in parts:
            for kind, density, seed, where, key in table[part]:
                if not KEY.fullmatch(key):
                    raise ValueError(f"{key!r} is no key")
                yield StoredRun(part, kind, density, seed, where, key)
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
