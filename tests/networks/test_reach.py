"""Which weights lie on a path, against numbers of paths in integers.

A weight is on a path exactly if the number of paths is another without it. In deep networks with
attention it has millions of digits, so it is counted modulo a prime that has 38.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from lthbench.networks import families
from lthbench.protocol.task import Network
from tests import tiny

Ints = NDArray[np.object_]  # of Python's integers
Weights = Mapping[str, Ints]
PRIME = 2**127 - 1
REMOVED = 12  # weights of an example that are taken away one by one
SMALL = {"side": 4, "inputs": 16 * tiny.CHANNELS}


def whole(array: NDArray[np.generic]) -> Ints:
    return array.astype(int).astype(object)


def paths(spec: Network, depth: int, weights: Weights) -> int:
    """The number of paths modulo the prime, counted by each family's own arithmetic."""
    counters = {"mlp": mlp, "pair-mlp": mlp, "transformer": transformer, "resnet": resnet}
    return (counters | {"vit": vit})[spec.family](spec, depth, weights) % PRIME


def mlp(spec: Network, depth: int, weights: Weights) -> int:
    x = whole(np.ones(spec.inputs))
    if spec.family == "pair-mlp":
        x = np.concatenate([x @ weights["embed.weight"]] * 2)
    for name in [f"hidden.{n}" for n in range(depth)] + ["neck"] * bool(spec.neck) + ["head"]:
        x = weights[f"{name}.weight"] @ x
    return int(x.sum())


def attention(q: Ints, k: Ints, v: Ints, heads: int, causal: bool) -> Ints:
    """(1 + q k') v by head, of the last of n positions that are given all keys."""
    parts = []
    for q1, k1, v1 in zip(*(np.split(x, heads, 1) for x in (q, k, v)), strict=True):
        scores = 1 + q1 @ k1.T
        if causal:
            late = len(k1) - len(q1)
            scores = scores * np.tri(len(q1), len(k1), late, dtype=int).astype(object)
        parts.append(scores @ v1)
    return np.concatenate(parts, 1)


def transformer(spec: Network, depth: int, weights: Weights) -> int:
    def at(scale: int) -> int:
        numbers = weights["embed.weight"][:-1].sum(0) * scale
        x = np.stack([numbers, numbers, weights["embed.weight"][-1]])
        for n in range(depth):
            w = {k: weights[f"blocks.{n}.{k}.weight"].T for k in PARTS}
            kept = x[-1:] if n + 1 == depth else x
            mixed = attention(kept @ w["query"], x @ w["key"], x @ w["value"], spec.heads, True)
            x = kept + mixed @ w["output"]
            x = (x + x @ w["up"] @ w["down"]) % PRIME
        return int((x @ weights["head.weight"].T).sum())

    return at(2) - at(0)  # what grows with a and b; constants alone make no path


PARTS = ("query", "key", "value", "output", "up", "down")


def vit(spec: Network, depth: int, weights: Weights) -> int:
    def at(scale: int) -> int:
        patch = weights["patch_embed.proj.weight"].reshape(spec.width, -1).sum(1) * scale
        x = np.stack([whole(np.ones(spec.width)), *[patch] * (spec.side // spec.patch) ** 2])
        for n in range(depth):
            w = {k: weights[f"blocks.{n}.{k}.weight"].T for k in VIT_PARTS}
            q, k, v = np.split(x @ w["attn.qkv"], 3, 1)
            x = x + attention(q, k, v, spec.heads, False) @ w["attn.proj"]
            x = (x + x @ w["mlp.fc1"] @ w["mlp.fc2"]) % PRIME
        return int((weights["head.weight"] @ x[0]).sum())

    return at(2) - at(0)


VIT_PARTS = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")


def convolved(x: Ints, weight: Ints, stride: int) -> Ints:
    """(channels, side, side) to (out, side / stride, side / stride)."""
    size = weight.shape[-1]
    side, pad = x.shape[-1], size // 2
    framed = whole(np.zeros((len(x), side + 2 * pad, side + 2 * pad)))
    framed[:, pad : pad + side, pad : pad + side] = x
    flat, at = weight.reshape(len(weight), -1), range(0, side, stride)
    read = [framed[:, i : i + size, j : j + size].reshape(-1) for i in at for j in at]
    return (flat @ np.stack(read, 1)).reshape(len(weight), len(at), len(at))


def resnet(spec: Network, depth: int, weights: Weights) -> int:
    x = convolved(whole(np.ones((spec.channels, spec.side, spec.side))), weights["stem.weight"], 1)
    for stage in range(3):
        for n in range(depth):
            of, stride = f"stage.{stage}.{n}.", 2 if stage and not n else 1
            y = convolved(x, weights[f"{of}conv1.weight"], stride)
            y = convolved(y, weights[f"{of}conv2.weight"], 1)
            shortcut = weights.get(f"{of}shortcut.weight")
            x = (y + (x if shortcut is None else convolved(x, shortcut, stride))) % PRIME
    return int((weights["head.weight"] @ x.sum((1, 2))).sum())


def drawn(spec: Network, depth: int, density: float, seed: int) -> dict[str, Tensor]:
    """Random masks, with rows and columns that keep nothing."""
    dice = np.random.default_rng(seed)
    masks = {}
    for name, shape in families.shapes(spec, depth).items():
        mask = dice.random(shape) < density
        mask[dice.random(shape[0]) < 0.2] = False
        mask[:, dice.random(shape[1]) < 0.2] = False
        masks[name] = torch.from_numpy(mask)
    return masks


@pytest.mark.parametrize("family", ["mlp", "pair-mlp", "transformer", "vit", "resnet"])
@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_a_weight_is_on_a_path_exactly_if_there_are_others_without_it(
    family: str, data: st.DataObject
) -> None:
    depth = data.draw(st.integers(1, 12))
    small = SMALL if family in tiny.IMAGES else {}
    spec = tiny.network(family, **small)
    density, seed = data.draw(st.sampled_from([0.15, 0.4, 0.8])), data.draw(st.integers(0, 999))
    masks = drawn(spec, depth, density, seed)
    alive = families.effective(spec, depth, masks)
    counts = {name: whole(mask.numpy()) for name, mask in masks.items()}
    every = paths(spec, depth, counts)
    assert any(bool(kept.any()) for kept in alive.values()) == bool(every)
    places = [(n, tuple(at)) for n, mask in masks.items() for at in mask.nonzero().tolist()]
    for chosen in np.random.default_rng(seed).permutation(len(places))[:REMOVED]:
        name, at = places[chosen]
        counts[name][at] = 0
        fewer = paths(spec, depth, counts)
        counts[name][at] = 1
        assert bool(alive[name][at]) == (fewer != every), (name, at)


@pytest.mark.parametrize("family", ["transformer", "vit", "resnet"])
def test_all_of_a_dense_network_is_on_a_path_at_any_depth(family: str) -> None:
    """Its number of paths is far beyond what a float holds."""
    spec = tiny.network(family, **(SMALL if family in tiny.IMAGES else {}))
    masks = {n: torch.ones(s, dtype=torch.bool) for n, s in families.shapes(spec, 24).items()}
    alive = families.effective(spec, 24, masks)
    dead = {name: int((~kept).sum()) for name, kept in alive.items() if not kept.all()}
    # A last stage of one pixel reads of each kernel its middle alone.
    assert family == "resnet" or not dead
    for name in dead:
        assert "stage.2" in name and bool(alive[name][:, :, 1, 1].all())


@settings(max_examples=50, deadline=None)
@given(density=st.sampled_from([0.05, 0.2, 0.6]), seed=st.integers(0, 9999))
def test_nodes_of_an_mlp_are_those_that_inputs_reach_and_that_reach_a_class(
    density: float, seed: int
) -> None:
    spec = tiny.network("mlp")
    masks = drawn(spec, 2, density, seed)
    layers = [mask.numpy() for mask in masks.values()]  # (out, in), in order
    edges = {
        ((n, int(i)), (n + 1, int(o)))
        for n, layer in enumerate(layers)
        for o, i in np.argwhere(layer)
    }
    forward = walked({(0, i) for i in range(spec.inputs)}, edges)
    ends = {(len(layers), o) for o in range(spec.classes)}
    backward = walked(ends, {(b, a) for a, b in edges})
    on_a_path = {node for node in forward & backward if node[0] > 0}
    # A class is an end of its own: only one that is reached from the input lies on a path.
    assert families.effective_nodes(families.effective(spec, 2, masks)) == len(on_a_path)


def walked(
    start: set[tuple[int, int]], edges: set[tuple[tuple[int, int], tuple[int, int]]]
) -> set[tuple[int, int]]:
    """All nodes that these edges lead to, step by step."""
    known = set(start)
    while new := {b for a, b in edges if a in known} - known:
        known |= new
    return known


def test_operations_of_a_masked_mlp_are_two_a_kept_weight() -> None:
    spec = tiny.network("mlp")
    masks = drawn(spec, 2, 0.4, 3)
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert families.sparse_flops(spec, 2, masks) == 2 * kept
    assert families.flops(spec, 2) == 2 * (6 * 8 + 8 * 8 + 8 * 4 + 4 * 5)


def test_operations_of_a_masked_convolution_are_two_a_kept_weight_and_pixel() -> None:
    """Conv-2: both convolutions see 8x8 pixels, the rest is dense layers."""
    spec = tiny.network("conv")
    masks = drawn(spec, 1, 0.4, 3)
    pixels = {name: 64 if name.startswith("conv") else 1 for name in masks}
    by_hand = sum(2 * pixels[name] * int(mask.sum()) for name, mask in masks.items())
    assert families.sparse_flops(spec, 1, masks) == by_hand


def test_operations_of_attention_are_counted_dense() -> None:
    """Of one block, of which only the last of three positions is read."""
    spec = tiny.network("transformer")
    masks = {n: torch.zeros(s, dtype=torch.bool) for n, s in families.shapes(spec, 1).items()}
    # Scores and values of one query and three keys, in two heads of four.
    assert families.sparse_flops(spec, 1, masks) == 2 * (2 * 3 * 4) * 2
    masks["blocks.0.key.weight"][0, :] = True  # read at three places
    assert families.sparse_flops(spec, 1, masks) == 2 * (2 * 3 * 4) * 2 + 2 * 8 * 3
