"""Tasks and suites: strict TOML parsed into frozen models, and their digests. No torch here."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from lthbench.errors import TaskError, nearest
from lthbench.io import file_names
from lthbench.io.paths import canonical_json, digest, shipped


def _no_percent(density: float) -> float:
    if density > 1:
        raise ValueError(f"a density is a fraction: for {density:g} % write {density / 100:.6g}")
    return density


Fraction = Annotated[float, Field(gt=0), AfterValidator(_no_percent)]
Count = Annotated[int, Field(gt=0)]
FILE_LIMIT = 2**20  # bytes of a task or suite file
PUBLISHED = 5  # seeds of a task that gives no other number
FREE = ("title", "calibration")  # keys of a task that are not part of its protocol
IMAGES = ("conv", "resnet", "vit")  # families with inputs of channels, height and width


class Strict(BaseModel):
    """A frozen table that rejects unknown keys and loosely typed values."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, table: Any) -> Any:
        """Convert lists to tuples: TOML and JSON have only lists, strict models want tuples."""
        return _tuples(table)

    def canonical(self) -> dict[str, Any]:
        """Return the values that digests are computed from.

        A key at its default is left out, so that a later version may add keys without changing any
        digest.
        """
        return self.model_dump(mode="json", exclude_defaults=True)


def _tuples(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _tuples(item) for key, item in value.items()}
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value


class Data(Strict):
    """Where examples come from and how they are split; see protocol, section 3."""

    source: Literal["digits", "mnist1d", "modular-addition", "mnist", "cifar10", "imagenette"]
    classes: Count
    held_out: int = Field(ge=0, default=0)  # examples; generated sources have a fraction, below
    held_out_fraction: float = Field(ge=0, lt=1, default=0.0)
    train_fraction: float = Field(ge=0, lt=1, default=0.0)
    modulus: int = Field(ge=0, default=0)
    folds: int = Field(ge=0, default=0)
    pool: Count = 1  # images are averaged over squares of this many pixels a side
    # A network sees value * scale + shift, one number or one per channel; tokens stay integers.
    scale: float | tuple[float, ...] = 1.0
    shift: float | tuple[float, ...] = 0.0
    # Of every array. If empty, those of the first preparation are cached and compared from then on,
    # which detects a changed file, but not a difference between machines.
    fingerprints: dict[str, str] = Field(default_factory=dict)


class Init(Strict):
    """The initial distribution of the tensors whose names match one of the patterns."""

    tensors: tuple[str, ...]
    distribution: Literal["glorot-normal", "kaiming-normal", "lecun-normal", "normal", "constant"]
    value: float = 0.0  # the constant, or the standard deviation of "normal"


class Network(Strict):
    """A dense network: its family, sizes, initial distributions and prunable tensors."""

    family: Literal["mlp", "pair-mlp", "transformer", "conv", "resnet", "vit"]
    depth: Count  # repeated units; for a resnet blocks in each stage
    inputs: Count  # features (for images channels * side**rank), or size of the vocabulary
    width: Count  # units of a hidden layer or the residual stream, or channels of the first stage
    neck: int = Field(ge=0, default=0)  # a last, narrower hidden layer; 0 for none
    embedding: int = Field(ge=0, default=0)
    heads: int = Field(ge=0, default=0)
    hidden: int = Field(ge=0, default=0)  # units of a transformer's MLP, or after convolutions
    rank: Literal[1, 2] = 2  # 1: signals, with one channel; 2: square images
    channels: int = Field(ge=0, default=0)  # of an image
    side: int = Field(ge=0, default=0)  # of a square image, in pixels, or of a signal, in points
    patch: int = Field(ge=0, default=0)  # side of a patch, in pixels or points
    stages: int = Field(ge=1, le=6, default=3)  # of a resnet, each twice as wide as the one before
    stem: int = Field(ge=1, default=3)  # side of a resnet's first kernel, an odd number
    classes: Count
    prunable: tuple[str, ...]
    init: tuple[Init, ...]

    def sides(self, length: int) -> tuple[int, int]:
        """Return the height and width of an input of this side; a signal has height 1."""
        return (length if self.rank == 2 else 1), length

    @model_validator(mode="after")
    def _image_fits(self) -> Network:
        """Check that the image divides evenly into patches or stages."""
        if self.family not in IMAGES:
            return self
        if self.inputs != self.channels * self.side**self.rank or not self.inputs:
            raise ValueError(f"inputs of family {self.family} must be channels * side**rank")
        if self.rank == 1 and (self.family == "conv" or self.channels != 1):
            raise ValueError("signals (rank 1) have one channel and are for families resnet, vit")
        if self.family == "resnet" and not self.stem % 2:
            raise ValueError("stem must be odd, so that a signal keeps its length")
        if self.family == "vit" and (not self.patch or self.side % self.patch):
            raise ValueError("patch must divide side")
        if self.family == "vit" and (not self.heads or self.width % self.heads or not self.hidden):
            raise ValueError("a vit needs heads that divide width, and hidden")
        if self.family == "conv" and (self.side % 2**self.depth or not self.hidden):
            raise ValueError("a conv network halves its side depth times and needs hidden")
        return self


Schedule = Literal["constant", "linear", "drops", "cosine"]  # linear, cosine: to 0 at T


class Recipe(Strict):
    """How every network of the task is trained: dense runs, tickets and controls alike."""

    optimiser: Literal["adam", "adamw", "sgd"]
    rate: float = Field(gt=0)
    schedule: Schedule
    drops: tuple[Count, ...] = ()  # steps after which the rate is divided by ten
    warm_up: int = Field(ge=0, default=0)  # steps in which the rate rises linearly
    steps: Count  # T
    batch: int = Field(ge=0)  # 0: all examples but those left out
    leave_out: float = Field(ge=0, lt=1, default=0.0)  # of the examples, redrawn at every step
    weight_decay: float = Field(ge=0, default=0.0)
    decayed: tuple[str, ...] = ()
    momentum: float = Field(ge=0, lt=1, default=0.0)
    betas: tuple[float, float] = (0.9, 0.999)
    label_smoothing: float = Field(ge=0, lt=1, default=0.0)
    # Images: random crops, padded by 4, half of them mirrored; signals: shifts of up to 2 points.
    augment: Literal["none", "crop-flip", "shift"] = "none"
    precision: Literal["float32", "float64"] = "float32"

    @model_validator(mode="after")
    def _schedule_fits(self) -> Recipe:
        if (self.schedule == "drops") != bool(self.drops):
            raise ValueError('schedule "drops" needs drops, and no other has them')
        if any(a >= b for a, b in pairwise((self.warm_up, *self.drops, self.steps))):
            raise ValueError("warm_up, drops and steps must rise in this order")
        return self

    def batch_size(self, examples: int) -> int:
        """Return the batch size for a number of training examples."""
        return self.batch or examples - round(self.leave_out * examples)

    def lasting(self, steps: int) -> Recipe:
        """Return the whole schedule stretched or shrunk to another number of steps."""
        drops = tuple(drop * steps // self.steps for drop in self.drops)
        warm_up = self.warm_up * steps // self.steps
        return self.model_copy(update={"steps": steps, "drops": drops, "warm_up": warm_up})

    def compressed(self, factor: int) -> Recipe:
        """Return the whole schedule in 1/factor of the steps."""
        return self.lasting(self.steps // factor)


class Score(Strict):
    """What is measured in a run: accuracy at T, or its average over the logarithm of the step."""

    kind: Literal["accuracy", "area"]
    # Accuracy that counts as memorised or generalised, in tables of area tasks.
    threshold: float = Field(gt=0, lt=1, default=0.95)
    every: Count  # steps between evaluations
    compressed_density: float = Field(ge=0, lt=1, default=0.0)  # 0: no compressed schedules


class Ladder(Strict):
    """Densities, sparsest last: for tickets that are trained, and for those that are not."""

    trained: tuple[Fraction, ...]
    untrained: tuple[Fraction, ...]

    @model_validator(mode="after")
    def _sparsest_last(self) -> Ladder:
        for name in ("trained", "untrained"):
            rungs = getattr(self, name)
            if not rungs or any(a <= b for a, b in pairwise(rungs)):
                raise ValueError(f"{name}: densities must fall from rung to rung")
        return self


class Search(Strict):
    """What a method may spend, and how late a step its tickets may start from."""

    budget: float = Field(gt=0)  # dense trainings
    rewind_limit: int = Field(ge=0)


class Transfer(Strict):
    """The depth at which tickets are found for transfer, and the two they are transferred to."""

    source: Count
    targets: tuple[Count, Count]
    densities: tuple[Fraction, Fraction]

    @model_validator(mode="after")
    def _moves(self) -> Transfer:
        if self.source in self.targets or self.targets[0] == self.targets[1]:
            raise ValueError("transfer.targets: two depths, neither of them transfer.source")
        if not 1 > self.densities[0] > self.densities[1] > 0:
            raise ValueError("transfer.densities: two densities below 1 that fall")
        return self


class Variant(Strict):
    """One row of the calibration: a changed recipe and what dense training reached with it."""

    variant: str
    score: tuple[float, ...]  # one per seed, on the held-out part


class Calibration(Strict):
    """The variants tried before the recipe was frozen, on the held-out part alone."""

    command: str
    reading: str
    variants: tuple[Variant, ...]


class Task(Strict):
    """One complete protocol: data, network, recipe, ladder, scores."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,60}$")
    version: Count
    title: str
    seeds: Count = PUBLISHED  # 0, 1, …
    data: Data
    network: Network
    recipe: Recipe
    score: Score
    ladder: Ladder
    search: Search
    transfer: Transfer | None = None  # None: the family has no repeated unit
    calibration: Calibration | None = None

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Task:
        if why := file_names.reserved(self.name):
            raise ValueError(f"the name {self.name} {why}")
        if self.recipe.steps % self.score.every:
            raise ValueError("score.every must divide recipe.steps")
        if self.data.classes != self.network.classes:
            raise ValueError("data.classes and network.classes must be equal")
        if self.search.rewind_limit > self.recipe.steps // 10:
            raise ValueError("search.rewind_limit must be at most a tenth of recipe.steps")
        if 0 < self.search.rewind_limit < self.recipe.warm_up:
            raise ValueError("search.rewind_limit must be 0 or not inside recipe.warm_up")
        images = self.network.family in IMAGES and self.network.rank == 2
        if self.recipe.augment == "crop-flip" and not images:
            raise ValueError(f"recipe.augment is for networks on images: {', '.join(IMAGES)}")
        if self.recipe.augment == "shift" and self.data.source != "mnist1d":
            raise ValueError('recipe.augment "shift" is for signals: source "mnist1d"')
        rung = self.score.compressed_density
        if rung and self.score.kind == "area":  # of a compressed run only the end is kept
            raise ValueError("score.compressed_density: must be 0 where score.kind is area")
        if rung and rung not in self.ladder.trained:
            raise ValueError("score.compressed_density must be a rung of ladder.trained")
        moved = self.transfer
        if moved and moved.source == self.network.depth:
            strange = [d for d in moved.densities if d not in self.ladder.trained]
            if strange:
                raise ValueError(f"transfer.densities {strange[0]}: not a rung of ladder.trained")
        return self

    @property
    def digest(self) -> str:
        """Digest of all that a result depends on; titles and the calibration table are excluded."""
        table = self.canonical()
        return digest(canonical_json({k: table[k] for k in table if k not in FREE}))

    @property
    def training_digest(self) -> str:
        """Digest of all that one training depends on: the key of stored results, however scored."""
        parts = {"data": self.data.canonical(), "network": self.network.canonical()}
        return digest(canonical_json(parts))

    @property
    def chance(self) -> float:
        """The accuracy of random guessing."""
        return 1 / self.data.classes

    @property
    def grid(self) -> tuple[int, ...]:
        """The steps at which a scored run is evaluated, T last."""
        return grid(self.score.every, self.recipe.steps)


@lru_cache(maxsize=64)
def grid(every: int, steps: int) -> tuple[int, ...]:
    """Return the steps at which a run is evaluated; the last step is among them."""
    return tuple(range(every, steps + 1, every))


Controls = Literal["all", "alternate", "one rung"]


def controlled(ladder: Sequence[float], controls: Controls) -> tuple[float, ...]:
    """Return the rungs that have controls.

    These are all of them, every second one from the sparsest up, or the second sparsest (of a
    ladder of one rung, that one).
    """
    if controls == "all":
        return tuple(ladder)
    return tuple(ladder[-1::-2][::-1] if controls == "alternate" else ladder[-2:-1] or ladder)


class Suite(Strict):
    """A list of tasks with the seeds and the extras that they are scored with."""

    name: str
    title: str
    tasks: tuple[str, ...]
    seeds: Count | None = None  # of every task; None: each task's own number of published seeds
    ranked: bool
    controls: Controls
    compressed: bool
    transfer: tuple[str, ...] = ()  # the tasks whose tickets are transferred to other depths

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Suite:
        if self.ranked and self.seeds:
            raise ValueError("seeds: of a ranked suite each task names its own; leave the key out")
        if strange := [name for name in self.transfer if name not in self.tasks]:
            raise ValueError(f"transfer: {strange[0]!r} is none of the suite's tasks")
        return self


Model = TypeVar("Model", Task, Suite)


def matching(names: tuple[str, ...], patterns: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names, in their order, that match at least one of the shell-style patterns."""
    return tuple(n for n in names if any(fnmatchcase(n, pattern) for pattern in patterns))


def task_names() -> tuple[str, ...]:
    """Return the names of all tasks that ship with the package."""
    return tuple(sorted(path.stem for path in shipped("tasks").glob("*.toml")))


def load_task(name: str) -> Task:
    """Load a task by its name, or a user's own from a TOML file by its path (ending in .toml)."""
    if name.endswith(".toml"):
        return _read(Path(name), Task)
    path = shipped("tasks") / f"{name}.toml"
    if name not in task_names():
        hint = " (a suite: --suite)" if name in suite_names() else nearest(name, task_names())
        raise TaskError(f"no task {name!r}{hint}; see `lthbench tasks`")
    return _read(path, Task)


def suite_names() -> tuple[str, ...]:
    """Return the names of all suites that ship with the package."""
    return tuple(sorted(path.stem for path in (shipped("tasks") / "suites").glob("*.toml")))


def load_suite(name: str) -> Suite:
    """Load a suite by its name."""
    if name not in suite_names():
        raise TaskError(
            f"no suite {name!r}{nearest(name, suite_names())}; there are {', '.join(suite_names())}"
        )
    return _read(shipped("tasks") / "suites" / f"{name}.toml", Suite)


def numbers_of_seeds(suite: Suite) -> str:
    """Return how many seeds a suite's tasks have, as "5" or "5 to 10"."""
    counts = {suite.seeds or load_task(name).seeds for name in suite.tasks}
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _read(path: Path, model: type[Model]) -> Model:
    """Parse a file strictly; the first mistake is reported on one line with its place."""
    try:
        if (size := path.stat().st_size) > FILE_LIMIT:
            raise TaskError(f"{path}: {size:,} bytes; a task's file has at most {FILE_LIMIT:,}")
        table = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise TaskError(f"{path}: {error.strerror}; name a TOML file that exists") from error
    except (ValueError, RecursionError) as error:  # from text, TOML or huge numbers
        raise TaskError(f"{path}: not valid TOML: {error}") from error
    try:
        loaded = model.model_validate(table)
    except ValidationError as error:
        raise TaskError(f"{path.name} {_first(error, model)}") from error
    if not isinstance(loaded, Task) or path.stem == loaded.name:
        return loaded
    raise TaskError(f"{path.name} name: {loaded.name!r} must be the file's name without .toml")


def _first(error: ValidationError, model: type[BaseModel]) -> str:
    """Turn pydantic's errors into `[recipe] momentun: unknown key (did you mean momentum?)`."""
    errors = error.errors(include_url=False)
    # A misspelt key also makes the right one missing; the hint is more helpful.
    first = next((e for e in errors if e["type"] == "extra_forbidden"), errors[0])
    place = [str(part) for part in first["loc"]]
    table = f"[{'.'.join(place[:-1])}] " if len(place) > 1 else ""
    key = place[-1] if place else "file"
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(key, _keys(model, place[:-1]), n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        return f"{table}{key}: unknown key{hint}"
    message = first["msg"].removeprefix("Value error, ")
    value = first["input"] if isinstance(first["input"], (str, int, float, bool)) else None
    return f"{table}{key}: {message[0].lower()}{message[1:]}" + (
        f", not {value!r}" if value is not None else ""
    )


def _keys(model: type[BaseModel], place: list[str]) -> list[str]:
    """Return the keys of the table at this place; a number is a row in a list of tables."""
    for part in place:
        if part.isdigit():
            continue
        field = model.model_fields.get(part)
        kinds = (field.annotation, *get_args(field.annotation)) if field else ()
        tables = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if not tables:
            return []
        model = tables[0]
    return list(model.model_fields)
