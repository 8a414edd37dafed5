"""Trainings of a search as jobs, and examples as an engine takes them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lthbench.io import store
from lthbench.networks.state import State
from lthbench.protocol import datasets
from lthbench.protocol.task import Task
from lthbench.tickets import masks
from lthbench.training.dispatch import HERE, VERSIONS, Means, engine_for
from lthbench.training.job import Examples, Job


def examples(task: Task, arrays: datasets.Examples) -> Examples:
    """Convert arrays to an engine's examples, with the task's scale."""
    return Examples(
        torch.from_numpy(arrays.x),
        torch.from_numpy(arrays.y),
        task.data.scale,
        task.data.shift,
        task.data.source == "modular-addition",
    )


def training(
    task: Task,
    seed: int,
    start: State,
    chosen: Mapping[str, Tensor] | None,
    until: int,
    order: int = 0,
    depth: int | None = None,
    means: Means = HERE,
) -> Job:
    """Build a training of the search; its data order depends on seed, masks and `order`."""
    by = engine_for(means, task.network)
    depth = task.network.depth if depth is None else depth
    masked = masks.digest(chosen) if chosen is not None else "dense"
    key = store.key(
        data_and_network=task.training_digest,
        recipe=task.recipe.canonical(),
        depth=depth,
        seed=seed,
        start=start.digest,
        masks=masked,
        until=until,
        order=order,
        engine=VERSIONS[by],
        device=means.kind,
    )
    names = ("data", masked, str(order))
    return Job(task.network, depth, start, chosen, task.recipe, until, seed, names, key, engine=by)
