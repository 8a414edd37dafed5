"""Detect modules that a method has modified or observes."""

from __future__ import annotations

from torch import nn


def untouched(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Return whether a module computes what its class defines, unobserved.

    A method may replace its forward, prune it by torch's own means, or register hooks on it.
    """
    hooks = (
        module._forward_pre_hooks,
        module._forward_hooks,
        module._backward_pre_hooks,
        module._backward_hooks,
    )
    own = "forward" in vars(module)  # set on this instance
    return type(module) is kind and not own and not any(hooks)
