"""Starts other than a ticket's own: theta_k, and reinitialised weights."""

from __future__ import annotations

from lthbench.evaluation import trainings
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol import datasets
from lthbench.protocol.task import Task
from lthbench.tickets import controls
from lthbench.tickets.masks import Masks
from lthbench.training.dispatch import Means
from lthbench.training.executors.local import Executor


async def early(task: Task, seed: int, step: int, executor: Executor, means: Means) -> State | None:
    """Return theta_k, a seed's dense run up to step k; None if it diverged."""
    theta = families.initial(task.network, task.network.depth, seed)
    job = trainings.training(task, seed, theta, None, step, means=means)
    train = {seed: trainings.examples(task, datasets.search(task, seed).train)}
    async for _, result in executor.results([job], train, None):
        return result.state
    return None


def other_seed(seed: int, attempt: int) -> int:
    """Return the seed whose theta_k a rewound ticket's reinit starts from; no other run has it."""
    return seed + 10_000 * (attempt + 1)


def reinitialised(
    task: Task,
    kind: str,
    origin: str,
    seed: int,
    start: State,
    chosen: Masks,
    attempt: int,
    other: State | None = None,
) -> State:
    """Return where a control with reinitialised weights under a ticket's own masks starts.

    "reinit": for a ticket at theta_0 another draw of theta_0, at theta_k another seed's theta_k;
    for one with weights of its own (origins signs and free) the same magnitudes with random signs,
    all else the ticket's. "reinit-signs": the ticket's signs, and the magnitudes of reinit; for a
    ticket with weights of its own those of another draw of theta_0, scaled to the ticket's norm in
    each tensor, all else the ticket's. Other draws have a stream for each of the two kinds; in
    arithmetic tasks, and for a scaled theta_0, they have the ticket's norms.

    Args:
        task: the task of the ticket.
        kind: "reinit" or "reinit-signs".
        origin: of the ticket.
        seed: of the ticket.
        start: the ticket's; of its own weights only the kept entries matter.
        chosen: the ticket's masks.
        attempt: of the draw.
        other: another seed's theta_k, for a ticket at theta_k.
    """
    own, signed = origin in ("signs", "free"), kind == "reinit-signs"
    if own and not signed:
        drawn = controls.fresh_signs(start.tensors(), chosen, chosen, seed, attempt=attempt)
        return State(drawn, start.step)
    rescale = own or origin == "scaled"
    fresh = other or another(task, seed, start, chosen, kind, attempt, rescale=rescale)
    if not signed:
        return fresh
    tensors = fresh.tensors()
    if own:
        tensors = start.tensors() | {name: tensors[name] for name in chosen}
    signed_anew = controls.fresh_magnitudes(start.tensors(), tensors, chosen, chosen)
    return State(signed_anew, start.step)


def another(
    task: Task,
    seed: int,
    start: State,
    chosen: Masks,
    kind: str,
    attempt: int,
    *,
    rescale: bool = False,
) -> State:
    """Return another draw of theta_0; in arithmetic tasks with the kept norms of `start`."""
    depth = task.network.depth
    fresh = families.initial(task.network, depth, seed, "control", kind, str(attempt))
    if task.score.kind == "area" or rescale:  # scale alone affects grokking
        tensors = controls.rescaled(fresh.tensors(), start.tensors(), chosen, list(chosen))
        return State(tensors, 0)
    return fresh
