"""Plain convolutional networks without norms: Conv-2, -4 and -6 of Frankle & Carbin 2019.

Depth counts pairs of convolutions, each twice as wide as the previous pair and followed by pooling:
Conv-4 has depth 2. All pairs differ in shape, so there is no repeated block.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthbench.networks.stages import Stage
from lthbench.networks.synflow import through
from lthbench.protocol.task import Network


class Conv(nn.Module):
    """Pairs of 3x3 convolutions and pooling, two hidden layers, classes; ReLU between them."""

    def __init__(self, spec: Network, depth: int) -> None:
        super().__init__()
        self.image = (1, spec.channels, spec.side, spec.side)
        widths = [spec.channels, *(spec.width * 2 ** (n // 2) for n in range(2 * depth))]
        self.conv = nn.ModuleList(
            nn.Conv2d(reads, width, 3, padding=1) for reads, width in pairwise(widths)
        )
        features = widths[-1] * (spec.side // 2**depth) ** 2
        first, second = nn.Linear(features, spec.hidden), nn.Linear(spec.hidden, spec.hidden)
        self.hidden = nn.ModuleList([first, second])
        self.head = nn.Linear(spec.hidden, spec.classes)

    def forward(self, x: Tensor, pool: Callable[[Tensor, int], Tensor] = F.max_pool2d) -> Tensor:
        """Map (batch, channels, side, side) to (batch, classes)."""
        for number, layer in enumerate(self.conv):
            x = F.relu(layer(x))
            if number % 2:
                x = pool(x, 2)
        x = x.flatten(1)
        for layer in self.hidden:
            x = F.relu(layer(x))
        logits: Tensor = self.head(x)
        return logits

    def ones(self) -> Tensor:
        """Return the all-ones input, (1, channels, side, side)."""
        return torch.ones(self.image)

    def paths(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Count the paths from input to output, given non-negative weights by name.

        Pooling is a sum: whichever of its inputs is the largest, each has a path through it.
        """
        ones = self.ones().double()
        pool = {"pool": F.avg_pool2d}  # a quarter of the sum
        counted: Tensor = torch.func.functional_call(self, dict(weights), (ones,), pool)
        return counted.sum()  # ReLU does not change non-negative values

    def flow(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the synaptic flow R of non-negative weights by name; pooling takes the maximum."""
        return through(self, self.ones(), weights)

    @staticmethod
    def stages(_spec: Network, _depth: int) -> tuple[Stage, ...]:
        """Return no stages."""
        return ()
