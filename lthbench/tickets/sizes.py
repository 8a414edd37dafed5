"""What a task's fractions and patterns amount to: tensors, kept counts, training examples.

A task file is read without torch; what it means for its network is checked here, so that a user's
own task is refused before anything is prepared or trained.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import nn
from torch.nn.modules.conv import _ConvNd

from lthbench.errors import TaskError, nearest
from lthbench.networks import families
from lthbench.protocol import datasets
from lthbench.protocol.task import Task, load_task, matching
from lthbench.tickets.masks import target_count

LISTED = 3  # names of tensors in a message


@dataclass(frozen=True)
class Sizes:
    """The sizes of a task, at its own depth.

    Attributes:
        shapes: of every prunable tensor, by name, in the network's order.
        trained, untrained: the exact number of weights that each rung of the two ladders keeps.
        examples: the least number that a seed trains on.
    """

    shapes: dict[str, tuple[int, ...]]
    trained: tuple[int, ...]
    untrained: tuple[int, ...]
    examples: int

    @property
    def prunable(self) -> int:
        """N, the number of prunable weights."""
        return sum(math.prod(shape) for shape in self.shapes.values())


def load_sound(name: str) -> Task:
    """Load a task; a user's own is also checked by `sizes_of`.

    Tasks that ship with the package are not checked: a test does that.
    """
    task = load_task(name)
    if name.endswith(".toml"):
        sizes_of(task)
    return task


def sizes_of(task: Task) -> Sizes:
    """Compute the sizes of a task.

    Raises TaskError, with the file and the key, for a pattern that matches no tensor, for prunable
    tensors other than weights of Linear, Conv or Embedding layers, for a tensor without exactly one
    initial distribution, for rungs that keep no weight or as many as another, for a transfer depth
    that the family does not have, and for a batch larger than the number of examples.
    """
    try:
        _patterns(task)
        shapes = families.shapes(task.network, task.network.depth)
        size = families.prunable_weights(task.network, task.network.depth)
        trained = _counts(task.ladder.trained, size, "[ladder] trained")
        untrained = _counts(task.ladder.untrained, size, "[ladder] untrained")
        _transfer(task)
        return Sizes(shapes, trained, untrained, _examples(task))
    except TaskError as error:
        raise TaskError(f"{task.name}.toml {error}") from error


def _patterns(task: Task) -> None:
    """Check that every pattern matches a tensor, prunable ones only weights, and each has a row."""
    network = task.network
    module = families.build(network, network.depth)
    weights, parameters = _weights(module), [name for name, _ in module.named_parameters()]
    tensors = list(module.state_dict())
    _match(network.prunable, weights, parameters, "[network] prunable")
    _match(task.recipe.decayed, parameters, parameters, "[recipe] decayed")
    _match([p for row in network.init for p in row.tensors], tensors, tensors, "[network.init]")
    for name in tensors:
        families.init_of(network, name)
    if not network.prunable:
        raise TaskError(f"[network] prunable: names no tensor; there are {_listed(weights)}")


def _weights(module: nn.Module) -> list[str]:
    """Return what can be pruned: the weights of layers that multiply, and of embedding tables."""
    kinds = (nn.Linear, _ConvNd, nn.Embedding)
    return [f"{name}.weight" for name, layer in module.named_modules() if isinstance(layer, kinds)]


def _match(patterns: Sequence[str], wanted: list[str], names: list[str], key: str) -> None:
    """Check that every pattern matches a name, and only wanted ones."""
    for pattern in patterns:
        found = matching(tuple(names), (pattern,))
        if not found:
            hint = nearest(pattern, wanted) or f"; there are {_listed(wanted)}"
            raise TaskError(f'{key}: "{pattern}" matches no tensor{hint}')
        others = [name for name in found if name not in wanted]
        if others:
            raise TaskError(
                f'{key}: "{pattern}" matches {others[0]}; only weights of Linear, Conv and '
                f"Embedding layers are pruned, here {_listed(wanted)}"
            )


def _listed(names: Sequence[str]) -> str:
    """List the first names, and how many more there are."""
    more = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {more} more" if more > 0 else "")


def _counts(densities: Sequence[float], size: int, key: str) -> tuple[int, ...]:
    """Return what each rung keeps of `size` weights: at least one, fewer than the one before."""
    counts = tuple(target_count(density, size) for density in densities)
    if 0 in counts:
        density = densities[counts.index(0)]
        raise TaskError(f"{key}: {density:g} keeps none of {size:,} weights; raise it or drop it")
    for (dense, kept), (sparse, fewer) in pairwise(zip(densities, counts, strict=True)):
        if kept == fewer:
            raise TaskError(
                f"{key}: {dense!r} and {sparse!r} keep the same {kept:,} of {size:,} weights; "
                "drop one of them"
            )
    return counts


def _transfer(task: Task) -> None:
    """Check that every transfer depth can be built, and that its rungs keep weights there."""
    if task.transfer is None:
        return
    for depth in (task.transfer.source, *task.transfer.targets):
        if not families.has_depth(task.network, depth):
            told = families.depths_told(task.network)
            raise TaskError(f"[transfer] depth {depth}: {task.network.family} networks {told}")
        size = families.prunable_weights(task.network, depth)
        _counts(task.transfer.densities, size, f"[transfer] densities at depth {depth}")


def _examples(task: Task) -> int:
    """Return the number of training examples of a seed, which a batch must not exceed."""
    count = datasets.training_examples(task)
    if count < 1:
        raise TaskError("[data] nothing is left to train on; hold out fewer examples")
    if task.recipe.batch > count:
        raise TaskError(
            f"[recipe] batch: {task.recipe.batch:,} is more than the {count:,} training examples; "
            "0 takes all of them at every step"
        )
    return count
