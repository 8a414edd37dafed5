"""A network at one depth, as transfer sees it: names, shapes and repeated blocks, no values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lthbench.errors import TaskError
from lthbench.networks import families
from lthbench.networks.stages import Stage
from lthbench.protocol.task import Network


@dataclass(frozen=True)
class Level:
    """What two depths of a family are compared by.

    Attributes:
        tensors: the shape of every tensor of the state, by name.
        prunable: the names of those that have a mask.
        stages: the runs of repeated blocks; tensors outside them exist at every depth.
    """

    depth: int
    tensors: Mapping[str, tuple[int, ...]]
    prunable: tuple[str, ...]
    stages: tuple[Stage, ...]


def level(spec: Network, depth: int) -> Level:
    """Return the network at a depth; TaskError for a depth that its family does not have."""
    if not families.has_depth(spec, depth):
        raise TaskError(f"depth {depth}: {spec.family} networks {families.depths_told(spec)}")
    state = families.build(spec, depth).state_dict()
    tensors = {name: tuple(tensor.shape) for name, tensor in state.items()}
    return Level(depth, tensors, tuple(families.shapes(spec, depth)), families.stages(spec, depth))
