"""Jobs, chunks of them and results as headers and tensors, for pipes and networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lthbench import wire
from lthbench.engine import Evaluation, Examples, Job, Result
from lthbench.states import State
from lthbench.task import Network, Recipe


def pack_job(job: Job) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A job as a header and tensors."""
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
    tensors = wire.prefixed("start", job.start.tensors()) | wire.prefixed("mask", job.masks or {})
    return header, tensors


def unpack_job(header: dict[str, Any], tensors: Mapping[str, Tensor]) -> Job:
    """The job that `pack_job` was given."""
    return Job(
        Network.model_validate(header["network"]),
        header["depth"],
        State(wire.under("start", tensors), header["step"]),
        wire.under("mask", tensors) if header["masked"] else None,
        Recipe.model_validate(header["recipe"]),
        header["until"],
        header["seed"],
        tuple(header["order"]),
        header["key"],
        header["norm_batches"],
        header["engine"],
    )


def pack_chunk(
    jobs: Sequence[Job],
    named: Mapping[int, str],
    looks: Mapping[int, Mapping[str, str]] | None,
    at: Sequence[int],
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Jobs that go together as a header and tensors.

    Args:
        named: by seed, the name that the receiver knows its training examples under.
        looks: by seed and set, the same of what is evaluated at the steps `at`; None: nothing is.
    """
    headers: list[dict[str, Any]] = []
    tensors: dict[str, Tensor] = {}
    for number, job in enumerate(jobs):
        header, own = pack_job(job)
        headers.append(header)
        tensors |= wire.prefixed(str(number), own)
    chunk: dict[str, Any] = {"jobs": headers, "data": {str(s): n for s, n in named.items()}}
    chunk["evaluation"] = None
    if looks is not None:
        sets = {str(seed): dict(names) for seed, names in looks.items()}
        chunk["evaluation"] = {"sets": sets, "at": list(at)}
    return chunk, tensors


def unpack_chunk(
    header: Mapping[str, Any], tensors: Mapping[str, Tensor], known: Mapping[str, Examples]
) -> tuple[list[Job], dict[int, Examples], Evaluation | None]:
    """Jobs, training examples and evaluation of a packed chunk; `known` are examples by name."""
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
    return jobs, data, Evaluation(sets, tuple(header["evaluation"]["at"]))


def pack_result(key: str, result: Result) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A result as a header and tensors."""
    header = {
        "key": key,
        "status": result.status,
        "reason": result.reason,
        "seconds": result.seconds,
        "note": result.note,
        "step": result.state.step if result.state is not None else None,
    }
    tensors = wire.prefixed("state", result.state or {})
    tensors |= wire.prefixed("correct", result.correct)
    return header, tensors | wire.prefixed("predictions", result.predictions)


def unpack_result(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Result:
    """The result that `pack_result` was given."""
    state = wire.under("state", tensors)
    return Result(
        State(state, header["step"]) if header["step"] is not None else None,
        wire.under("correct", tensors),
        wire.under("predictions", tensors),
        header["status"],
        header["reason"],
        header["seconds"],
        header["note"],
    )
