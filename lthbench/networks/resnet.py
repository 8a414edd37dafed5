"""Residual networks for small images (He et al. 2016, section 4.2), with 1x1 projections.

As in open_lth: a stem, stages of basic blocks, each stage twice as wide as the previous one,
average pooling, classes; where a block changes the shape, its shortcut is a 1x1 convolution with a
norm. The repeated unit is the block, and depth counts blocks per stage: ResNet-20 has three stages
of depth 3. A signal is an image of height one, and its kernels have height one too.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthbench.networks.reach import reached
from lthbench.networks.stages import Stage, numbered
from lthbench.protocol.task import Network


class Norm(nn.Module):
    """Batch norm whose state is float32 only: torch's own counts batches in an integer."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.momentum = 0.1
        self.weight = nn.Parameter(torch.empty(width))
        self.bias = nn.Parameter(torch.empty(width))
        self.register_buffer("running_mean", torch.empty(width))
        self.register_buffer("running_var", torch.empty(width))

    def forward(self, x: Tensor, linear: bool = False) -> Tensor:
        """Normalise (batch, width, height, width of the image); if linear, only scale it."""
        if linear:
            return x * self.weight[:, None, None]
        statistics = self.running_mean, self.running_var
        return F.batch_norm(
            x, *statistics, self.weight, self.bias, self.training, self.momentum, eps=1e-5
        )


class Block(nn.Module):
    """Two convolutions with kernels of side 3, added to their input."""

    def __init__(self, spec: Network, reads: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _convolution(spec, reads, width, 3, stride)
        self.norm1 = Norm(width)
        self.conv2 = _convolution(spec, width, width, 3)
        self.norm2 = Norm(width)
        changes = stride != 1 or reads != width
        self.shortcut = _convolution(spec, reads, width, 1, stride) if changes else None
        self.shortcut_norm = Norm(width) if changes else None

    def forward(self, x: Tensor, linear: bool = False) -> Tensor:
        """Map (batch, reads, ...) to (batch, width, ...); if linear, without ReLU."""
        y = F.relu(self.norm1(self.conv1(x), linear))
        y = self.norm2(self.conv2(y), linear)
        if self.shortcut is not None and self.shortcut_norm is not None:
            x = self.shortcut_norm(self.shortcut(x), linear)
        return F.relu(x + y)


class ResNet(nn.Module):
    """A network of 2 * stages * depth + 2 weight layers, not counting shortcuts."""

    def __init__(self, spec: Network, depth: int) -> None:
        super().__init__()
        self.image = (1, spec.channels, *spec.sides(spec.side))
        self.stem = _convolution(spec, spec.channels, spec.width, spec.stem)
        self.norm = Norm(spec.width)
        widths = [spec.width * 2**stage for stage in range(spec.stages)]
        self.stage = nn.ModuleList(
            nn.ModuleList(
                _blocks(spec, widths[max(0, stage - 1)], widths[stage], depth, bool(stage))
            )
            for stage in range(spec.stages)
        )
        self.head = nn.Linear(widths[-1], spec.classes)

    def forward(self, x: Tensor, linear: bool = False, only_reach: bool = False) -> Tensor:
        """Map (batch, channels, side, side) or (batch, side) to (batch, classes)."""
        if x.ndim == 2:
            x = x[:, None, None]
        x = F.relu(self.norm(self.stem(x), linear))
        for blocks in self.stage:
            for block in blocks:  # type: ignore[attr-defined]
                x = block(reached(x) if only_reach else x, linear)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits

    def ones(self) -> Tensor:
        """Return the all-ones input, (1, channels, side, side); for a signal (1, 1, 1, side)."""
        return torch.ones(self.image)

    def paths(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Return a positive value where a path leads to a class, given non-negative weights.

        A shortcut without weights is a path of its own.
        """
        return self._linear(weights, torch.float64, only_reach=True)

    def flow(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the synaptic flow R of non-negative weights by name; norms only scale."""
        return self._linear(weights, weights["head.weight"].dtype)

    def _linear(
        self, weights: Mapping[str, Tensor], dtype: torch.dtype, only_reach: bool = False
    ) -> Tensor:
        ones = self.ones().to(weights["head.weight"].device, dtype)
        linear = {"linear": True, "only_reach": only_reach}
        counted: Tensor = torch.func.functional_call(self, dict(weights), (ones,), linear)
        return counted.sum()  # ReLU does not change non-negative values

    @staticmethod
    def stages(spec: Network, depth: int) -> tuple[Stage, ...]:
        """Return every stage; the first block of each is fixed."""
        return tuple(numbered(f"stage.{s}.", range(depth), fixed=True) for s in range(spec.stages))


def _convolution(spec: Network, reads: int, width: int, side: int, stride: int = 1) -> nn.Conv2d:
    """Build a convolution that keeps the size at stride 1; a signal's kernel has height 1."""
    kernel = spec.sides(side)
    padding = (kernel[0] // 2, kernel[1] // 2)
    return nn.Conv2d(reads, width, kernel, spec.sides(stride), padding, bias=False)


def _blocks(spec: Network, reads: int, width: int, depth: int, halves: bool) -> list[Block]:
    """Build one stage; all stages but the first halve the image."""
    first = Block(spec, reads, width, 2 if halves else 1)
    return [first, *(Block(spec, width, width) for _ in range(depth - 1))]
