"""What a user asks for: tasks, seeds, and what is done for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict, get_args

from lthbench.errors import UsageError, nearest
from lthbench.method import publishable
from lthbench.method.source import Method, load_method
from lthbench.protocol.design import Part, Plan
from lthbench.protocol.task import Controls, Suite, Task, load_suite, suite_names
from lthbench.tickets.sizes import load_sound
from lthbench.training.dispatch import Means, engine_for, means_of
from lthbench.training.executors import local, ray_connection

DEVELOPMENT, PUBLISHED = 1000, 0  # the first seed of each kind


class Request(TypedDict, total=False):
    """The arguments of `evaluate`, some of which `estimate` has too.

    Attributes:
        suite: a suite's name; "quick" if neither suite nor tasks are given.
        tasks: names of tasks.
        seeds: how many; by default the suite's number, or else each task's own.
        only_seeds: some of those seeds, as 0, 1, 2 of a final run; the record has no others.
        final: published seeds and the test split, in place of development seeds and held-out part.
        controls: which rungs have any: "all", "alternate" or "one rung"; by default as the suite
            says. A reference has all.
        out: the folder for results, `lthbench-out/<method>` by default (`…-final` with final).
        options: keyword-only options of the method.
        device: what networks are trained on, by torch's name; by default a GPU if there is one.
        workers: processes that train; one per core by default, one for a GPU, 0 for this process.
        engine: of `lthbench.training.dispatch`; the best for each task by default.
        executor: "local", or "ray" for the nodes of a Ray cluster; "local" by default.
        address: of the Ray cluster; None starts Ray on this machine alone.
        timeout: seconds of a child's own; None for no limit.
        memory: gigabytes of a child, 8 by default.
        keep_going: score a failed seed as chance in place of ending.
        keep: keep the stores of finished searches.
        transfer: transfer the tickets to other depths; by default as the suite says.
        direct: search at those depths too, as for the frozen reference.
    """

    suite: str | None
    tasks: Sequence[str]
    seeds: int | None
    only_seeds: Sequence[int] | None
    final: bool
    controls: str | None
    out: str | Path | None
    options: Mapping[str, bool | int | float | str] | None
    device: str | None
    workers: int | None
    engine: str | None
    executor: str
    address: str | None
    timeout: float | None
    memory: float
    keep_going: bool
    keep: bool
    transfer: bool | None
    direct: bool


@dataclass(frozen=True)
class Asked:
    """A method, the tasks that it is run on, and the device and engine."""

    method: Method
    parts: tuple[Part, ...]
    workers: int
    means: Means


def asked(method: str, request: Request, *, nodes: bool = False) -> Asked:
    """Resolve the arguments that `evaluate` and `estimate` share; UsageError for mistakes.

    Args:
        method: a file's path or a baseline's name.
        request: what is asked for.
        nodes: whether a connected Ray cluster does the work.
    """
    if strange := sorted(request.keys() - Request.__optional_keys__):
        raise TypeError(f"unexpected keyword argument {strange[0]!r}")
    workers, device, engine = (request.get("workers"), request.get("device"), request.get("engine"))
    if workers is not None and workers < 0:
        raise UsageError(f"--workers {workers}: 0 or more")
    if nodes:
        device, workers = device or ray_connection.default_device(), ray_connection.cores()
    options = request.get("options") or {}
    loaded = load_method(method, {name: str(value) for name, value in options.items()})
    final = request.get("final", False)
    if final:  # what would be refused on submission, days later
        publishable.check(loaded)
    parts = parts_of(
        request.get("suite"), request.get("tasks", ()), request.get("seeds"), final,
        only_seeds=request.get("only_seeds"), controls=request.get("controls"),
        transfer=request.get("transfer"), direct=request.get("direct", False),
    )  # fmt: skip
    means = means_of(device, engine, here=not nodes)
    if engine and not any(engine_for(means, part.task.network) == engine for part in parts):
        names = ", ".join(part.task.name for part in parts)
        raise UsageError(
            f"--engine {engine}: trains none of {names} on {means.device}; leave it out"
        )
    crew = local.default_workers(means) if workers is None else workers
    return Asked(loaded, parts, crew, means)


def parts_of(
    suite: str | None,
    tasks: Sequence[str],
    seeds: int | None,
    final: bool,
    *,
    only_seeds: Sequence[int] | None = None,
    controls: str | None = None,
    transfer: bool | None = None,
    direct: bool = False,
) -> tuple[Part, ...]:
    """Resolve the tasks that arguments name, with their seeds and what is scored.

    Raises:
        UsageError: for arguments that are invalid, or do not go together.
    """
    if suite and tasks:
        raise UsageError("--suite and --task exclude each other; name one of them")
    chosen = load_suite(suite) if suite else suite_for(tasks, final)
    if seeds is not None and seeds < 1:
        raise UsageError(f"--seeds {seeds}: at least 1")
    rungs = _controls(chosen.controls if controls is None else controls)
    listed = tuple(load_sound(name) for name in tuple(tasks) or chosen.tasks)
    parts = []
    for task in listed:
        moved = (task.name in chosen.transfer if transfer is None else transfer) or direct
        plan = Plan(final, rungs, chosen.compressed, moved, direct)
        parts.append(Part(task, _seeds(task, final, seeds or chosen.seeds, only_seeds), plan))
    return tuple(parts)


def _controls(name: str) -> Controls:
    known: tuple[Controls, ...] = get_args(Controls)
    for controls in known:
        if name == controls:
            return controls
    raise UsageError(f"--controls {name}: {', '.join(known)}{nearest(name, known)}")


def _seeds(
    task: Task, final: bool, count: int | None, only: Sequence[int] | None
) -> tuple[int, ...]:
    """Return a task's published or development seeds, or some of them; UsageError for others."""
    first = PUBLISHED if final else DEVELOPMENT
    every = range(first, first + (count or task.seeds))
    strange = [seed for seed in only or () if seed not in every]
    if strange or (only is not None and not only):
        raise UsageError(
            f"--only-seeds {strange[0] if strange else 'of none'}: {task.name} has "
            f"{every[0]}-{every[-1]} here; --seeds gives it another number"
        )
    return tuple(every) if only is None else tuple(sorted(set(only)))


def suite_for(tasks: Sequence[str], final: bool) -> Suite:
    """Return the suite whose seeds and extras apply if none is named.

    It is quick's, or for a final run of a task those of its ranked suite; without one, the task's
    own seeds with every control.
    """
    quick = load_suite("quick")
    if not (final and tasks):
        return quick
    for suite in map(load_suite, suite_names()):
        if suite.ranked and set(tasks) <= set(suite.tasks):
            return suite
    everything = {"controls": "all", "compressed": True, "seeds": None}
    return quick.model_copy(update=everything)
