"""States: every parameter and buffer of a network by name, and the step they were taken at."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor


class State(Mapping[str, Tensor]):
    """Read-only weights (on the CPU) and their step; reading a tensor returns a copy.

    Args:
        tensors: every parameter and buffer of the network by name; not copied.
        step: optimiser steps since theta_0, along the whole lineage.
    """

    def __init__(self, tensors: Mapping[str, Tensor], step: int) -> None:
        self._tensors = dict(tensors)
        self.step = step

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name].clone()

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"State(step={self.step}, tensors={list(self._tensors)})"

    def tensors(self) -> dict[str, Tensor]:
        """Return a copy of all tensors, by name."""
        return {name: tensor.clone() for name, tensor in self._tensors.items()}

    @property
    def digest(self) -> str:
        """The sha256 of names, types, shapes, bytes and the step."""
        return digest(self._tensors, self.step)


def digest(tensors: Mapping[str, Tensor], step: int) -> str:
    """Return the sha256 of sorted names, types, shapes, bytes and step; any device, any order."""
    running = hashlib.sha256(f"step {step}".encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        running.update(f"|{name} {tensor.dtype} {tuple(tensor.shape)}|".encode())
        running.update(bits(tensor).numpy().tobytes())
    return running.hexdigest()


def bits(tensor: Tensor) -> Tensor:
    """Return the tensor's bytes: comparing them distinguishes -0 from 0, and NaN equals itself."""
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def same(a: Tensor, b: Tensor) -> bool:
    """Return whether two tensors agree in type, shape and every bit."""
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))
