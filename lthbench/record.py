"""The record of one method on one task: strict schema, canonical JSON, checked on every read.

Importing this needs no torch: a record is validated in well under a second.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from lthbench import scores
from lthbench.errors import RecordError
from lthbench.paths import canonical_json, digest, write_whole
from lthbench.task import Schedule, Strict

SCHEMA = 1
SIZE_LIMIT = 2 * 2**20  # bytes of a record that is read at all
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=400)]
Short = Annotated[str, Field(max_length=120)]
Density = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(gt=0, le=10**12)]
Kind = Literal[
    "dense", "ticket", "shuffled", "reinit", "random", "erk",
    "untrained", "untrained_random",  # read as they stand
]  # fmt: skip


class MayTransfer(Strict):
    """A table whose `transfer` and `noise` are left out where they are None: older files know
    neither."""

    @model_serializer(mode="wrap")
    def _without_nothing(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        table: dict[str, Any] = handler(self)
        late = ("transfer", "noise")
        return {k: v for k, v in table.items() if k not in late or v is not None}


class MethodEntry(Strict):
    """The method, by its source's digest and its options."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,60}$")]
    digest: Hex
    options: dict[str, bool | int | float | str]
    described: dict[str, Text]


class TaskEntry(Strict):
    """The protocol that was followed, and the constants the scores need."""

    name: Short
    version: int
    digest: Hex
    kind: Literal["accuracy", "generalisation"]
    schedule: Schedule
    chance: float
    threshold: float
    steps: Count
    every: Count
    weights: Count  # N, the prunable weights
    ladder: tuple[Density, ...]


class Run(Strict):
    """One training: which network, and its correct answers on each set along the grid."""

    seed: int
    density: Density
    schedule: Literal[1, 2, 4, 8]  # the whole schedule in 1/n of the steps
    requested: int
    kept: int
    effective: int | None
    layers: dict[str, int]  # kept weights of each tensor; tickets only
    masks: Hex | None
    weights: Hex
    origin: Literal["init", "rewind", "signs", "scaled", "transferred", "final", "free"]
    start: int = Field(ge=0)
    division: Literal["init", "rewind", "open", "reference"]
    correct: dict[str, tuple[int, ...]]
    status: Literal["ok", "diverged", "failed", "missing"]
    reason: Text
    attempt: int
    own_shuffle: tuple[str, ...]  # tensors that are their own shuffle


class Cell(Run):
    """A training at the task's own depth."""

    kind: Kind


class Carried(Run):
    """A training at a depth that tickets are carried to; `source` is their origin there."""

    kind: Literal["carried", "erk", "direct", "layers", "mask-only", "weights-only"]
    depth: Count
    source: Literal["", "init", "rewind", "signs", "scaled", "transferred", "final", "free"] = ""


class TransferEntry(Strict):
    """What became of the tickets at the task's neighbouring depths.

    Attributes:
        source, targets, densities: the depths, and the rungs that were carried.
        rule: whether the method's own `transfer_ticket` carried them.
        reason: why no ticket could be carried; "" if they were.
        sizes: N, the prunable weights, at each target.
    """

    source: Count
    targets: tuple[Count, ...]
    densities: tuple[Density, ...]
    rule: Literal["elastic", "own"]
    reason: Text
    sizes: dict[str, Count]
    cells: tuple[Carried, ...]


class SearchEntry(Strict):
    """What one seed's search came to."""

    seed: int
    status: Literal["ok", "failed"]
    reason: Text
    cost: float = Field(ge=0)


class Frozen(MayTransfer):
    """The values of the frozen reference that the scores use, for the set that is shown."""

    digest: Hex
    provisional: bool
    dense: tuple[float, ...]  # one score a seed; D is their mean
    margin: float
    loss_random: tuple[float, ...]  # points, one a seed
    transfer: dict[str, dict[Literal["erk", "imp"], tuple[float, ...]]] | None = None


class Record(MayTransfer):
    """One method on one task: every cell, and the aggregates that follow from them."""

    schema_version: Literal[1]
    method: MethodEntry
    task: TaskEntry
    final: bool
    shown: Literal["held_out", "test"]
    seeds: tuple[int, ...]
    controls: Literal["all", "one rung"]
    fingerprints: dict[str, Hex]
    sizes: dict[str, dict[str, Count]]  # examples of each set, by seed
    cells: tuple[Cell, ...]
    searches: tuple[SearchEntry, ...]
    transfer: TransferEntry | None = None
    reference: Frozen | None
    aggregates: dict[str, Any]
    scorer: int
    environment: dict[str, Short]
    times: dict[str, float | Short]

    @model_validator(mode="after")
    def _adds_up(self) -> Record:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is there twice")
        places = {(cell.kind, cell.density, cell.seed, cell.schedule) for cell in self.cells}
        if len(places) < len(self.cells):
            raise ValueError("a cell is there twice")
        for cell in self.cells:
            self._fits(cell, cell.kind, self.task.weights)
        moved = self.transfer
        if moved is None:
            return self
        for run in moved.cells:
            known = run.depth in moved.targets and str(run.depth) in moved.sizes
            if not known or run.density not in moved.densities:
                raise ValueError(f"seed {run.seed} {run.kind}: no place to carry tickets to")
            self._fits(run, run.kind, moved.sizes[str(run.depth)])
        return self

    def _fits(self, run: Run, kind: str, weights: int) -> None:
        if run.seed not in self.seeds:
            raise ValueError(f"a cell has seed {run.seed}, which is none of the record's")
        sizes = self.sizes.get(str(run.seed), {})
        for part, counts in run.correct.items():
            if part not in sizes or any(not 0 <= count <= sizes[part] for count in counts):
                raise ValueError(f"seed {run.seed} {kind}: counts exceed the set {part}")
        if run.requested != round(run.density * weights):
            raise ValueError(f"seed {run.seed} {kind}: requested is not density * N")
        of = run.source if isinstance(run, Carried) else ""
        if run.division != scores.division(of or run.origin, run.start):
            raise ValueError(
                f"seed {run.seed} {kind}: its division does not follow from its origin"
            )
        if not 0 <= (run.effective or 0) <= run.kept <= weights:
            raise ValueError(f"seed {run.seed} {kind}: kept or effective is out of range")


def build(table: Mapping[str, Any]) -> Record:
    """A record from everything but its aggregates, which are computed here."""
    whole = {**table, "schema_version": SCHEMA, "scorer": scores.VERSION}
    return Record.model_validate({**whole, "aggregates": scores.aggregate(whole)})


def comparable(record: Record) -> bytes:
    """What must be equal in two runs of the same thing: all but environment and times."""
    return canonical_json(record.model_dump(mode="json", exclude={"environment", "times"}))


def record_digest(record: Record) -> str:
    """sha256 of the whole canonical record."""
    return digest(canonical_json(record.model_dump(mode="json")))


def write_record(path: Path, record: Record) -> None:
    """Write the canonical JSON whole."""
    write_whole(path, canonical_json(record.model_dump(mode="json")))


def read_record(path: Path) -> Record:
    """A record from disk, its schema checked and its aggregates computed again.

    Raises:
        RecordError: naming the place, if anything does not fit, or a number was edited by hand.
    """
    import json

    try:
        if path.stat().st_size > SIZE_LIMIT:
            raise RecordError(f"{path}: larger than {SIZE_LIMIT >> 20} MB; this is no record")
        table = json.loads(path.read_bytes())
        record = Record.model_validate(table)
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}; run `lthbench evaluate` first") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "record"
        raise RecordError(
            f"{path}: {place}: {first['msg'].removeprefix('Value error, ')}"
        ) from error
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise RecordError(f"{path}: not a record: {str(error)[:80]}") from error
    _verify(path, record)
    return record


def read_records(out: Path) -> list[Record]:
    """Every record of an evaluation's folder, by task; or the one record that a file is."""
    paths = [out] if out.is_file() else sorted(out.glob("*/record.json"))
    if not paths:
        raise RecordError(f"{out}: no records here; run `lthbench evaluate` or name its --out")
    return [read_record(path) for path in paths]


def _verify(path: Path, record: Record) -> None:
    if record.scorer != scores.VERSION:
        raise RecordError(
            f"{path}: scored by version {record.scorer}, this is {scores.VERSION}; evaluate again"
        )
    try:
        computed = scores.aggregate(record.model_dump(mode="json"))
    except (ValueError, KeyError, IndexError, TypeError, ArithmeticError) as error:
        raise RecordError(f"{path}: aggregates cannot be computed: {str(error)[:80]}") from error
    if where := difference(computed, record.aggregates, "aggregates"):
        raise RecordError(
            f"{path}: {where} does not follow from the cells; the record was edited, evaluate again"
        )


def difference(a: Any, b: Any, place: str) -> str | None:
    """The first place where two trees differ by more than 1e-9; None if they agree."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if a.keys() != b.keys():
            return f"{place}.{min(set(a) ^ set(b))}"
        found = (difference(a[key], b[key], f"{place}.{key}") for key in a)
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return place
        found = (
            difference(x, y, f"{place}[{i}]") for i, (x, y) in enumerate(zip(a, b, strict=True))
        )
    elif isinstance(a, float) and isinstance(b, (int, float)) and not isinstance(b, bool):
        return None if math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9) else place
    else:
        return None if type(a) is type(b) and a == b else place
    return next((where for where in found if where), None)
