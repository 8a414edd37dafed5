"""A transformer without LayerNorm on pairs of tokens, after Nanda et al. 2023.

Attention consists of four Linear layers, so that every weight is prunable. The repeated unit is the
block.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthbench.networks.hooks import untouched
from lthbench.networks.reach import attended, reached
from lthbench.networks.stages import Stage, numbered
from lthbench.networks.synflow import through
from lthbench.protocol.task import Network

Attend = Literal["softmax", "flow"]  # how values are weighted; "flow" is linear


class Block(nn.Module):
    """Attention, then an MLP, each added to the residual stream."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, hidden)
        self.down = nn.Linear(hidden, width)

    def forward(self, x: Tensor, reads: int = 0, attend: Attend = "softmax") -> Tensor:
        """Map (batch, n, width) to (batch, n - reads, width): the positions from `reads` on."""
        kept = x[:, reads:]
        q, k, v = (_split(y, self.heads) for y in (self.query(kept), self.key(x), self.value(x)))
        scores = q @ k.transpose(-1, -2)  # (batch, heads, n - reads, n)
        causal = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1 + reads)
        if attend == "flow":  # linear in query and key; n^2 because there are n of each
            attention = scores.div(x.shape[1] ** 2).masked_fill(causal, 0)
        else:
            scores = scores.div(math.sqrt(q.shape[-1])).masked_fill(causal, -math.inf)
            attention = scores.softmax(-1)
        return self._add(kept, (attention @ v).transpose(1, 2).flatten(2))

    def gather(self, rows: Tensor, where: Tensor, reads: int = 0) -> Tensor:
        """Compute `forward(rows[where], reads)`, but keys, values and scores only once per row.

        Args:
            rows: (rows, width), everything that can be at a position; the last one ends every
                example.
            where: (batch, n), the row at each position.
            reads: the first position to compute.
        """
        asking, asked = rows, where[:, reads:]
        if asked.shape[1] == 1:  # the same for all examples
            asking, asked = rows[-1:], asked.new_zeros(1, 1)
        q = self.query(asking).view(len(asking), self.heads, -1).transpose(0, 1)
        k = self.key(rows).view(len(rows), self.heads, -1).permute(1, 2, 0)
        each = (q @ k).div(math.sqrt(q.shape[-1])).flatten(1).T  # (asking * rows, heads)
        scores = F.embedding(asked[:, :, None] * len(rows) + where[:, None], each)
        causal = torch.ones_like(scores[0, ..., 0], dtype=torch.bool).triu(1 + reads)
        attention = scores.masked_fill(causal[..., None], -math.inf).softmax(2)
        v = F.embedding(where, self.value(rows)).view(*where.shape, self.heads, -1)
        mixed = (attention[..., None] * v[:, None]).sum(2)
        return self._add(F.embedding(asked, asking), mixed.flatten(2))

    def _add(self, x: Tensor, mixed: Tensor) -> Tensor:
        """Add the attention output to the residual stream, then the MLP's."""
        x = x + self.output(mixed)
        added: Tensor = self.down(F.relu(self.up(x), inplace=untouched(self.up, nn.Linear)))
        return x + added


def _split(x: Tensor, heads: int) -> Tensor:
    """Reshape (batch, n, width) to (batch, heads, n, width / heads)."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


class Transformer(nn.Module):
    """Tokens a, b, "=" to the class of a + b, read at the last position."""

    def __init__(self, spec: Network, depth: int) -> None:
        super().__init__()
        self.tokens, self.heads = spec.inputs, spec.heads
        # nn.Embedding(...) would initialise values, for which torch imports its compiler (2 s).
        table = torch.empty(spec.inputs, spec.width)
        self.embed = nn.Embedding.from_pretrained(table, freeze=False)  # type: ignore[no-untyped-call]
        self.position = nn.Parameter(torch.empty(3, spec.width))
        blocks = (Block(spec.width, spec.heads, spec.hidden) for _ in range(depth))
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.Linear(spec.width, spec.classes, bias=False)

    def forward(self, x: Tensor, attend: Attend = "softmax") -> Tensor:
        """Map (batch, 2) tokens, or (batch, 3, tokens) weights of tokens, to (batch, classes)."""
        first, *others = self.blocks
        x = self._read(x, first, 0 if others else 2, attend)
        for block in others:
            x = block(x, 2 if block is others[-1] else 0, attend)  # only the last position is read
        logits: Tensor = self.head(x[:, 0])
        return logits

    def _read(self, x: Tensor, first: nn.Module, reads: int, attend: Attend) -> Tensor:
        """Apply the first block to the tokens, (batch, 3 - reads, width).

        A token in its position is the same in every example, and many pairs share few tokens:
        computing each once halves the work in a step on all pairs.
        """
        if x.is_floating_point():
            embedded = x @ self.embed.weight
        else:
            x = torch.cat([x, x.new_full((len(x), 1), self.tokens - 1)], 1)
            if attend == "softmax" and len(x) >= self.tokens and self._is_plain(first):
                assert isinstance(first, Block)
                rows = (self.position[:, None] + self.embed.weight).flatten(0, 1)  # by place
                places = torch.arange(0, len(rows), self.tokens, device=x.device)
                return first.gather(rows, x + places, reads)
            embedded = self.embed(x)
        read: Tensor = first(embedded + self.position, reads, attend)
        return read

    def _is_plain(self, first: nn.Module) -> bool:
        """Return whether nothing modifies or observes the first block."""
        if not untouched(first, Block) or not untouched(self.embed, nn.Embedding):
            return False
        layers = (getattr(first, name) for name in ("query", "key", "value"))
        return all(untouched(layer, nn.Linear) for layer in layers)

    def ones(self) -> Tensor:
        """Return every token with weight 1 / tokens in place of one-hot, (1, 3, tokens)."""
        return torch.full((1, 3, self.tokens), 1 / self.tokens)

    def paths(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the classes reached by a path from a or b, given non-negative weights (`reach`).

        Attention counts as (1 + q k') v: query and key are on a path where value and output are.
        "=" is a constant, so what depends on it alone is no path; positions, like biases, do not
        count.
        """
        numbers = torch.zeros(3, self.tokens, dtype=torch.float64)
        equals = numbers.clone()
        numbers[:2, :-1], equals[2, -1] = 1, 1
        x = torch.stack([numbers + equals, numbers]) @ weights["embed.weight"]
        for number in range(len(self.blocks)):
            of, last = f"blocks.{number}.", number + 1 == len(self.blocks)
            x = reached(x)
            kept = x[:, 2:] if last else x  # only the last position is read
            read = ((kept, "query"), (x, "key"), (x, "value"))
            q, k, v = (_split(F.linear(y, weights[f"{of}{n}.weight"]), self.heads) for y, n in read)
            seen = torch.ones(kept.shape[1], 3, dtype=torch.float64).tril(3 - kept.shape[1])
            mixed = attended(q, k, v, seen)
            mixed = reached(mixed.transpose(1, 2).flatten(2))
            x = reached(kept + F.linear(mixed, weights[f"{of}output.weight"]))
            up = reached(F.linear(x, weights[f"{of}up.weight"]))
            x = x + F.linear(up, weights[f"{of}down.weight"])
        return reached(F.linear(reached(x)[1], weights["head.weight"])).sum()

    def flow(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the synaptic flow R of non-negative weights by name.

        Attention is (q k' / n^2) v in place of softmax, with n tokens.
        """
        return through(self, self.ones(), weights, "flow")

    @staticmethod
    def stages(_spec: Network, depth: int) -> tuple[Stage, ...]:
        """Return all blocks as one stage."""
        return (numbered("blocks.", range(depth)),)
