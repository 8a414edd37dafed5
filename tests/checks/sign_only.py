"""One magnitude for each layer, times the signs of the early weights."""

from __future__ import annotations

import numpy as np

from tests.checks import numeric, small
from tests.checks.imp import rounds


def check(find: small.Find) -> None:
    """IMP's masks; the deviation of the kept theta_0; the signs of theta_k; the rest theta_k's."""
    tickets, theta = small.found(find)
    x, y = small.inputs()
    early = numeric.train(theta, x, y, rate=small.RATE, steps=small.STEPS, until=small.REWIND)
    assert any((np.sign(early[name]) != np.sign(theta[name])).any() for name in numeric.PRUNABLE)
    small.assert_masks(tickets, rounds(theta, small.REWIND)[0])
    for ticket in tickets:
        assert ticket.start == small.REWIND
        assert ticket.weights is not None
        for name, tensor in ticket.weights.items():
            ours = tensor.double().numpy()
            if name not in ticket.masks:
                assert np.allclose(ours, early[name], atol=1e-5)
                continue
            kept = ticket.masks[name].numpy()
            mean = theta[name][kept].mean()
            deviation = np.sqrt(np.mean((theta[name][kept] - mean) ** 2))
            assert np.allclose(ours[kept], deviation * np.sign(early[name][kept]))
