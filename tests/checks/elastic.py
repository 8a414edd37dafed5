"""IMP on a deeper network, whose last block is dropped on the way to the shallower one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tests.checks import numeric, small
from tests.checks.imp import rounds

Bools = NDArray[np.bool_]


def check(find: small.Find) -> None:
    """The deeper network's early weights and its masks; a count is made up by magnitude alone."""
    with small.problem() as given:
        tickets = list(find(given))
        deeper = small.arrays(given.at_depth(2).theta())
    x, y = small.inputs()
    early = numeric.train(deeper, x, y, rate=small.RATE, steps=small.STEPS, until=small.REWIND)
    for ticket, masks in zip(tickets, rounds(deeper, small.REWIND)[0], strict=True):
        assert ticket.start == small.REWIND
        assert ticket.weights is not None
        kept = sum(int(mask.sum()) for mask in ticket.masks.values())
        sizes = [mask.numel() for mask in ticket.masks.values()]
        assert kept in [round(density * sum(sizes)) for density in small.LADDER]
        for name, mask in ticket.masks.items():
            assert np.allclose(ticket.weights[name].double().numpy(), early[name], atol=1e-4)
            _agrees(mask.numpy(), masks[name], np.abs(early[name]))


def _agrees(mask: Bools, carried: Bools, magnitude: numeric.Floats) -> None:
    """What differs from the carried mask is the smallest that went, or the largest that came."""
    gone, come = carried & ~mask, mask & ~carried
    # Rounding in float32 may turn two entries of equal size around, in IMP's rounds too.
    differ = min(gone.sum(), come.sum())
    assert differ <= 0.02 * mask.size, f"{differ} entries differ"
    if gone.sum() > come.sum():
        stayed = magnitude[mask & carried]
        assert np.quantile(magnitude[gone], 0.9) <= stayed.min(initial=np.inf) * 1.01
    elif come.any():
        never = magnitude[~mask & ~carried]
        assert np.quantile(magnitude[come], 0.1) >= never.max(initial=0.0) * 0.99
