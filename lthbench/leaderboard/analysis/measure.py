"""Measurements of a pair from two methods' masks on one task, and what cannot be measured."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from lthbench.errors import RecordError
from lthbench.leaderboard.analysis import channel_matching, schema, verdicts
from lthbench.leaderboard.analysis.overlap_nulls import (
    Floats,
    Layer,
    Masks,
    Overlaps,
    excess,
    over_other_seeds,
    overlaps,
    pooled,
    pooled_same_start,
    together,
)
from lthbench.leaderboard.analysis.schema import LayerRow, Missing, Rung, Saved, Side, listed
from lthbench.leaderboard.analysis.sources import Tickets
from lthbench.networks import families
from lthbench.protocol import task
from lthbench.protocol.task import Task

Pair = tuple[Tickets, Tickets]


def pairs(a: Mapping[str, Tickets], b: Mapping[str, Tickets]) -> tuple[tuple[Pair, ...], str]:
    """Return the tickets on each shared task, in order of name, and what was left out."""
    found, left_out = [], []
    for name in sorted(a.keys() & b.keys()):
        first, second = sorted((a[name], b[name]), key=lambda side: side.id)
        if first.id == second.id:
            left_out.append(f"{name}: both are {first.id}")
        elif first.record.task.digest != second.record.task.digest:
            left_out.append(f"{name}: two versions of the protocol")
        elif not first.places & second.places:
            left_out.append(f"{name}: no seed and density in common")
        else:
            found.append((first, second))
    alone = sorted(a.keys() ^ b.keys())
    left_out += [f"{name}: tickets of one alone" for name in alone]
    return tuple(found), "; ".join(left_out)


def of_pair(a: Tickets, b: Tickets) -> Saved:
    """Measure everything that two methods' tickets and records say on one task.

    Raises:
        RecordError: If the task is not the one of this version, or masks do not fit its network.
    """
    protocol = _protocol(a)
    common = a.places & b.places
    of_seeds = tuple(sorted({seed for seed, _ in common}))
    depth = protocol.network.depth
    shapes = families.shapes(protocol.network, depth)
    thetas = {
        seed: {
            name: weights.numpy()
            for name, weights in families.initial(protocol.network, depth, seed).items()
            if name in shapes
        }
        for seed in of_seeds
    }
    groups = channel_matching.groups(protocol.network, shapes)
    rungs = []
    for density in sorted({density for _, density in common}, reverse=True):
        here = tuple(seed for seed in of_seeds if (seed, density) in common)
        first, second = (
            [_fitting(side, seed, density, shapes) for seed in here] for side in (a, b)
        )
        found = overlaps(first, second, [thetas[seed] for seed in here])
        matched = (
            _matched(found, channel_matching.matched(first, second, groups)) if groups else None
        )
        rungs.append(_rung(density, here, found, matched))
    return schema.build(
        protocol.name,
        protocol.digest,
        (_side(a), _side(b)),
        of_seeds,
        _matching(protocol, bool(groups)),
        rungs,
        not_measured(protocol),
    )


def _protocol(side: Tickets) -> Task:
    protocol = task.load_task(side.record.task.name)
    if protocol.digest != side.record.task.digest:
        raise RecordError(
            f"{side.id}: follows another version of {protocol.name} than this lthbench has; "
            "install the one that it was made with"
        )
    return protocol


def _fitting(
    side: Tickets, seed: int, density: float, shapes: Mapping[str, tuple[int, ...]]
) -> Masks:
    """Return one ticket's masks in the order of the network."""
    found = side.masks((seed, density))
    if {name: mask.shape for name, mask in found.items()} != shapes:
        raise RecordError(
            f"{side.id}: masks of seed {seed}, density {density:.4g} do not fit the network of "
            f"{side.record.task.name}; they are not of this task"
        )
    return {name: found[name] for name in shapes}


def _matched(found: Overlaps, common: Floats) -> Floats:
    """Return the excess with hidden units in the best order; the layers' counts stay the same."""
    expected, most, sums = (together(found.layers, of) for of in ("expected", "most", "sums"))
    return excess(common, expected, most, sums)


def _rung(
    density: float, of_seeds: tuple[int, ...], found: Overlaps, matched: Floats | None
) -> Rung:
    return schema.rung_of(
        density,
        of_seeds,
        tuple(listed(row) for row in found.excess),
        None if matched is None else tuple(listed(row) for row in matched),
        listed(found.same_start),
        verdicts.estimate(found.profile.tolist()),
        tuple(_row(layer) for layer in found.layers),
    )


def _row(layer: Layer) -> LayerRow:
    table, size = pooled([layer]), max(1, layer.size)
    own, expected, variance = (
        float(np.trace(values)) for values in (layer.both, layer.expected, layer.variance)
    )
    return LayerRow(
        name=layer.name,
        size=layer.size,
        density_a=float(layer.a.mean()) / size,
        density_b=float(layer.b.mean()) / size,
        ratio=own / expected if expected else None,
        chance=_mean(np.diag(table)),
        other_seeds=_mean(over_other_seeds(table)),
        same_start=_mean(pooled_same_start([layer])),
        z=(own - expected) / variance**0.5 if variance else None,
    )


def _mean(values: Floats) -> float | None:
    """Return the mean; None where a seed has no value."""
    return float(values.mean()) if np.isfinite(values).all() else None


def _side(side: Tickets) -> Side:
    record = side.record
    shuffled, reinit = verdicts.gaps(record)
    return Side(
        id=side.id,
        method=record.method.name,
        record=side.digest,
        division=record.scores.division,
        margin=record.reference.margin if record.reference else None,
        untrained=verdicts.untrained(record),
        shuffled=shuffled,
        reinit=reinit,
    )


def _matching(protocol: Task, any_groups: bool) -> str:
    if not any_groups:
        return ""
    if channel_matching.whole(protocol.network):
        return "all hidden units"
    return "the hidden units inside blocks; those of the residual stream stay where they are"


def not_measured(protocol: Task) -> tuple[Missing, ...]:
    """List further evidence the conjecture calls for, and why tickets and records lack it."""
    no_weights = "a bundle holds masks and starts, no final weights; nothing was trained here"
    rows = [
        ("sign agreement of final weights", no_weights),
        ("stability (error barrier)", "needs trainings on two data orders; nothing was trained"),
        ("linearised training", "no record holds the accuracy of linearised training"),
    ]
    if protocol.score.kind == "area":
        rows.append(
            ("overlap before and after generalisation", "a bundle holds one mask a rung, no path")
        )
    else:
        rows.append(("accuracy against density under label noise", "no task has noisy labels"))
    return tuple(Missing(what=what, why=why) for what, why in rows)
