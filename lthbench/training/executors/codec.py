"""Jobs, chunks of them and results as headers and tensors, for pipes and networks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from lthbench.io import messages
from lthbench.networks.state import State
from lthbench.protocol.task import Network, Recipe
from lthbench.training.job import Evaluation, Examples, Job, Result


def pack_job(job: Job) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Encode a job as a header and tensors."""
    header = {
        "network": job.network.model_dump(mode="json"),
        "recipe": job.recipe.model_dump(mode="json"),
        "depth": job.depth,
        "step": job.start.step,
        "masked": job.masks is not None,
        "until": job.until,
        "seed": job.seed,
        "order": list(job.order),
        "key": job.key,
        "norm_batches": job.norm_batches,
        "engine": job.engine,
    }
    tensors = messages.prefixed("start", job.start.tensors()) | messages.prefixed(
        "mask", job.masks or {}
    )
    return header, tensors


def unpack_job(header: dict[str, Any], tensors: Mapping[str, Tensor]) -> Job:
    """Return the job that `pack_job` was given."""
    return Job(
        Network.model_validate(header["network"]),
        header["depth"],
        State(messages.under("start", tensors), header["step"]),
        messages.under("mask", tensors) if header["masked"] else None,
        Recipe.model_validate(header["recipe"]),
        header["until"],
        header["seed"],
        tuple(header["order"]),
        header["key"],
        header["norm_batches"],
        header["engine"],
    )


async def pack_chunk(
    jobs: Sequence[Job],
    data: Mapping[int, Examples],
    evaluation: Evaluation | None,
    tell: Callable[[Examples], Awaitable[str]],
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Encode jobs that go together as a header and tensors.

    Args:
        jobs: the jobs of the chunk.
        data: the training examples of each seed; only those of the jobs' seeds are sent.
        evaluation: as for an engine, likewise.
        tell: makes examples known to the receiver, and returns the receiver's name for them.
    """
    headers: list[dict[str, Any]] = []
    tensors: dict[str, Tensor] = {}
    for number, job in enumerate(jobs):
        header, own = pack_job(job)
        headers.append(header)
        tensors |= messages.prefixed(str(number), own)
    seeds = sorted({job.seed for job in jobs})
    chunk: dict[str, Any] = {"jobs": headers, "evaluation": None}
    chunk["data"] = {str(seed): await tell(data[seed]) for seed in seeds}
    if evaluation:
        sets = {
            str(seed): {part: await tell(some) for part, some in evaluation.sets[seed].items()}
            for seed in seeds
        }
        chunk["evaluation"] = {
            "sets": sets,
            "at": list(evaluation.at),
            "last": list(evaluation.last),
        }
    return chunk, tensors


def unpack_chunk(
    header: Mapping[str, Any], tensors: Mapping[str, Tensor], known: Mapping[str, Examples]
) -> tuple[list[Job], dict[int, Examples], Evaluation | None]:
    """Decode a packed chunk to jobs, training examples and evaluation; `known` maps names."""
    parts: list[dict[str, Tensor]] = [{} for _ in header["jobs"]]
    for name, tensor in tensors.items():
        number, _, rest = name.partition("/")
        parts[int(number)][rest] = tensor
    jobs = [unpack_job(job, part) for job, part in zip(header["jobs"], parts, strict=True)]
    data = {int(seed): known[name] for seed, name in header["data"].items()}
    if not header["evaluation"]:
        return jobs, data, None
    sets = {
        int(seed): {part: known[name] for part, name in named.items()}
        for seed, named in header["evaluation"]["sets"].items()
    }
    at, last = (tuple(header["evaluation"][name]) for name in ("at", "last"))
    return jobs, data, Evaluation(sets, at, last)


def pack_result(key: str, result: Result) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Encode a result as a header and tensors."""
    header = {
        "key": key,
        "status": result.status,
        "reason": result.reason,
        "seconds": result.seconds,
        "note": result.note,
        "distance": result.distance,
        "step": result.state.step if result.state is not None else None,
    }
    tensors = messages.prefixed("state", result.state or {})
    tensors |= messages.prefixed("correct", result.correct)
    return header, tensors | messages.prefixed("predictions", result.predictions)


def unpack_result(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Result:
    """Return the result that `pack_result` was given."""
    state = messages.under("state", tensors)
    return Result(
        State(state, header["step"]) if header["step"] is not None else None,
        messages.under("correct", tensors),
        messages.under("predictions", tensors),
        header["status"],
        header["reason"],
        header["seconds"],
        header["note"],
        header["distance"],
    )
