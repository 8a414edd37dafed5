"""Rounds of training, pruning a fifth of what is left, and rewinding."""

from __future__ import annotations

from tests.checks import numeric, small


def rounds(
    theta: numeric.Arrays, rewind: int, *, final: bool = False
) -> tuple[list[numeric.Bools], list[numeric.Arrays]]:
    """The masks of every rung and the weights that the last round before it ended with."""
    x, y = small.inputs()
    setting = {"rate": small.RATE, "steps": small.STEPS}
    start = numeric.train(theta, x, y, until=rewind, **setting)
    masks: numeric.Bools | None = None
    left, result, ends = 1.0, [], []
    for target in small.LADDER:
        while left > target:
            end = numeric.train(start, x, y, begin=rewind, masks=masks, **setting)
            left = max(0.8 * left, target)
            masks = numeric.top(numeric.magnitudes(end), left, masks)
            start = end if final else start
        assert masks is not None
        result.append(masks)
        ends.append(end)
    return result, ends


def check(find: small.Find) -> None:
    """Every rung's masks by an independent loop, and where they start."""
    tickets, theta = small.found(find)
    small.assert_masks(tickets, rounds(theta, small.REWIND)[0])
    assert {ticket.start for ticket in tickets} == {small.REWIND}
