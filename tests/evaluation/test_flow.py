"""Synaptic flow: what every family's linear, positive network carries, and that none gets lost."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from tests import tiny
from tests.checks import small

Arrays = small.Arrays


def flows(family: str, **changes: Any) -> tuple[Arrays, Arrays, float]:
    """SynFlow's scores on a small network with half of its weights, |theta| with biases 0, R."""
    score = small.namespace("synflow")["flows"]
    of = tiny.network(family, **changes)
    with small.problem(small.task(network=of)) as problem:
        masks = tiny.masks(of, of.depth, 0.5)
        weights = {
            name: torch.zeros_like(w) if name.endswith("bias") else w.abs().double()
            for name, w in problem.theta().items()
        }
        left = {name: w * masks.get(name, True) for name, w in weights.items()}
        flow = float(problem.flow({name: w.double() for name, w in left.items()}))
        scores = score(problem, {name: w.double() for name, w in weights.items()}, masks)
        return small.arrays(scores), small.arrays(left), flow


PLAIN = {
    "mlp": ("hidden.0", "hidden.1", "neck", "head"),
    "conv": ("conv.0", "conv.1", "conv.2", "conv.3", "hidden.0", "hidden.1", "head"),
}


@pytest.mark.parametrize("family", PLAIN)
def test_flow_is_conserved_in_a_plain_network(family: str) -> None:
    """Every layer carries R; what flows into a unit or channel flows out of it (Tanaka et al.)."""
    layers = PLAIN[family]
    scores, _, flow = flows(family, depth=2)
    assert set(scores) == {f"{layer}.weight" for layer in layers}
    assert flow > 0
    for layer in layers:
        assert scores[f"{layer}.weight"].sum() == pytest.approx(flow, rel=1e-12)
    for before, after in pairwise(layers):
        into, out = scores[f"{before}.weight"], scores[f"{after}.weight"]
        incoming = into.reshape(len(into), -1).sum(1)
        # A channel's places, or one unit, stand together in the next layer's inputs.
        outgoing = out.reshape(len(out), len(into), -1).sum((0, 2))
        assert incoming == pytest.approx(outgoing, rel=1e-12, abs=1e-12 * flow)


def test_two_tokens_carry_the_flow_of_a_pair() -> None:
    """Each of the two reads the whole table at 1 / tokens, so that its rows share R equally."""
    scores, _, flow = flows("pair-mlp", depth=1)
    assert scores["embed.weight"].sum() == pytest.approx(flow, rel=1e-12)
    halves = np.split(scores["hidden.0.weight"].sum(0), 2)
    assert scores["embed.weight"].sum(0) == pytest.approx(halves[0] + halves[1], rel=1e-12)


def test_batch_norms_are_their_scales() -> None:
    """As in the network itself, once its running statistics are those of a standard normal."""
    of = tiny.network("resnet", depth=2)
    with small.problem(small.task(network=of)) as problem:
        positive = {name: w.abs().double() for name, w in problem.theta().items()}
        weights = {n: w * (not n.endswith("bias")) for n, w in positive.items()}
        network = problem.network().double().eval()
        flow = float(problem.flow(dict(weights)))
    still = {n: torch.zeros_like(w) for n, w in weights.items() if n.endswith("running_mean")}
    still |= {n: torch.ones_like(w) - 1e-5 for n, w in weights.items() if n.endswith("running_var")}
    network.load_state_dict(weights | still)
    ones = torch.ones(1, tiny.CHANNELS, tiny.SIDE, tiny.SIDE, dtype=torch.float64)
    assert flow == pytest.approx(float(network(ones).detach().sum()), rel=1e-9)


def test_the_flow_of_a_transformer() -> None:
    """One block by hand: (q k' / 9) v for three tokens, read at the last, positions added."""
    _, w, flow = flows("transformer")
    x = w["embed.weight"].mean(0) + w["position"]  # (3, width)
    block = {name: w[f"blocks.0.{name}.weight"] for name in ("query", "key", "value", "output")}
    query = block["query"] @ x[2]
    mixed = np.zeros_like(query)
    for token in range(3):
        key, value = block["key"] @ x[token], block["value"] @ x[token]
        for head in (slice(0, 4), slice(4, 8)):
            mixed[head] += query[head] @ key[head] / 9 * value[head]
    x = x[2] + block["output"] @ mixed
    x = x + w["blocks.0.down.weight"] @ w["blocks.0.up.weight"] @ x
    assert flow == pytest.approx((w["head.weight"] @ x).sum(), rel=1e-12)
