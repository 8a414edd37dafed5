"""What a killed loop continues from: the state of all that was passed to it, and of generators.

The coordinator stores a snapshot as JSON and tensors, and never looks inside.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lthbench.errors import MethodError

Nested = Any  # a state_dict: tensors, numbers, strings, None, lists, tuples and mappings of these


def take(
    stateful: Sequence[object],
    generators: Mapping[str, torch.Generator],
    tensors: dict[str, Tensor],
) -> dict[str, object]:
    """Return the state of all these things as JSON; its tensors go to `tensors`."""
    snapshot = {
        "stateful": [_state_of(thing) for thing in stateful],
        "generators": {name: g.get_state() for name, g in generators.items()},
        "torch": torch.get_rng_state(),
    }
    on_gpu = {"cuda": torch.cuda.get_rng_state()} if _is_on_gpu() else {}
    return pack(snapshot | on_gpu, tensors)


def restore(
    packed: object,
    tensors: Mapping[str, Tensor],
    stateful: Sequence[object],
    generator: Callable[[str], torch.Generator],
) -> None:
    """Put these things into the state of a snapshot, and the generators of its names too."""
    snapshot = unpack(packed, tensors)
    if len(snapshot["stateful"]) != len(stateful):
        raise MethodError("loop was given another number of things on replay")
    for thing, state in zip(stateful, snapshot["stateful"], strict=True):
        _load_into(thing, state)
    for name, state in snapshot["generators"].items():
        generator(name).set_state(state)
    torch.set_rng_state(snapshot["torch"])
    if "cuda" in snapshot:
        torch.cuda.set_rng_state(snapshot["cuda"])


def _is_on_gpu() -> bool:
    """Return whether this process uses a GPU: its device was set when it began."""
    return torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]


def _state_of(thing: object) -> Nested:
    if isinstance(thing, Tensor):
        return {"tensor": thing.detach(), "grad": [thing.grad]}
    if isinstance(thing, torch.Generator):
        return {"generator": thing.get_state()}
    if not (hasattr(thing, "state_dict") and hasattr(thing, "load_state_dict")):
        raise MethodError(
            f"loop was given a {type(thing).__name__}; give tensors, generators, or what has "
            "state_dict and load_state_dict"
        )
    return {"state": thing.state_dict(), "grad": [p.grad for p in _parameters(thing)]}


def _load_into(thing: Nested, state: Nested) -> None:
    if "generator" in state:
        thing.set_state(state["generator"])
        return
    if "tensor" in state:
        with torch.no_grad():
            thing.copy_(state["tensor"])
        parameters = [thing]
    else:
        thing.load_state_dict(state["state"])
        parameters = _parameters(thing)
    for parameter, gradient in zip(parameters, state["grad"], strict=True):
        parameter.grad = None if gradient is None else gradient.to(parameter.device)


def _parameters(thing: object) -> list[Tensor]:
    """Return the parameters whose gradients belong to a module's or an optimiser's state."""
    if isinstance(thing, nn.Module):
        return list(thing.parameters())
    groups = getattr(thing, "param_groups", [])
    return [parameter for group in groups for parameter in group["params"]]


def pack(value: Nested, tensors: dict[str, Tensor]) -> dict[str, object]:
    """Turn a nested state_dict into JSON; its tensors go to `tensors`, numbered consecutively."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"map": [[pack(k, tensors), pack(v, tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [pack(item, tensors) for item in value]}
    if value is None or isinstance(value, (bool, int, str)):
        return {"value": value}
    if isinstance(value, float):
        return {"float": value.hex()}
    raise TypeError(
        f"loop: a state_dict holds a {type(value).__name__}; it may hold tensors, numbers, "
        "strings, None, lists, tuples and mappings of these"
    )


def unpack(packed: Nested, tensors: Mapping[str, Tensor]) -> Nested:
    """Return the value that `pack` was given."""
    ((kind, value),) = packed.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "map":
        return {unpack(k, tensors): unpack(v, tensors) for k, v in value}
    if kind in ("list", "tuple"):
        items = [unpack(item, tensors) for item in value]
        return tuple(items) if kind == "tuple" else items
    return float.fromhex(value) if kind == "float" else value
