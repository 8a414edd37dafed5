"""The small MLP in numpy, float64, written out by hand: passes, training, choosing.

Nothing here comes from the package, and the package has nothing like it: two mistakes would have
to be the same one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Labels = NDArray[np.intp]
Arrays = dict[str, Floats]
Bools = dict[str, NDArray[np.bool_]]

LAYERS = ("hidden.0", "neck", "head")
PRUNABLE = tuple(f"{layer}.weight" for layer in LAYERS)


def layers(weights: Arrays) -> list[str]:
    """Those of these weights, the first one first: a deeper MLP has one more."""
    return [
        name for name in ("hidden.0", "hidden.1", "neck", "head") if f"{name}.weight" in weights
    ]


def forward(weights: Arrays, x: Floats) -> list[Floats]:
    """What goes into each layer, and the logits at the end."""
    values = [x]
    for layer in layers(weights):
        z = values[-1] @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]
        values.append(z if layer == "head" else np.maximum(z, 0))
    return values


def backward(weights: Arrays, values: list[Floats], blame: Floats) -> Arrays:
    """Gradients of a sum over logits, each times its blame (n, classes)."""
    result = {}
    for i, layer in reversed(list(enumerate(layers(weights)))):
        result[f"{layer}.weight"] = blame.T @ values[i]
        result[f"{layer}.bias"] = blame.sum(0)
        blame = (blame @ weights[f"{layer}.weight"]) * (values[i] > 0)
    return result


def blame(logits: Floats, y: Labels) -> Floats:
    """The gradient of the mean cross-entropy with respect to the logits."""
    odds = np.exp(logits - logits.max(1, keepdims=True))
    shares = odds / odds.sum(1, keepdims=True)
    shares[np.arange(len(y)), y] -= 1
    return shares / len(y)


def gradients(weights: Arrays, x: Floats, y: Labels, temperature: float = 1.0) -> Arrays:
    """Of the mean cross-entropy of logits divided by a temperature, for every tensor."""
    values = forward(weights, x)
    return backward(weights, values, blame(values[-1] / temperature, y) / temperature)


def along(weights: Arrays, moves: Arrays, x: Floats) -> Floats:
    """J u: how the logits change when the weights move by u, to first order."""
    value, slope = x, np.zeros_like(x)
    for layer in layers(weights):
        weight, bias = weights[f"{layer}.weight"], weights[f"{layer}.bias"]
        move = moves[f"{layer}.weight"]
        slope = slope @ weight.T + value @ move.T + moves[f"{layer}.bias"]
        value = value @ weight.T + bias
        if layer != "head":
            slope, value = slope * (value > 0), np.maximum(value, 0)
    return slope


class Adam:
    """Kingma & Ba 2015, algorithm 1, with a rate that falls linearly to 0 at the last step."""

    def __init__(self, rate: float, steps: int) -> None:
        self.rate, self.steps = rate, steps
        self.first: Arrays = {}
        self.second: Arrays = {}

    def step(self, weights: Arrays, slopes: Arrays, taken: int, position: int) -> Arrays:
        """One update, the `taken`-th (from 1), at a position (from 0) of the schedule."""
        moved = {}
        rate = self.rate * (1 - position / self.steps)
        for name, slope in slopes.items():
            first = 0.9 * self.first.get(name, 0.0) + 0.1 * slope
            second = 0.999 * self.second.get(name, 0.0) + 0.001 * slope**2
            self.first[name], self.second[name] = first, second
            mean, square = first / (1 - 0.9**taken), second / (1 - 0.999**taken)
            moved[name] = weights[name] - rate * mean / (np.sqrt(square) + 1e-8)
        return moved


def train(
    weights: Arrays,
    x: Floats,
    y: Labels,
    *,
    rate: float,
    steps: int,
    begin: int = 0,
    until: int | None = None,
    masks: Bools | None = None,
) -> Arrays:
    """Adam on all examples at every step, from one step of the schedule to another."""
    held = masks or {}
    weights = {name: w * held.get(name, True) for name, w in weights.items()}
    adam = Adam(rate, steps)
    for position in range(begin, steps if until is None else until):
        slopes = gradients(weights, x, y)
        weights = adam.step(weights, slopes, position - begin + 1, position)
        weights = {name: w * held.get(name, True) for name, w in weights.items()}
    return weights


def train_linear(weights: Arrays, x: Floats, y: Labels, *, rate: float, steps: int) -> Arrays:
    """u, after Adam on the cross-entropy of f(x) + J(x) u from u = 0."""
    values = forward(weights, x)
    moves = {name: np.zeros_like(w) for name, w in weights.items()}
    adam = Adam(rate, steps)
    for position in range(steps):
        logits = values[-1] + along(weights, moves, x)
        slopes = backward(weights, values, blame(logits, y))
        moves = adam.step(moves, slopes, position + 1, position)
    return moves


def top(scores: Arrays, density: float, within: Bools | None = None) -> Bools:
    """The highest-scored share of all entries, of those that were left."""
    names = list(scores)
    flat = np.concatenate([scores[name].ravel() for name in names])
    if within is not None:
        flat[~np.concatenate([within[name].ravel() for name in names])] = -np.inf
    chosen = np.zeros(flat.size, dtype=bool)
    chosen[np.argsort(-flat, kind="stable")[: round(density * flat.size)]] = True
    parts = np.split(chosen, np.cumsum([scores[name].size for name in names])[:-1])
    return {n: part.reshape(scores[n].shape) for n, part in zip(names, parts, strict=True)}


def magnitudes(weights: Arrays) -> Arrays:
    """|w| of the prunable tensors."""
    return {f"{layer}.weight": np.abs(weights[f"{layer}.weight"]) for layer in layers(weights)}
