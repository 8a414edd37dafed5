"""What the all-ones input brings through a network: the score that SynFlow differentiates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def through(
    network: nn.Module, ones: Tensor, weights: Mapping[str, Tensor], *arguments: Any
) -> Tensor:
    """Summed output of a network for its all-ones input (scalar), under weights by name.

    Args:
        arguments: of the network's forward pass, after the input.
    """
    given = (ones.to(weights["head.weight"]), *arguments)
    flowing: Tensor = torch.func.functional_call(network, dict(weights), given)
    return flowing.sum()
