"""Edge-popup's training of scores, by hand; and what it shares with other masks that are learned.

The scores' first values are an input: lots from the method's own stream.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from lthbench.tickets.ticket import Ticket
from tests.checks import numeric, small

RATE = 0.5  # fast, so that 40 steps move most of a mask
Mask = NDArray[np.bool_]
Layer = Callable[[str, Mask], tuple[numeric.Floats, numeric.Floats]]


def check(find: small.Find) -> None:
    """The straight-through step at every rung: a score's slope is g w sign(s), decay beside."""
    tickets, theta = untrained(find, rate=RATE)
    constants = {
        name: np.sign(theta[name]) * np.sqrt(2 / theta[name].shape[1]) for name in numeric.PRUNABLE
    }
    assert_signed(tickets, theta, lambda name, kept: np.abs(constants[name][kept]))
    lots = scores_of("edge_popup")
    expected = []
    for ticket, scores in zip(tickets, lots, strict=True):
        counts = layer_counts(ticket)
        expected.append(learned(theta, scores, counts, RATE, lambda n, _: (constants[n],) * 2))
    small.assert_masks(tickets, expected)
    assert_moved(expected, lots)


def untrained(find: small.Find, **options: float) -> tuple[list[Ticket], numeric.Arrays]:
    """Tickets for every rung of the untrained ladder with its exact count, and theta_0."""
    with small.problem() as given:
        tickets = list(find(given, **options))
        assert len(tickets) == len(given.untrained_densities)
        for ticket, density in zip(tickets, given.untrained_densities, strict=True):
            assert not ticket.trained
            sizes = [mask.numel() for mask in ticket.masks.values()]
            kept = [int(mask.sum()) for mask in ticket.masks.values()]
            assert sum(kept) == round(density * sum(sizes))
        return tickets, small.arrays(given.theta())


def layer_counts(ticket: Ticket) -> dict[str, int]:
    """What each layer keeps: the same share of it as of all others, but for a whole weight."""
    masks = ticket.masks
    density = sum(int(m.sum()) for m in masks.values()) / sum(m.numel() for m in masks.values())
    for name, mask in masks.items():
        assert abs(int(mask.sum()) - density * mask.numel()) <= 1, name
    return {name: int(mask.sum()) for name, mask in masks.items()}


def assert_signed(
    tickets: list[Ticket],
    theta: numeric.Arrays,
    magnitude: Callable[[str, Mask], numeric.Floats],
) -> None:
    """Kept weights are a magnitude times theta_0's signs; everything else is theta_0's."""
    for ticket in tickets:
        assert ticket.weights is not None
        for name, tensor in ticket.weights.items():
            ours = tensor.double().numpy()
            if name not in ticket.masks:
                assert np.array_equal(ours, theta[name])
                continue
            kept = ticket.masks[name].numpy()
            wanted = np.sign(theta[name][kept]) * magnitude(name, kept)
            assert np.allclose(ours[kept], wanted, rtol=1e-6)


def scores_of(stream: str) -> list[numeric.Arrays]:
    """The first scores of every rung: lots in +-1 / sqrt(fan_in)."""
    with small.problem() as given:
        lots = given.generator(stream)
        return [
            {
                name: (2 * torch.rand(shape, generator=lots).double().numpy() - 1) / shape[1] ** 0.5
                for name, shape in given.shapes.items()
            }
            for _ in given.untrained_densities
        ]


def learned(
    theta: numeric.Arrays,
    scores: numeric.Arrays,
    counts: dict[str, int],
    rate: float,
    layer: Layer,
) -> numeric.Bools:
    """The masks after SGD with momentum .9, decay 1e-4 and a cosine to 0.

    Args:
        layer: of a tensor and its mask: the weights before the mask, and what a score's slope is
            the loss's slope times.
    """
    x, y = small.inputs()
    scores = {name: s.copy() for name, s in scores.items()}
    speed = {name: np.zeros_like(s) for name, s in scores.items()}
    for step in range(small.STEPS):
        masks = {name: largest(s, counts[name]) for name, s in scores.items()}
        layers = {name: layer(name, mask) for name, mask in masks.items()}
        weights = theta | {name: layers[name][0] * masks[name] for name in scores}
        slopes = numeric.gradients(weights, x, y)
        now = rate * (1 + np.cos(np.pi * step / small.STEPS)) / 2
        for name, s in scores.items():
            slope = slopes[name] * layers[name][1] * np.sign(s) + 1e-4 * s
            speed[name] = 0.9 * speed[name] + slope
            scores[name] = s - now * speed[name]
    return {name: largest(s, counts[name]) for name, s in scores.items()}


def largest(scores: numeric.Floats, count: int) -> Mask:
    """The `count` largest by magnitude."""
    order = np.argsort(-np.abs(scores), axis=None, kind="stable")
    mask = np.zeros(scores.size, dtype=bool)
    mask[order[:count]] = True
    return mask.reshape(scores.shape)


def assert_moved(masks: list[numeric.Bools], lots: list[numeric.Arrays]) -> None:
    """Training has moved far more of each mask than may differ by rounding."""
    for mask, scores in zip(masks, lots, strict=True):
        first = {name: largest(s, int(mask[name].sum())) for name, s in scores.items()}
        moved = sum(int((mask[name] != first[name]).sum()) for name in mask)
        assert moved > 0.08 * sum(m.size for m in mask.values())
