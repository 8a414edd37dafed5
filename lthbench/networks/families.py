"""Dense networks by family and depth: built empty, then initialised as the task specifies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from lthbench import seeds
from lthbench.errors import TaskError
from lthbench.networks import conv, mlp, resnet, transformer, vit
from lthbench.networks.stages import Stage
from lthbench.networks.state import State
from lthbench.protocol.task import Init, Network, matching

FAMILIES = {
    "mlp": mlp.MLP,
    "pair-mlp": mlp.PairMLP,
    "transformer": transformer.Transformer,
    "conv": conv.Conv,
    "resnet": resnet.ResNet,
    "vit": vit.ViT,
}


def build(spec: Network, depth: int) -> nn.Module:
    """Build the dense module of a family at a depth on the meta device: shapes, no values."""
    with torch.device("meta"):
        module: nn.Module = FAMILIES[spec.family](spec, depth)
        return module


def shapes(spec: Network, depth: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every prunable tensor, by name, in the module's order."""
    module = build(spec, depth)
    parameters = {name: tuple(p.shape) for name, p in module.named_parameters()}
    return {name: parameters[name] for name in matching(tuple(parameters), spec.prunable)}


def prunable_weights(spec: Network, depth: int) -> int:
    """Return N, the number of prunable weights of a family at a depth."""
    return sum(math.prod(shape) for shape in shapes(spec, depth).values())


def stages(spec: Network, depth: int) -> tuple[Stage, ...]:
    """Return the runs of repeated blocks of a family at a depth; only their tensors repeat."""
    found: tuple[Stage, ...] = FAMILIES[spec.family].stages(spec, depth)  # type: ignore[attr-defined]
    return found


def has_depth(spec: Network, depth: int) -> bool:
    """Return whether a family can be built at a depth; without repeats it has only its own."""
    return depth == spec.depth or (depth >= 1 and bool(stages(spec, spec.depth)))


def depths_told(spec: Network) -> str:
    """Describe the depths of a family, for messages."""
    if stages(spec, spec.depth):
        return "have depths from 1"
    return f"repeat no block: {spec.depth} is their only depth"


def flops(spec: Network, depth: int) -> int:
    """Count the floating-point operations of one example's forward pass through the dense network.

    A multiply-add counts as two. Matrix products and convolutions are counted, as by
    `torch.utils.flop_counter`; biases, norms, activations and embedding look-ups are not.
    """
    return _counted(spec, depth)[0]


def sparse_flops(spec: Network, depth: int, masks: Mapping[str, Tensor]) -> int:
    """Count the floating-point operations of one example's forward pass through the masked network.

    A nominal count, which no kernel attains: that of the dense network less two for each pruned
    weight and each position where it is used (the tokens of a sequence, the pixels of a
    convolution's output, padding included). Tensors without a mask count as in `flops`.
    """
    total, uses = _counted(spec, depth)
    return total - sum(2 * uses[n] * int((~mask).sum()) for n, mask in masks.items())


@cache
def _counted(spec: Network, depth: int) -> tuple[int, dict[str, int]]:
    """Count the operations of a dense forward pass, and how often it uses each prunable tensor."""
    from torch.utils.flop_counter import FlopCounterMode

    module = build(spec, depth)
    with torch.device("meta"):
        x = torch.zeros(1, 2, dtype=torch.int64) if hasattr(module, "embed") else module.ones()  # type: ignore[operator]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(x)
    by_layer = {name: sum(c.values()) for name, c in counter.get_flop_counts().items()}
    uses = {}
    for name, shape in shapes(spec, depth).items():
        layer = f"{type(module).__name__}.{name.rpartition('.')[0]}"
        uses[name] = by_layer.get(layer, 0) // (2 * math.prod(shape))
    return int(counter.get_total_flops()), uses


def initial(spec: Network, depth: int, seed: int, *stream: str) -> State:
    """Draw theta_0: every tensor in float64 from the stream "init", rounded to float32.

    An additional stream name draws other weights from the same distributions (the reinit control).
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in build(spec, depth).state_dict().items():
        generator = seeds.generator(seed, "init", *stream, name)
        values = _draw(init_of(spec, name), tuple(tensor.shape), generator)
        tensors[name] = torch.from_numpy(values.astype(np.float32))
    return State(tensors, step=0)


def init_of(spec: Network, name: str) -> Init:
    """Return a tensor's initial distribution; TaskError unless exactly one row matches its name."""
    rows = [init for init in spec.init if matching((name,), init.tensors)]
    if len(rows) != 1:
        raise TaskError(
            f"[network.init] {name}: {len(rows)} rows match; each tensor needs exactly one"
        )
    return rows[0]


def load(spec: Network, depth: int, state: State) -> nn.Module:
    """Build a new module with trainable copies of the state's tensors."""
    module = build(spec, depth)
    module.load_state_dict(state.tensors(), assign=True)
    for parameter in module.parameters():
        parameter.requires_grad_()
    return module


def effective(spec: Network, depth: int, masks: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the kept weights on some path from the input to the output (Vysogorets & Kempe 2021).

    With the network made linear and positive, a weight is on a path exactly if the output's
    derivative with respect to it is positive, at any depth (`networks.reach`). Constants, such as
    biases, begin no path.
    """
    module = build(spec, depth).double().to_empty(device="cpu")
    weights = {}
    for name, tensor in module.state_dict().items():
        kept = masks.get(name)
        ones = torch.zeros_like(tensor) if name.endswith("bias") else torch.ones_like(tensor)
        weights[name] = (ones if kept is None else kept.double()).requires_grad_()
    paths = module.paths(weights)  # type: ignore[operator]
    chosen = [weights[name] for name in masks]
    gradients = torch.autograd.grad(paths, chosen, materialize_grads=True, allow_unused=True)
    return {name: (g > 0) & masks[name] for name, g in zip(masks, gradients, strict=True)}


def effective_nodes(alive: Mapping[str, Tensor]) -> int:
    """Count the nodes on some path from the input to the output, given the weights of `effective`.

    A node is a row of a prunable tensor: a unit of a Linear layer (in attention each of the
    queries', keys' and values'), a channel of a convolution, a token of an embedding. A weight on a
    path leads into a node on that path, so the nodes are the rows with such a weight; rows that
    nothing leads into or out of are not counted. Classes count, input features do not.
    """
    return sum(int(kept.reshape(len(kept), -1).any(1).sum()) for kept in alive.values())


def _draw(init: Init, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Draw one tensor from a distribution, in float64; fans as in Glorot & Bengio 2010."""
    if init.distribution == "constant":
        return np.full(shape, init.value)
    receptive = math.prod(shape[2:])
    fan_out, fan_in = shape[0] * receptive, math.prod(shape[1:])
    deviation = {
        "glorot-normal": math.sqrt(2 / (fan_in + fan_out)),
        "kaiming-normal": math.sqrt(2 / fan_in),
        "lecun-normal": math.sqrt(1 / fan_in),
        "normal": init.value,
    }[init.distribution]
    return generator.standard_normal(shape) * deviation
