"""Running statistics of norms, re-estimated for weights that were not trained with them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

BATCHES = 100  # training batches over which an untrained ticket's statistics are averaged


@torch.no_grad()
def estimate(network: nn.Module, inputs: Iterable[Tensor]) -> None:
    """Set each norm's running mean and variance to the plain mean of the batches' own.

    The network sees each batch in training mode and is then returned to its previous mode. Whatever
    has `running_mean`, `running_var` and `momentum` counts as a norm; without any, no input is
    read.
    """
    norms = [m for m in network.modules() if isinstance(getattr(m, "running_mean", None), Tensor)]
    if not norms:
        return
    momenta, mode = [norm.momentum for norm in norms], network.training
    network.train()
    for seen, batch in enumerate(inputs, start=1):
        for norm in norms:
            norm.momentum = 1 / seen  # type: ignore[assignment]
        network(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.train(mode)
