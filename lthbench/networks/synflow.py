"""The output of a network for its all-ones input: the score that SynFlow differentiates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def through(
    network: nn.Module, ones: Tensor, weights: Mapping[str, Tensor], *arguments: Any
) -> Tensor:
    """Return the summed output of a network for its all-ones input (scalar).

    Args:
        network: the module.
        ones: its all-ones input.
        weights: tensors to use in place of the network's, by name.
        *arguments: further arguments of the network's forward pass.
    """
    given = (ones.to(weights["head.weight"]), *arguments)
    flowing: Tensor = torch.func.functional_call(network, dict(weights), given)
    return flowing.sum()
