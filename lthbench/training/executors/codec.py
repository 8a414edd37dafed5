"""Jobs, chunks of them and results as headers and tensors, for pipes and networks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from lthbench.io import messages
from lthbench.networks.state import State
from lthbench.protocol.task import Network, Recipe
from lthbench.training.job import Evaluation, Examples, Job, Result


@dataclass(frozen=True)
class JobHeader:
    """A job without its tensors: `start/…`, and `mask/…` if it is masked."""

    network: Network
    recipe: Recipe
    depth: int
    step: int
    masked: bool
    until: int
    seed: int
    order: tuple[str, ...]
    key: str
    norm_batches: int
    engine: str


@dataclass(frozen=True)
class EvaluationHeader:
    """An evaluation whose examples are names: by seed and set."""

    sets: Mapping[int, Mapping[str, str]]
    at: tuple[int, ...]
    last: tuple[str, ...]


@dataclass(frozen=True)
class Chunk:
    """Jobs that go together, the names of their training examples by seed, and the evaluation.

    The tensors of a job have its number in front.
    """

    jobs: tuple[JobHeader, ...]
    data: Mapping[int, str]
    evaluation: EvaluationHeader | None
    op: Literal["run"] = "run"


@dataclass(frozen=True)
class ExamplesHeader:
    """Examples `x` and `y`, and the name that chunks give them."""

    name: str
    scale: float | tuple[float, ...]
    shift: float | tuple[float, ...]
    tokens: bool
    op: Literal["examples"] = "examples"


@dataclass(frozen=True)
class Order:
    """What a worker is sent."""

    order: Annotated[Chunk | ExamplesHeader, Field(discriminator="op")]


@dataclass(frozen=True)
class ResultHeader:
    """A result without its tensors: `state/…`, `correct/…` and `predictions/…`."""

    key: str
    status: Literal["ok", "diverged", "failed"]
    reason: str
    seconds: float
    note: str
    distance: float | None
    step: int | None


def pack_job(job: Job) -> tuple[JobHeader, dict[str, Tensor]]:
    """Encode a job as a header and tensors."""
    header = JobHeader(
        network=job.network,
        recipe=job.recipe,
        depth=job.depth,
        step=job.start.step,
        masked=job.masks is not None,
        until=job.until,
        seed=job.seed,
        order=job.order,
        key=job.key,
        norm_batches=job.norm_batches,
        engine=job.engine,
    )
    start = messages.prefixed("start", job.start.tensors())
    return header, start | messages.prefixed("mask", job.masks or {})


def unpack_job(header: JobHeader, tensors: Mapping[str, Tensor]) -> Job:
    """Return the job that `pack_job` was given."""
    return Job(
        header.network,
        header.depth,
        State(messages.under("start", tensors), header.step),
        messages.under("mask", tensors) if header.masked else None,
        header.recipe,
        header.until,
        header.seed,
        header.order,
        header.key,
        header.norm_batches,
        header.engine,
    )


async def pack_chunk(
    jobs: Sequence[Job],
    data: Mapping[int, Examples],
    evaluation: Evaluation | None,
    tell: Callable[[Examples], Awaitable[str]],
) -> tuple[Chunk, dict[str, Tensor]]:
    """Encode jobs that go together as a header and tensors.

    Args:
        jobs: the jobs of the chunk.
        data: the training examples of each seed; only those of the jobs' seeds are sent.
        evaluation: as for an engine, likewise.
        tell: makes examples known to the receiver, and returns the receiver's name for them.
    """
    headers: list[JobHeader] = []
    tensors: dict[str, Tensor] = {}
    for number, job in enumerate(jobs):
        header, own = pack_job(job)
        headers.append(header)
        tensors |= messages.prefixed(str(number), own)
    seeds = sorted({job.seed for job in jobs})
    names = {seed: await tell(data[seed]) for seed in seeds}
    look = None
    if evaluation:
        sets = {
            seed: {part: await tell(some) for part, some in evaluation.sets[seed].items()}
            for seed in seeds
        }
        look = EvaluationHeader(sets, evaluation.at, evaluation.last)
    return Chunk(tuple(headers), names, look), tensors


def unpack_chunk(
    chunk: Chunk, tensors: Mapping[str, Tensor], known: Mapping[str, Examples]
) -> tuple[list[Job], dict[int, Examples], Evaluation | None]:
    """Decode a packed chunk to jobs, training examples and evaluation; `known` maps names."""
    parts: list[dict[str, Tensor]] = [{} for _ in chunk.jobs]
    for name, tensor in tensors.items():
        number, _, rest = name.partition("/")
        parts[int(number)][rest] = tensor
    jobs = [unpack_job(job, part) for job, part in zip(chunk.jobs, parts, strict=True)]
    data = {seed: known[name] for seed, name in chunk.data.items()}
    look = chunk.evaluation
    if look is None:
        return jobs, data, None
    sets = {
        seed: {part: known[name] for part, name in named.items()}
        for seed, named in look.sets.items()
    }
    return jobs, data, Evaluation(sets, look.at, look.last)


def pack_examples(name: str, examples: Examples) -> tuple[ExamplesHeader, dict[str, Tensor]]:
    """Encode examples as a header and tensors."""
    scale, shift = (
        value if isinstance(value, float) else tuple(value)
        for value in (examples.scale, examples.shift)
    )
    header = ExamplesHeader(name, scale, shift, examples.tokens)
    return header, {"x": examples.x, "y": examples.y}


def unpack_examples(header: ExamplesHeader, tensors: Mapping[str, Tensor]) -> Examples:
    """Return the examples that `pack_examples` was given."""
    return Examples(tensors["x"], tensors["y"], header.scale, header.shift, header.tokens)


def pack_result(key: str, result: Result) -> tuple[ResultHeader, dict[str, Tensor]]:
    """Encode a result as a header and tensors."""
    header = ResultHeader(
        key=key,
        status=result.status,
        reason=result.reason,
        seconds=result.seconds,
        note=result.note,
        distance=result.distance,
        step=result.state.step if result.state is not None else None,
    )
    tensors = messages.prefixed("state", result.state or {})
    tensors |= messages.prefixed("correct", result.correct)
    return header, tensors | messages.prefixed("predictions", result.predictions)


def unpack_result(header: ResultHeader, tensors: Mapping[str, Tensor]) -> Result:
    """Return the result that `pack_result` was given."""
    state = messages.under("state", tensors)
    return Result(
        State(state, header.step) if header.step is not None else None,
        messages.under("correct", tensors),
        messages.under("predictions", tensors),
        header.status,
        header.reason,
        header.seconds,
        header.note,
        header.distance,
    )
