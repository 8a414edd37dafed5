"""Saved evidence: one JSON file per pair of entries and task, recomputed when read.

A file holds the measurements (tables of overlaps by pair of seeds, differences by seed) and
everything that follows from them. Reading recomputes the latter and rejects edited numbers.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import ValidationError

from lthbench.errors import RecordError
from lthbench.io.paths import canonical_json, shipped, write_whole
from lthbench.io.untrusted import difference
from lthbench.leaderboard.analysis import schema, verdicts
from lthbench.leaderboard.analysis.schema import Saved, Side
from lthbench.leaderboard.analysis.verdicts import Estimate

SIZE_LIMIT = 2**20  # maximum bytes of a file


def folder() -> Path:
    """Return the folder of saved evidence."""
    return shipped("leaderboard") / "evidence"


def write(saved: Saved, home: Path) -> Path:
    """Write one file atomically and return its path."""
    path = home / saved.file
    write_whole(path, canonical_json(saved.model_dump(mode="json")))
    return path


def load(home: Path | None = None) -> tuple[Saved, ...]:
    """Read all saved evidence, by task and then by the names of the pair; empty without a folder.

    Raises:
        RecordError: If something does not fit; names the file and the place in it.
    """
    home = folder() if home is None else home
    return tuple(read(path) for path in sorted(home.glob("*/*.json")))


def read(path: Path) -> Saved:
    """Read one file; check its form, its path, and that every figure follows from the measurements.

    Raises:
        RecordError: If something does not fit; names the file and the place in it.
    """
    again = "save it again with `lthbench evidence A B --save`"
    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise RecordError(f"{path}: larger than {SIZE_LIMIT >> 20} MB; this is no evidence")
        data = path.read_bytes()
        table = json.loads(data)
        if canonical_json(table) != data:
            raise RecordError(f"{path}: not in canonical form; {again}")
        saved = Saved.model_validate(table)
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}; {again}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "evidence"
        raise RecordError(f"{path}: {ascii(place)[1:-1][:80]}: {first['msg']}; {again}") from error
    except (ValueError, RecursionError) as error:
        raise RecordError(f"{path}: not evidence: {ascii(str(error))[1:80]}; {again}") from error
    if saved.rules != verdicts.RULES_VERSION:
        now = verdicts.RULES_VERSION
        raise RecordError(f"{path}: judged by rules {saved.rules}, these are {now}; {again}")
    if saved.a.id >= saved.b.id or path.parts[-2:] != saved.file.parts:
        raise RecordError(f"{path}: a file of {saved.file} does not lie here; {again}")
    _check(path, saved, again)
    return saved


def _check(path: Path, saved: Saved, again: str) -> None:
    """Recompute what follows from the tables and the values by seed."""
    try:
        computed = _again(saved).model_dump(mode="json")
    except (ValueError, ArithmeticError, IndexError) as error:
        said = ascii(str(error).splitlines()[0])[1:80] if str(error) else type(error).__name__
        raise RecordError(f"{path}: its figures cannot be computed: {said}; {again}") from error
    if where := difference(computed, saved.model_dump(mode="json"), "evidence"):
        raise RecordError(f"{path}: {where} does not follow from what was measured; {again}")


def _again(saved: Saved) -> Saved:
    for rung in saved.rungs:
        n = len(rung.seeds)
        tables = [table for table in (rung.table, rung.matched_table) if table is not None]
        square = all(len(table) == n and {*map(len, table)} <= {n} for table in tables)
        if not n or not square or len(rung.same_start) != n:
            raise ValueError(f"density {rung.density}: not one value for each of its seeds")
    rungs = [
        schema.rung_of(
            rung.density,
            rung.seeds,
            rung.table,
            rung.matched_table,
            rung.same_start,
            _rebuilt(rung.profile),
            rung.layers,
        )
        for rung in saved.rungs
    ]
    sides = _side(saved.a), _side(saved.b)
    return schema.build(
        saved.task,
        saved.task_digest,
        sides,
        saved.seeds,
        saved.matching,
        rungs,
        saved.not_measured,
    )


def _side(side: Side) -> Side:
    names = ("untrained", "shuffled", "reinit")
    return side.model_copy(update={name: _rebuilt(getattr(side, name)) for name in names})


def _rebuilt(found: Estimate | None) -> Estimate | None:
    return None if found is None else verdicts.estimate(found.values)
