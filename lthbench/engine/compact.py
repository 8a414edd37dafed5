"""The compact engine: multilayer perceptrons on a CPU (being written)."""

from __future__ import annotations

from lthbench.engine.plain import run as run
from lthbench.task import Network


def able(network: Network) -> bool:
    """Whether this engine trains a family."""
    return False
