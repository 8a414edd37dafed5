"""A vision transformer built from timm's parts (Dosovitskiy et al. 2021), read at the class token.

Queries, keys and values are one Linear layer and their output another, so that every weight is
prunable. The repeated unit is the block. Tensors have timm's names; timm itself takes seconds to
import and is imported only when the network is built.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lthbench.networks.reach import attended, reached
from lthbench.networks.stages import Stage, numbered
from lthbench.protocol.task import Network


class ViT(nn.Module):
    """Patches and a class token, blocks of attention and an MLP after LayerNorms, classes."""

    def __init__(self, spec: Network, depth: int) -> None:
        super().__init__()
        whole = _timm(spec, depth)
        self.image = (1, spec.channels, *spec.sides(spec.side))
        self.patch, self.heads = spec.sides(spec.patch), spec.heads
        self.cls_token: nn.Parameter = whole.cls_token  # type: ignore[assignment]
        self.pos_embed: nn.Parameter = whole.pos_embed  # type: ignore[assignment]
        self.patch_embed, self.blocks = whole.patch_embed, whole.blocks
        self.norm, self.head = whole.norm, whole.head
        for block in self.blocks:  # type: ignore[union-attr]
            block.attn.fused_attn = False  # the fused kernels have no second derivatives

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, side, side) or (batch, side) to (batch, classes)."""
        if x.ndim == 2:
            x = x[:, None, None]
        first = self.cls_token.expand(len(x), -1, -1)
        x = torch.cat([first, self.patch_embed(x)], 1) + self.pos_embed  # type: ignore[operator]
        x = self.norm(self.blocks(x))  # type: ignore[operator]
        logits: Tensor = self.head(x[:, 0])  # type: ignore[operator]
        return logits

    def ones(self) -> Tensor:
        """Return the all-ones input, (1, channels, side, side); for a signal (1, 1, 1, side)."""
        return torch.ones(self.image)

    def paths(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the classes reached by a path from the image, given non-negative weights.

        Attention counts as (1 + q k') v: query and key are on a path where value and output are.
        The class token is a constant, so what depends on it alone is no path; positions, like
        biases, do not count.
        """
        patches = self._patches(weights, self.ones().double())
        first = weights["cls_token"]
        x = torch.cat(
            [torch.cat([first, patches], 1), torch.cat([torch.zeros_like(first), patches], 1)]
        )
        for number in range(len(self.blocks)):  # type: ignore[arg-type]
            of = f"blocks.{number}."
            x = reached(x)
            q, k, v = self._heads(weights, of, x * weights[f"{of}norm1.weight"])
            mixed = reached(attended(q, k, v).transpose(1, 2).flatten(2))
            x = reached(x + F.linear(mixed, weights[f"{of}attn.proj.weight"]))
            y = x * weights[f"{of}norm2.weight"]
            up = reached(F.linear(y, weights[f"{of}mlp.fc1.weight"]))
            x = x + F.linear(up, weights[f"{of}mlp.fc2.weight"])
        y = reached(x)[1, :1] * weights["norm.weight"]
        return reached(F.linear(y, weights["head.weight"])).sum()

    def flow(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the synaptic flow R of non-negative weights by name.

        Attention is (q k' / n^2) v in place of softmax, with n tokens; LayerNorm only scales.
        """
        ones = self.ones().to(weights["head.weight"])
        tokens = torch.cat([weights["cls_token"], self._patches(weights, ones)], 1)
        x = tokens + weights["pos_embed"]
        for number in range(len(self.blocks)):  # type: ignore[arg-type]
            of = f"blocks.{number}."
            q, k, v = self._heads(weights, of, _scaled(x, weights[f"{of}norm1.weight"]))
            attention = q @ k.transpose(-1, -2) / x.shape[1] ** 2
            mixed = (attention @ v).transpose(1, 2).flatten(2)
            x = x + F.linear(mixed, weights[f"{of}attn.proj.weight"])
            y = _scaled(x, weights[f"{of}norm2.weight"])
            up = F.linear(y, weights[f"{of}mlp.fc1.weight"])
            x = x + F.linear(up, weights[f"{of}mlp.fc2.weight"])
        x = _scaled(x, weights["norm.weight"])
        return F.linear(x[:, 0], weights["head.weight"]).sum()

    def _patches(self, weights: Mapping[str, Tensor], x: Tensor) -> Tensor:
        """Map (1, channels, side, side) to (1, patches, width), without the bias."""
        patches = F.conv2d(x, weights["patch_embed.proj.weight"], stride=self.patch)
        return patches.flatten(2).transpose(1, 2)

    def _heads(self, weights: Mapping[str, Tensor], of: str, x: Tensor) -> Tensor:
        """Compute queries, keys and values of tokens (batch, n, width), without the biases.

        Returns:
            (3, batch, heads, n, width / heads).
        """
        both = F.linear(x, weights[f"{of}attn.qkv.weight"])
        return both.view(*both.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)

    @staticmethod
    def stages(_spec: Network, depth: int) -> tuple[Stage, ...]:
        """Return all blocks as one stage."""
        return (numbered("blocks.", range(depth)),)


def _scaled(x: Tensor, scale: Tensor) -> Tensor:
    """Make a LayerNorm linear: multiply by its scale, divide by the input's mean as a constant.

    Without that constant a block of attention cubes its input, and five blocks overflow float64.
    """
    mean = float(x.detach().mean())
    return x * (scale / (mean or 1.0))


def _timm(spec: Network, depth: int) -> nn.Module:
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(
        img_size=spec.sides(spec.side),
        patch_size=spec.sides(spec.patch),
        in_chans=spec.channels,
        num_classes=spec.classes,
        embed_dim=spec.width,
        depth=depth,
        num_heads=spec.heads,
        mlp_ratio=(spec.hidden + 0.5) / spec.width,  # rounded down there
        weight_init="skip",
    )
