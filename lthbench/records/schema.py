"""The record of one method on one task: strict schema, canonical JSON, checked on every read.

Importing this needs no torch: a record is validated in well under a second.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from lthbench.errors import RecordError
from lthbench.io.paths import canonical_json, digest, write_whole
from lthbench.io.untrusted import difference, shown
from lthbench.protocol.design import Place, TargetPlace
from lthbench.protocol.task import PUBLISHED, Controls, Schedule, Strict, Task
from lthbench.records import aggregate
from lthbench.records.scores import Scores, parse, tabulate

SCHEMA = 2
SIZE_LIMIT = 2 * 2**20  # maximum bytes of a record
SEEDS, RUNGS = 1000, 100  # maxima: computation on a file must terminate
KEYS, TOLD = 50_000, 1000  # maxima: keys of a record, errors that are examined
BUNDLE_LIMIT = 256 * 2**20  # maximum bytes of a bundle
Sketch = Annotated[str, Field(pattern=r"^[A-Za-z0-9+/]{64}$")]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(max_length=400)]
Short = Annotated[str, Field(max_length=120)]
Url = Annotated[str, Field(max_length=400, pattern=r"^https://[A-Za-z0-9][!#-;=?-Z_a-z~%]*$")]
Density = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(gt=0, le=10**12)]
Natural = Annotated[int, Field(ge=0, le=10**12)]
Quantity = Annotated[float, Field(ge=0, le=1e12)]  # finite in sums
Flops = Annotated[int, Field(ge=0, le=10**24)]
Item = TypeVar("Item")
# JSON lists become tuples; validation stops at the first invalid item.
Row = Annotated[tuple[Item, ...], Field(strict=False, fail_fast=True)]
Kind = Literal[
    "dense", "ticket", "shuffled", "reinit", "reinit-signs", "random", "erk",
    "untrained", "untrained_random",  # scored without training
]  # fmt: skip


def _without_nothing(self: Any, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
    table: dict[str, Any] = handler(self)
    late = (
        *("transfer", "noise", "noise_at", "bundle", "controls", "environments"),
        *("own", "arrivals"),
    )
    return {k: v for k, v in table.items() if k not in late or v is not None}


class MayTransfer(Strict):
    """A table whose newer keys are omitted where None, since older files lack them."""

    _without_nothing = model_serializer(mode="wrap")(_without_nothing)


class Table(BaseModel):
    """As strict as `Strict`, and parsed entirely by pydantic's own parser, which is fast."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class MethodEntry(Table):
    """The method, by its source's digest and its options."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,60}$")]
    digest: Hex
    options: dict[str, bool | int | float | str]
    described: dict[str, Text]


class TaskEntry(Table):
    """The protocol that was followed, and the constants the scores need."""

    name: Short
    version: Count
    digest: Hex
    kind: Literal["accuracy", "area"]
    schedule: Schedule
    chance: float
    threshold: float
    steps: Count
    every: Count
    seeds: Count = PUBLISHED
    weights: Count  # N, the prunable weights
    ladder: Annotated[tuple[Density, ...], Field(max_length=RUNGS, strict=False, fail_fast=True)]

    @classmethod
    def of(cls, task: Task, weights: int, *, untrained: bool) -> TaskEntry:
        """Return the entry of a task; untrained tickets have a ladder of their own."""
        return cls(
            name=task.name,
            version=task.version,
            digest=task.digest,
            kind=task.score.kind,
            schedule=task.recipe.schedule,
            chance=task.chance,
            threshold=task.score.threshold,
            steps=task.recipe.steps,
            every=task.score.every,
            seeds=task.seeds,
            weights=weights,
            ladder=task.ladder.untrained if untrained else task.ladder.trained,
        )

    @property
    def published(self) -> range:
        """The seeds that a ranked entry has."""
        return range(self.seeds)

    @model_serializer(mode="wrap")
    def _without_default(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit the default number of seeds, as older files do."""
        table: dict[str, Any] = handler(self)
        return {key: value for key, value in table.items() if (key, value) != ("seeds", PUBLISHED)}


class FailedDraw(Table):
    """A draw of a control before the cell's own, whose training diverged: masks and start."""

    masks: Hex
    weights: Hex


class Run(Table):
    """One training: which network, and its correct answers on each set along the grid.

    A file leaves out what is as usual, that is, what has a value here.

    Attributes:
        schedule: the whole schedule in 1/n of the steps.
        effective, effective_nodes: kept weights, and nodes, on a path from input to output
            (`networks.effective`); tickets only.
        flops_inference: operations of one example's forward pass through the masked network
            (`networks.sparse_flops`); None of a run from before these were counted, whose training
            part was not counted at the end either, and of a missing one.
        flops_training: of the whole training: 3 * inference * examples of a step * steps.
        distance: ||theta_T - theta_start||_2 over the kept prunable weights, in six digits; None
            also where no end was reached.
        layers: kept weights of each tensor; tickets only.
        sketch: of a ticket's masks (`sketch.sketch`); tickets only, older records have none.
        correct: correct answers by set; "train" is whole where a score reads it, else the last.
        attempt, failed_draws: how often a control was drawn before, because it diverged, and what
            those draws were.
        own_shuffle: tensors that are their own shuffle.
    """

    seed: Natural
    density: Density
    schedule: Literal[1, 2, 4, 8] = 1
    requested: Natural
    kept: Natural
    effective: Natural | None = None
    effective_nodes: Natural | None = None
    flops_inference: Flops | None = None
    flops_training: Flops | None = None
    distance: Quantity | None = None
    layers: dict[Short, Natural] = {}
    masks: Hex | None = None
    sketch: Sketch | None = None
    weights: Hex
    origin: Literal[
        "init", "rewind", "signs", "scaled", "transferred", "final", "free", "pretrained"
    ] = "init"
    start: Natural = 0
    division: Literal["init", "rewind", "open", "reference"] = "init"
    correct: dict[Short, Row[int]]
    status: Literal["ok", "diverged", "failed", "missing"] = "ok"
    reason: Text = ""
    attempt: Natural = 0
    failed_draws: Row[FailedDraw] = ()
    own_shuffle: Row[Short] = ()

    @model_serializer(mode="wrap")
    def _without_late(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Omit newer keys if empty: references identify older records by digests without them."""
        table: dict[str, Any] = handler(self)
        for key in ("sketch", "failed_draws"):
            if not table.get(key):
                table.pop(key, None)
        return table


class Cell(Run):
    """A training at the task's own depth."""

    kind: Kind

    @property
    def place(self) -> Place:
        """What identifies it in a record."""
        return Place(self.kind, self.density, self.seed, self.schedule)


class Carried(Run):
    """A training at a depth that tickets are carried to; `source` is their origin there."""

    kind: Literal["carried", "erk", "direct", "layers", "mask-only", "weights-only"]
    depth: Count
    source: Literal["", "init", "rewind", "signs", "scaled", "transferred", "final", "free"] = ""

    @property
    def place(self) -> TargetPlace:
        """What identifies it in a record."""
        return TargetPlace(self.kind, self.depth, self.density, self.seed)


class TransferEntry(Table):
    """What became of the tickets at the task's neighbouring depths.

    Attributes:
        source, targets, densities: the depths, and the rungs that were carried.
        rule: whether the method's own `transfer_ticket` carried them.
        reason: why no ticket could be carried; "" if they were.
        sizes: N, the prunable weights, at each target.
    """

    source: Count
    targets: Annotated[tuple[Count, ...], Field(max_length=8, strict=False, fail_fast=True)]
    densities: Annotated[tuple[Density, ...], Field(max_length=8, strict=False, fail_fast=True)]
    rule: Literal["elastic", "own"]
    reason: Text
    sizes: dict[str, Count]
    cells: Row[Carried]


class OwnWork(Table):
    """What a search's own process did, on the machine that it ran on.

    Attributes:
        seconds: of processor time, from when the method was loaded.
        pace: seconds of a step of training there (`lthbench.method.pace`).
        steps: that loops and drawn examples were charged for.
    """

    seconds: Quantity
    pace: float = Field(gt=0)
    steps: Quantity


class SearchEntry(Table):
    """What one seed's search came to; `own` is None of a record from before it was measured."""

    seed: Natural
    status: Literal["ok", "failed"]
    reason: Text
    cost: Quantity
    own: OwnWork | None = None

    _without_nothing = model_serializer(mode="wrap")(_without_nothing)


class Arrival(Table):
    """A ticket with weights of its own, as it is before its training (`records.pretrained`).

    Attributes:
        right: right answers on the held-out part.
        alike: the largest correlation with another seed's weights; None where none has as many in
            common with it as that takes.
    """

    seed: Natural
    density: Density
    right: Natural
    alike: Annotated[float, Field(ge=-1, le=1)] | None = None


class Frozen(Table):
    """The values of the frozen reference that the scores use, for the set that is shown."""

    digest: Hex
    provisional: bool
    dense: Row[float]  # one score a seed; D is their mean
    margin: float
    loss_random: Row[float]  # points, one a seed
    transfer: dict[str, dict[Literal["erk", "imp"], Row[float]]] | None = None

    _without_nothing = model_serializer(mode="wrap")(_without_nothing)


class BundleEntry(Table):
    """Where the bundle of a submission lies, and how it is known again."""

    sha256: Hex
    size: Annotated[int, Field(gt=0, le=BUNDLE_LIMIT)]  # bytes
    urls: Annotated[tuple[Url, ...], Field(max_length=4, strict=False, fail_fast=True)]


class Record(Table):
    """One method on one task: every cell, and the aggregates that follow from them.

    Attributes:
        environment: where the first seed was evaluated.
        environments: the same of each seed that was evaluated elsewhere; None if none was.
    """

    schema_version: Literal[2]
    method: MethodEntry
    task: TaskEntry
    final: bool
    shown: Literal["held_out", "test"]
    seeds: Annotated[tuple[Natural, ...], Field(max_length=SEEDS, strict=False, fail_fast=True)]
    controls: Controls
    fingerprints: dict[str, Hex]
    sizes: dict[str, dict[str, Count]]  # examples of each set, by seed
    cells: Row[Cell]
    searches: Row[SearchEntry]
    arrivals: Row[Arrival] | None = None  # of tickets with weights of their own, if there are any
    transfer: TransferEntry | None = None
    reference: Frozen | None
    aggregates: dict[str, Any]  # the tables of `scores`, as in the file
    scorer: int
    environment: dict[str, Short]
    environments: dict[str, dict[str, Short]] | None = None
    times: dict[str, float | Short]
    bundle: BundleEntry | None = None

    _without_nothing = model_serializer(mode="wrap")(_without_nothing)

    @model_validator(mode="after")
    def _adds_up(self) -> Record:
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed is there twice")
        places = {cell.place for cell in self.cells}
        if len(places) < len(self.cells):
            raise ValueError("a cell is there twice")
        if self.environments is not None:
            self._check_environments(self.environments)
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

    @cached_property
    def scores(self) -> Scores:
        """What follows from its cells; RecordError if the file's tables are not scores."""
        try:
            return parse(self.aggregates)
        except ValidationError as error:
            place = ".".join(str(part) for part in error.errors()[0]["loc"])
            raise RecordError(
                f"aggregates.{shown(place)}: missing, or not a score; evaluate again"
            ) from error

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Record:
        """Copy the record, and read its scores anew."""
        copy = super().model_copy(update=update, deep=deep)
        copy.__dict__.pop("scores", None)
        return copy

    def environment_of(self, seed: int) -> dict[str, Short]:
        """Return where a seed was evaluated: class of processor, versions, device."""
        return (self.environments or {}).get(str(seed), self.environment)

    def _check_environments(self, told: Mapping[str, Mapping[str, str]]) -> None:
        """Require a unique form: the first seed's is `environment`, others differ from it."""
        strange = sorted(told.keys() - {str(seed) for seed in self.seeds[1:]})
        if strange or not told:
            raise ValueError(
                f"environments: of {shown(strange[0], 20) if strange else 'no seed'}; tells of "
                "seeds of the record after the first alone"
            )
        if self.environment in told.values():
            raise ValueError("environments: one is the record's own environment; leave it out")

    def _fits(self, run: Run, kind: str, weights: int) -> None:
        if run.seed not in self.seeds:
            raise ValueError(f"a cell has seed {run.seed}, which is none of the record's")
        sizes = self.sizes.get(str(run.seed), {})
        for part, counts in run.correct.items():
            if part not in sizes or (counts and (min(counts) < 0 or max(counts) > sizes[part])):
                raise ValueError(f"seed {run.seed} {kind}: counts exceed the set {part}")
        if run.requested != round(run.density * weights):
            raise ValueError(f"seed {run.seed} {kind}: requested is not density * N")
        of = run.source if isinstance(run, Carried) else ""
        if run.division != aggregate.division(of or run.origin, run.start):
            raise ValueError(
                f"seed {run.seed} {kind}: its division does not follow from its origin"
            )
        if not 0 <= (run.effective or 0) <= run.kept <= weights:
            raise ValueError(f"seed {run.seed} {kind}: kept or effective is out of range")
        if (run.effective_nodes or 0) > (run.effective or 0):
            raise ValueError(f"seed {run.seed} {kind}: more effective nodes than weights")


def build(table: Mapping[str, Any]) -> Record:
    """Build a record from everything but its aggregates, which are computed here."""
    whole = {**table, "schema_version": SCHEMA, "scorer": 0, "aggregates": {}}
    return score(Record.model_validate(whole))


def score(record: Record) -> Record:
    """Return the record with scores that follow from its cells."""
    table = tabulate(aggregate.aggregate(record))
    return record.model_copy(update={"aggregates": table, "scorer": aggregate.VERSION})


def file_bytes(table: BaseModel) -> bytes:
    """Return the bytes of a record's or reference's file: canonical JSON without default values."""
    return canonical_json(table.model_dump(mode="json", exclude_defaults=True))


def comparable(record: Record) -> bytes:
    """Return what must be equal in two runs of the same thing, excluding machine and timing."""
    machine: Any = dict.fromkeys(("environment", "environments", "times"), True)
    machine["searches"] = {"__all__": {"own"}}
    return canonical_json(record.model_dump(mode="json", exclude=machine))


def record_digest(record: Record) -> str:
    """Return the sha256 of the record's file."""
    return digest(file_bytes(record))


def write_record(path: Path, record: Record) -> None:
    """Write a record's file atomically."""
    write_whole(path, file_bytes(record))


def read_record(path: Path) -> Record:
    """Read a record from disk, check its schema and recompute its aggregates.

    Raises:
        RecordError: If anything is invalid, or a number was edited by hand; names the place.
    """
    record = parse_record(read_bytes(path), path)
    check_aggregates(record, path)
    return record


def read_bytes(path: Path) -> bytes:
    """Read a record's file; RecordError if it is not a regular file, or too large."""
    try:
        status = path.stat()  # before opening: a named pipe would block forever
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise RecordError(f"{path}: not an ordinary file; name a record's file")
        with path.open("rb") as file:
            data = file.read(SIZE_LIMIT + 1) if status.st_size <= SIZE_LIMIT else b""
    except OSError as error:
        raise RecordError(f"{path}: {error.strerror}; run `lthbench evaluate` first") from error
    if max(status.st_size, len(data)) > SIZE_LIMIT:
        raise RecordError(f"{path}: larger than {SIZE_LIMIT >> 20} MB; this is no record")
    return data


def parse_record(data: bytes, path: Path) -> Record:
    """Parse a record from JSON, checking only its schema; `path` is its name in errors."""
    if data.count(b":") > KEYS:  # each key could be an error, and each error takes kilobytes
        raise RecordError(f"{path}: more than {KEYS} keys; this is no record")
    try:
        return Record.model_validate_json(data)
    except ValidationError as error:
        if error.error_count() > TOLD:
            raise RecordError(f"{path}: not a record: hardly anything in it fits") from None
        first = error.errors(include_url=False, include_input=False)[0]
        said = first["msg"].removeprefix("Value error, ")
        if first["type"] == "json_invalid":
            raise RecordError(f"{path}: not a record: {said[:80]}") from error
        place = ".".join(str(part) for part in first["loc"]) or "record"
        raise RecordError(f"{path}: {shown(place, 120)}: {shown(said, 200)}") from error
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise RecordError(f"{path}: not a record: {str(error)[:80]}") from error


def read_records(out: Path) -> list[Record]:
    """Read every record of an evaluation's folder, by task; or the single record of a file."""
    paths = [out] if out.is_file() else sorted(out.glob("*/record.json"))
    if not paths:
        raise RecordError(f"{out}: no records here; run `lthbench evaluate` or name its --out")
    return [read_record(path) for path in paths]


def check_aggregates(record: Record, path: Path) -> None:
    """Recompute a record's aggregates; `path` is its name in errors.

    Raises:
        RecordError: If an aggregate does not follow; names the first such.
    """
    if record.scorer != aggregate.VERSION:
        raise RecordError(
            f"{path}: scored by version {record.scorer}, this is {aggregate.VERSION}; "
            "evaluate again"
        )
    try:
        computed = tabulate(aggregate.aggregate(record))
    except (ValueError, KeyError, IndexError, TypeError, ArithmeticError) as error:
        raise RecordError(f"{path}: aggregates cannot be computed: {shown(str(error))}") from error
    if where := difference(computed, record.aggregates, "aggregates"):
        raise RecordError(
            f"{path}: {shown(where)} does not follow from the cells; "
            "the record was edited, evaluate again"
        )
