"""Networks, recipes and examples of a few units each, shared by tests that train."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol.task import Network, Recipe
from lthbench.training import dispatch
from lthbench.training.job import Examples, Job

TOKENS = 7
FEATURES = 6
CLASSES = 5
SIDE, CHANNELS = 8, 2
IMAGES = ("conv", "resnet", "vit")

WEIGHTS = {"tensors": ("*",), "distribution": "normal", "value": 0.5}
TABLES: dict[str, dict[str, Any]] = {
    "mlp": {
        "family": "mlp",
        "depth": 2,
        "inputs": FEATURES,
        "width": 8,
        "neck": 4,
        "prunable": ("hidden.*.weight", "neck.weight", "head.weight"),
    },
    "pair-mlp": {
        "family": "pair-mlp",
        "depth": 2,
        "inputs": TOKENS,
        "embedding": 4,
        "width": 8,
        "prunable": ("embed.weight", "hidden.*.weight", "head.weight"),
    },
    "transformer": {
        "family": "transformer",
        "depth": 1,
        "inputs": TOKENS + 1,
        "width": 8,
        "heads": 2,
        "hidden": 6,
        "prunable": ("embed.weight", "blocks.*.weight", "head.weight"),
    },
    "conv": {
        "depth": 1,
        "width": 2,
        "hidden": 4,
        "prunable": ("conv.*.weight", "hidden.*.weight", "head.weight"),
    },
    "resnet": {
        "depth": 1,
        "width": 2,
        "prunable": ("stem.weight", "*.conv?.weight", "*.shortcut.weight", "head.weight"),
        "init": (
            {**WEIGHTS, "tensors": ("*weight", "*bias", "*running_mean")},
            {"tensors": ("*running_var",), "distribution": "constant", "value": 1.0},
        ),
    },
    "vit": {
        "depth": 1,
        "patch": 4,
        "width": 4,
        "heads": 2,
        "hidden": 6,
        "prunable": ("patch_embed.proj.weight", "*.attn.*.weight", "*.fc?.weight", "head.weight"),
    },
}
for _family in IMAGES:
    _image = {"inputs": CHANNELS * SIDE**2, "channels": CHANNELS, "side": SIDE}
    TABLES[_family] = {"family": _family, **_image, **TABLES[_family]}
FAMILIES = tuple(TABLES)

OPTIMISERS: dict[str, dict[str, Any]] = {
    "sgd": {"optimiser": "sgd", "rate": 0.1},
    "sgd-momentum": {"optimiser": "sgd", "rate": 0.1, "momentum": 0.9, "weight_decay": 0.01},
    "adam": {"optimiser": "adam", "rate": 0.03},
    "adam-decay": {"optimiser": "adam", "rate": 0.03, "weight_decay": 0.01},
    "adamw": {"optimiser": "adamw", "rate": 0.03, "weight_decay": 0.5},
}


def network(family: str = "mlp", **changes: Any) -> Network:
    """A small network of a family; every tensor is drawn, biases too, so that none is special."""
    return Network.model_validate(
        {"classes": CLASSES, "init": (WEIGHTS,), **TABLES[family], **changes}
    )


def recipe(optimiser: str = "adam", **changes: Any) -> Recipe:
    """A hundred steps of ten examples."""
    table = {"schedule": "linear", "steps": 100, "batch": 10, "decayed": ("*.weight",)}
    return Recipe.model_validate({**table, **OPTIMISERS[optimiser], **changes})


def examples(family: str = "mlp", count: int = 64, seed: int = 0) -> Examples:
    """Examples that follow a rule which a small network can learn; no two inputs are equal."""
    draw = np.random.default_rng(seed)
    if family == "mlp":
        x = draw.integers(0, 256, (count, FEATURES)).astype(np.uint8)
        y = x[:, 0] // 52
        return Examples(torch.from_numpy(x), torch.from_numpy(y), scale=1 / 128, shift=-1.0)
    if family in IMAGES:
        x = draw.integers(0, 256, (count, SIDE, SIDE, CHANNELS)).astype(np.uint8)
        x[:, :4] //= 2
        x[:, 2:6, 2:6, 0] = x[:, :1, :1, 0]  # a plain square whose brightness is the class
        y = x[:, 3, 3, 0] // 26
        scale, shift = (1 / 64, 1 / 128), (-1.0, -1.5)
        return Examples(torch.from_numpy(x), torch.from_numpy(y), scale, shift)
    pairs = np.array([(a, b) for a in range(TOKENS) for b in range(TOKENS)], dtype=np.uint8)
    x = pairs[draw.permutation(len(pairs))[:count]]
    y = ((x[:, 0] + x[:, 1]) % TOKENS % CLASSES).astype(np.uint8)
    return Examples(torch.from_numpy(x), torch.from_numpy(y), tokens=True)


def masks(of: Network, depth: int, density: float = 0.4, seed: int = 0) -> dict[str, Tensor]:
    """Random masks whose first tensor is full and whose second has an empty row."""
    draw = np.random.default_rng(seed)
    drawn = {
        name: torch.from_numpy(draw.random(shape) < density)
        for name, shape in families.shapes(of, depth).items()
    }
    first, second, *_ = drawn.values()
    first[:], second[1] = True, False
    return drawn


def trained_by(patch: pytest.MonkeyPatch, run: Callable[..., Any]) -> None:
    """Put a function in the place of every engine."""
    for name in dispatch.RUN:
        patch.setitem(dispatch.RUN, name, run)


def job(
    family: str = "mlp",
    key: str = "job",
    *,
    seed: int = 0,
    start: State | None = None,
    masks: Mapping[str, Tensor] | None = None,
    recipe: Recipe | None = None,
    until: int | None = None,
    order: tuple[str, ...] = ("data", "dense", "0"),
) -> Job:
    """A training of a small network from its initial weights to the recipe's end."""
    of = network(family)
    trained = recipe or globals()["recipe"]()
    begin = start or families.initial(of, of.depth, seed)
    end = trained.steps if until is None else until
    return Job(of, of.depth, begin, masks, trained, end, seed, order, key)
