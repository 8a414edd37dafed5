"""Multilayer perceptrons on features, and on pairs of tokens.

The repeated unit is the square hidden layer: `hidden.1`, `hidden.2`, …; `hidden.0` is the stem of a
network on features, and the first of the equal layers of a network on pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthbench.networks.hooks import untouched
from lthbench.networks.reach import reached
from lthbench.networks.stages import Stage, numbered
from lthbench.networks.synflow import through
from lthbench.protocol.task import Network


class MLP(nn.Module):
    """inputs - width x depth - neck - classes, ReLU between them; LeNet-300-100 is depth 1."""

    def __init__(self, spec: Network, depth: int) -> None:
        super().__init__()
        self.inputs = spec.inputs
        self.hidden = _hidden(spec.inputs, spec.width, depth)
        last = spec.neck or spec.width
        self.neck = nn.Linear(spec.width, spec.neck) if spec.neck else None
        self.head = nn.Linear(last, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, ...) to (batch, classes)."""
        x = x.flatten(1)
        for layer in self.hidden:
            x = F.relu(layer(x), inplace=untouched(layer, nn.Linear))
        if self.neck is not None:
            x = F.relu(self.neck(x), inplace=untouched(self.neck, nn.Linear))
        logits: Tensor = self.head(x)
        return logits

    def ones(self) -> Tensor:
        """Return the all-ones input, (1, inputs)."""
        return torch.ones(1, self.inputs)

    def paths(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the classes that a path leads to, given non-negative weights by name (`reach`)."""
        neck = ("neck",) if self.neck is not None else ()
        hidden = (*(f"hidden.{n}" for n in range(len(self.hidden))), *neck)
        return _chain(torch.ones(1, self.inputs, dtype=torch.float64), hidden, weights)

    def flow(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the synaptic flow R of non-negative weights by name."""
        return through(self, self.ones(), weights)

    @staticmethod
    def stages(_spec: Network, depth: int) -> tuple[Stage, ...]:
        """Return the square layers; the first hidden layer reads the features and is the stem."""
        return (numbered("hidden.", range(1, depth)),)


class PairMLP(nn.Module):
    """Two tokens with one embedding table, concatenated; width x depth; classes."""

    def __init__(self, spec: Network, depth: int) -> None:
        super().__init__()
        self.tokens = spec.inputs
        # nn.Embedding(...) would initialise values, for which torch imports its compiler (2 s).
        table = torch.empty(spec.inputs, spec.embedding)
        self.embed = nn.Embedding.from_pretrained(table, freeze=False)  # type: ignore[no-untyped-call]
        self.hidden = _hidden(2 * spec.embedding, spec.width, depth)
        self.head = nn.Linear(spec.width, spec.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 2) tokens, or (batch, 2, tokens) weights of tokens, to (batch, classes)."""
        first, *others = self.hidden
        x = F.relu(self._read(x, first), inplace=untouched(first, nn.Linear))
        for layer in others:
            x = F.relu(layer(x), inplace=untouched(layer, nn.Linear))
        logits: Tensor = self.head(x)
        return logits

    def _read(self, x: Tensor, first: nn.Module) -> Tensor:
        """Apply the first layer to two concatenated embeddings, (batch, width).

        The result is the sum of each token's contribution in its position, and many pairs share few
        tokens: multiplying each token once saves a fifth of the work in a step on all pairs.
        """
        if x.is_floating_point():
            read: Tensor = first((x @ self.embed.weight).flatten(1))
        elif len(x) < self.tokens or not (
            untouched(first, nn.Linear) and untouched(self.embed, nn.Embedding)
        ):
            read = first(self.embed(x).flatten(1))
        else:
            assert isinstance(first, nn.Linear)
            left, right = first.weight.chunk(2, dim=1)
            lefts = F.linear(self.embed.weight, left, first.bias)
            rights = F.linear(self.embed.weight, right)
            read = F.embedding(x[:, 0], lefts) + F.embedding(x[:, 1], rights)
        return read

    def ones(self) -> Tensor:
        """Return every token with weight 1 / tokens in place of one-hot, (1, 2, tokens)."""
        return torch.full((1, 2, self.tokens), 1 / self.tokens)

    def paths(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the classes that a path leads to, given non-negative weights by name (`reach`)."""
        tokens = torch.ones(1, 2, self.tokens, dtype=torch.float64)
        embedded = reached(tokens @ weights["embed.weight"]).flatten(1)
        return _chain(embedded, [f"hidden.{n}" for n in range(len(self.hidden))], weights)

    def flow(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the synaptic flow R of non-negative weights by name."""
        return through(self, self.ones(), weights)

    @staticmethod
    def stages(spec: Network, depth: int) -> tuple[Stage, ...]:
        """Return every hidden layer: two concatenated embeddings are as wide as a layer."""
        square = 2 * spec.embedding == spec.width
        return (numbered("hidden.", range(0 if square else 1, depth)),)


def _chain(x: Tensor, hidden: Iterable[str], weights: Mapping[str, Tensor]) -> Tensor:
    """Pass inputs (1, n) through these layers and the head, and sum; biases begin no path."""
    for name in hidden:
        x = reached(F.linear(x, weights[f"{name}.weight"]))
    return reached(F.linear(x, weights["head.weight"])).sum()


def _hidden(inputs: int, width: int, depth: int) -> nn.ModuleList:
    sizes = [inputs] + [width] * depth
    return nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(sizes))
