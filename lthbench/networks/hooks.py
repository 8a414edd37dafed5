"""Whether a module computes what its class says, and nobody watches."""

from __future__ import annotations

from torch import nn


def untouched(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether nobody can see how a module comes to its output, or what becomes of it: a method may
    put one of its own in its place, prune it by torch's own means, or hang hooks on it."""
    hooks = (
        module._forward_pre_hooks,
        module._forward_hooks,
        module._backward_pre_hooks,
        module._backward_hooks,
    )
    own = "forward" in vars(module)  # set on this one module
    return type(module) is kind and not own and not any(hooks)
