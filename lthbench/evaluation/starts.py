"""Masks and starts of controls: theta_k of other seeds, reinitialised weights."""

from __future__ import annotations

from dataclasses import dataclass, field

from lthbench.evaluation import trainings
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol import datasets
from lthbench.protocol.task import Task
from lthbench.tickets import controls
from lthbench.tickets.masks import Masks
from lthbench.training.dispatch import Means
from lthbench.training.executors.local import Executor


@dataclass(frozen=True)
class Given:
    """A network as scoring begins with it.

    Attributes:
        masks: None of a dense one.
        start: its weights, and the step that they are of.
        origin: where the weights come from (protocol, section 5).
        source: of a transferred ticket, its origin at the depth that it comes from.
    """

    masks: Masks | None
    start: State
    origin: str = "init"
    source: str = ""

    @property
    def needs_theta(self) -> bool:
        """Whether another start of this kind is another seed's theta_k."""
        late = self.origin == "transferred" and self.start.step > 0
        return self.origin == "rewind" or late


def theta(task: Task, seed: int) -> State:
    """Return a seed's theta_0 at the task's depth."""
    return families.initial(task.network, task.network.depth, seed)


@dataclass
class Thetas:
    """theta_k of a task's seeds, each trained once."""

    task: Task
    executor: Executor
    means: Means
    known: dict[tuple[int, int], State | None] = field(default_factory=dict)

    async def at(self, seed: int, step: int) -> State | None:
        """Return a seed's dense run up to a step; None if it diverged."""
        if (seed, step) not in self.known:
            self.known[seed, step] = await self._train(seed, step)
        return self.known[seed, step]

    async def _train(self, seed: int, step: int) -> State | None:
        task = self.task
        job = trainings.training(task, seed, theta(task, seed), None, step, means=self.means)
        train = {seed: trainings.examples(task, datasets.search(task, seed).train)}
        async for _, result in self.executor.results([job], train, None):
            return result.state
        return None


def masks_of(
    task: Task, kind: str, density: float, seed: int, own: Masks | None, attempt: int
) -> Masks:
    """Return the masks of a cell, which follow from the seed or from its ticket's own.

    Those of a shuffled control's draw follow from the draw before.
    """
    if rule := controls.RULES.get(kind):
        shapes = families.shapes(task.network, task.network.depth)
        (drawn,) = controls.random_masks(shapes, [density], seed, rule, attempt=attempt)
        return drawn
    assert own is not None
    for draw in range(attempt + 1) if kind == "shuffled" else ():
        own, _ = controls.shuffled(own, seed, attempt=draw)
    return own


def other_seed(seed: int, attempt: int) -> int:
    """Return the seed whose theta_k a rewound ticket's reinit starts from; no other run has it."""
    return seed + 10_000 * (attempt + 1)


async def reinit_start(
    task: Task, kind: str, seed: int, ticket: Given, thetas: Thetas, attempt: int = 0
) -> State | None:
    """Return where a reinitialised control starts; None if that is a run that diverged."""
    other: State | None = None
    if ticket.needs_theta:
        other = await thetas.at(other_seed(seed, attempt), ticket.start.step)
        if other is None:
            return None
    return reinitialised(task, kind, seed, ticket, attempt, other)


def reinitialised(
    task: Task, kind: str, seed: int, ticket: Given, attempt: int, other: State | None = None
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
        seed: of the ticket.
        ticket: of its own weights only the kept entries matter.
        attempt: of the draw.
        other: another seed's theta_k, for a ticket at theta_k.
    """
    own, signed = ticket.origin in ("signs", "free"), kind == "reinit-signs"
    start, chosen = ticket.start, ticket.masks or {}
    if own and not signed:
        drawn = controls.fresh_signs(start.tensors(), chosen, chosen, seed, attempt=attempt)
        return State(drawn, start.step)
    rescale = own or ticket.origin == "scaled"
    fresh = other or another(task, kind, seed, ticket, attempt, rescale=rescale)
    if not signed:
        return fresh
    tensors = fresh.tensors()
    if own:
        tensors = start.tensors() | {name: tensors[name] for name in chosen}
    signed_anew = controls.fresh_magnitudes(start.tensors(), tensors, chosen, chosen)
    return State(signed_anew, start.step)


def another(
    task: Task, kind: str, seed: int, like: Given, attempt: int, *, rescale: bool = False
) -> State:
    """Return another draw of theta_0; in arithmetic tasks with the kept norms of `like`."""
    depth = task.network.depth
    fresh = families.initial(task.network, depth, seed, "control", kind, str(attempt))
    if task.score.kind == "area" or rescale:  # scale alone affects grokking
        chosen = like.masks or {}
        tensors = controls.rescaled(fresh.tensors(), like.start.tensors(), chosen, list(chosen))
        return State(tensors, 0)
    return fresh
