"""The baselines do what their papers say, on a task small enough to compute it again."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lthbench.method.problem import Problem
from lthbench.method.publishable import entry_of, remarks
from lthbench.method.source import baseline_names, load_method
from lthbench.tickets import masks, overlap
from lthbench.tickets.allocation import layer_counts
from lthbench.tickets.masks import counts, keep_top
from lthbench.tickets.ticket_files import read_ticket
from lthbench.tools.check import TASK
from lthbench.training.job import Examples
from tests import tiny
from tests.checks import small
from tests.searching import begin, search

LADDER = TASK.ladder.trained
# Each rung has rounds of its own, with densities between that no other rung has.
ROUNDS_OF_THEIR_OWN = {
    **{"force": {"rounds": "10"}, "synflow": {"rounds": "10"}},
    **{name: {"length": "0.05"} for name in ("edge_popup", "multiprize", "supermask")},
}


@pytest.fixture(scope="module")
def problem(tmp_path_factory: pytest.TempPathFactory) -> Problem:
    """Seed 0 of the synthetic task, to compute expected scores with."""
    return begin(TASK, 0, tmp_path_factory.mktemp("problem"))[0]


def found(name: str, folder: Path, seed: int = 0, **settings: str) -> list[dict[str, Tensor]]:
    """The masks of every rung that a baseline yields, in order, and the rules they all keep."""
    state = search(load_method(name, settings), TASK, seed, folder)
    ladder = LADDER if state.rungs[0].trained else TASK.ladder.untrained
    assert [rung.density for rung in state.rungs] == list(ladder)
    tickets = [read_ticket(state.folder, density) for density in ladder]
    total = sum(mask.numel() for mask in tickets[0][1].values())
    assert [masks.kept(chosen) for _, chosen, _ in tickets] == [round(d * total) for d in ladder]
    return [chosen for _, chosen, _ in tickets]


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return masks.digest(a) == masks.digest(b)


@pytest.mark.parametrize("name", baseline_names())
def test_a_baseline_describes_itself(name: str) -> None:
    """File name = method name; tables show the rest."""
    method = load_method(name)
    assert method.described["name"] == name
    assert "arXiv:" in method.described["paper"]
    assert not list(remarks(entry_of(method)))  # authors and licence, which an entry needs
    assert method.summary.endswith(".")
    for word in ("Parameters", "Departures"):
        assert f"\n{word}: " in method.source


@pytest.mark.parametrize("name", baseline_names())
def test_every_rung_is_found_and_nested(name: str, tmp_path: Path) -> None:
    """Most rank weights once, or narrow: sparser tickets lie inside denser ones."""
    rungs = found(name, tmp_path, **ROUNDS_OF_THEIR_OWN.get(name, {}))
    if name not in ROUNDS_OF_THEIR_OWN:
        assert all(masks.nested(b, a) for a, b in pairwise(rungs))


@pytest.mark.parametrize(
    ("name", "start", "origin", "cost"),
    [
        ("magnitude_init", 0, "init", 0.0),
        ("random", 0, "init", 0.0),
        ("erk", 0, "init", 0.0),
        # theta_20, then what is left of the recipe of 240 steps
        ("oneshot", 20, "rewind", 1.0),
        # theta_20 once, then six rounds from it
        ("sign_only", 20, "signs", (20 + 6 * 220) / 240),
        ("imp_lrr", 0, "final", 6.0),
        # twice a step: four short runs to choose the rate, and the recipe
        ("tangent", 0, "init", 2 * (4 * 12 + 240) / 240),
        # one example forward and back in each of a hundred rounds, for three rungs
        ("synflow", 0, "init", 300 / (240 * 16)),
        # the recipe's length for each of six rungs of the untrained ladder
        ("edge_popup", 0, "signs", 6.0),
        ("multiprize", 0, "signs", 6.0),
        ("supermask", 0, "signs", 6.0),
    ],
)
def test_starts_and_costs(name: str, start: int, origin: str, cost: float, tmp_path: Path) -> None:
    """What a baseline costs, and where its weights come from, is part of what it is."""
    state = search(load_method(name), TASK, 0, tmp_path)
    assert {rung.start for rung in state.rungs} == {start}
    assert {rung.origin for rung in state.rungs} == {origin}
    assert state.meter.spent == pytest.approx(cost, abs=1e-12)


def test_a_hessian_product_costs_two_passes(tmp_path: Path) -> None:
    """GraSP and SNIP draw as many examples; FORCE draws them in every round of every rung."""
    costs = {}
    for name in ("snip", "grasp", "force"):
        options = ROUNDS_OF_THEIR_OWN.get(name, {})
        costs[name] = search(load_method(name, options), TASK, 0, tmp_path / name).meter.spent
    assert costs["grasp"] == pytest.approx(2 * costs["snip"])
    assert costs["force"] == pytest.approx(30 * costs["snip"])


def test_a_dense_network_that_did_not_generalise_is_trained_again(tmp_path: Path) -> None:
    """On other orders, three times at most; each run is looked at on the held-out part."""
    hopeless = search(load_method("grokking_ticket"), TASK, 0, tmp_path / "a")
    content = search(load_method("grokking_ticket", {"generalised": "0"}), TASK, 0, tmp_path / "b")
    assert content.meter.spent == pytest.approx(hopeless.meter.spent / 3)
    assert len(set(hopeless.trained)) == 3
    assert hopeless.trained[:1] == content.trained


def test_of_runs_that_did_not_generalise_the_most_accurate_counts() -> None:
    ends, seen = [object() for _ in range(3)], dict.fromkeys(range(3))
    accuracies = dict(zip(map(id, ends), (0.2, 0.9, 0.5), strict=True))

    class Tried:
        def train(self, start: int, order: int) -> object:
            assert (start, seen.pop(order)) == (0, None)
            return ends[order]

        def accuracy(self, end: object) -> float:
            return accuracies[id(end)]

    generalising = small.namespace("grokking_ticket")["generalising"]
    assert generalising(Tried(), 0.95, 3) is ends[1]
    seen = dict.fromkeys(range(3))
    assert generalising(Tried(), 0.9, 3) is ends[1]
    assert seen == {2: None}  # it stops once one has


def test_the_controls_of_signs_alone() -> None:
    """Signs with other magnitudes; the constant with other signs; masks are those of the method."""
    find = small.namespace("sign_only")["find_tickets"]
    tickets = {
        kind: small.found(find, control=kind)[0][0] for kind in ("none", "magnitudes", "signs")
    }
    own = tickets["none"]
    assert own.weights is not None
    for name, mask in own.masks.items():
        weights = {}
        for kind, ticket in tickets.items():
            assert torch.equal(ticket.masks[name], mask)
            assert ticket.weights is not None
            weights[kind] = ticket.weights[name][mask]
        assert len(weights["none"].abs().unique()) == 1
        assert torch.equal(weights["magnitudes"].sign(), weights["none"].sign())
        assert len(weights["magnitudes"].abs().unique()) == len(weights["none"])
        assert torch.equal(weights["signs"].abs(), weights["none"].abs())
    whole = {
        kind: torch.cat([t.weights[n][m] for n, m in own.masks.items()])
        for kind, t in tickets.items()
        if t.weights is not None
    }
    kept = (whole["signs"] == whole["none"]).double().mean()
    assert 0.3 < kept < 0.7
    with pytest.raises(ValueError, match="control 'magnitude': must be one of none, magn"):
        small.found(find, control="magnitude")


def test_a_batch_of_images_in_parts_is_the_same_step() -> None:
    """Of the linear model: gradients of parts add up to the batch's."""
    names = small.namespace("tangent")
    linear, found = names["linear_training"], {}
    of = small.task(
        network=tiny.network("conv"),
        recipe=tiny.recipe(steps=3, batch=12, decayed=(), rate=0.05),
    )
    for size in (5, 12):
        names["linear_training"].__globals__["TOGETHER"] = size
        with small.problem(of, tiny.examples("conv", 40)) as given:
            found[size] = linear(given, 1.0, 3)
    assert found[5][1] == pytest.approx(found[12][1], rel=1e-5)
    for name, moves in found[12][0].items():
        assert torch.allclose(found[5][0][name], moves, atol=1e-3)
        assert not torch.equal(moves, torch.zeros_like(moves))


def test_a_tangent_rate_that_diverges_is_not_chosen() -> None:
    """Gradient descent at a hundred or at ten, and the softmax runs away: at one it does not."""
    recipe = tiny.recipe("sgd", steps=40, batch=0, rate=100.0)
    calibrated = small.namespace("tangent")["calibrated"]
    with small.problem(small.task(recipe=recipe)) as given:
        assert calibrated(given, 10) < 0.1


def test_oneshot_keeps_the_largest_weights_of_one_training(
    problem: Problem, tmp_path: Path
) -> None:
    """As IMP's first round, pruned to each rung at once."""
    end = problem.train(problem.rewind_limit)
    scores = {name: end[name].abs() for name in problem.prunable}
    rungs = found("oneshot", tmp_path)
    assert all(same(m, keep_top(scores, d)) for m, d in zip(rungs, LADDER, strict=True))


def test_oneshot_shares_the_first_round_of_imp(tmp_path: Path) -> None:
    """The same job by the same key: trained once where results are shared."""
    one = search(load_method("oneshot"), TASK, 0, tmp_path / "one")
    imp = search(load_method("imp"), TASK, 0, tmp_path / "imp")
    assert one.trained == imp.trained[: len(one.trained)]


def test_magnitude_init_keeps_the_largest_initial_weights(problem: Problem, tmp_path: Path) -> None:
    theta = problem.theta()
    scores = {name: theta[name].abs() for name in problem.prunable}
    rungs = found("magnitude_init", tmp_path)
    assert all(same(m, keep_top(scores, d)) for m, d in zip(rungs, LADDER, strict=True))


@pytest.mark.parametrize(("name", "rule"), [("random", "uniform"), ("erk", "erk")])
def test_random_masks_keep_each_tensors_share(name: str, rule: str, tmp_path: Path) -> None:
    """The counts are the rule's own; which weights is chance, and another seed's is another."""
    rungs = found(name, tmp_path / "a")
    shapes = {n: tuple(mask.shape) for n, mask in rungs[0].items()}
    for density, chosen in zip(LADDER, rungs, strict=True):
        assert counts(chosen) == layer_counts(shapes, density, rule)  # type: ignore[arg-type]
    assert not same(rungs[0], found(name, tmp_path / "b", seed=1)[0])


def test_random_and_erk_draw_apart(tmp_path: Path) -> None:
    """Two baselines that shared their lots would agree far more often than by chance."""
    random, erk = found("random", tmp_path / "random"), found("erk", tmp_path / "erk")
    assert overlap.overlap(random[1], erk[1]).pooled.z == pytest.approx(0, abs=4)


def test_snip_scores_by_the_gradient_of_a_mask(problem: Problem, tmp_path: Path) -> None:
    """|dL/dc| at c = 1, by differentiating with respect to c: the paper's own definition."""
    x, y = problem.examples(10, "snip")
    theta = problem.theta()
    gates = {n: torch.ones(problem.shapes[n], requires_grad=True) for n in problem.prunable}
    weights = {**theta, **{n: theta[n] * gate for n, gate in gates.items()}}
    problem.loss(problem.forward(weights, x), y).backward()  # type: ignore[no-untyped-call]
    scores = {n: gate.grad.abs() for n, gate in gates.items() if gate.grad is not None}
    rungs = found("snip", tmp_path)
    assert all(same(m, keep_top(scores, d)) for m, d in zip(rungs, LADDER, strict=True))


def test_snip_pays_for_its_examples_alone(tmp_path: Path) -> None:
    """One forward and backward pass over at most ten examples of each class."""
    state = search(load_method("snip", {"per_class": "2"}), TASK, 0, tmp_path)
    assert state.meter.spent == 2 * 11 / (240 * 16)
    more = search(load_method("snip"), TASK, 0, tmp_path / "more")
    assert state.meter.spent < more.meter.spent <= 10 * 11 / (240 * 16)


@pytest.mark.slow
def test_snip_sees_batch_norm_as_training_does() -> None:
    """Its masks are those of finite differences of the loss of a batch that norms itself."""
    draw = np.random.default_rng(3)
    shape = (len(small.examples().y), tiny.SIDE, tiny.SIDE, tiny.CHANNELS)
    images = torch.from_numpy(draw.integers(0, 256, shape, dtype=np.uint8))
    train = Examples(images, small.examples().y, scale=1 / 128, shift=-1.0)
    task = small.task(network=tiny.network("resnet"))
    with small.problem(task, train) as problem:
        (ticket, _) = list(small.namespace("snip")["find_tickets"](problem, per_class=8))
        network = problem.network().double()
        x, y = images.permute(0, 3, 1, 2).double() / 128 - 1, train.y.long()
        scores = {}
        for training in (True, False):
            network.train(training)
            scores[training] = {
                name: (w * slope(network, w, x, y)).abs()
                for name, w in network.named_parameters()
                if name in problem.prunable
            }
    wanted, other = (keep_top(scores[kind], small.LADDER[0]) for kind in (True, False))
    differ = {
        kind: sum(int((ticket.masks[n] != masks[n]).sum()) for n in masks)
        for kind, masks in (("training", wanted), ("evaluation", other))
    }
    assert differ["training"] <= 2 < differ["evaluation"]


@torch.no_grad()
def slope(network: nn.Module, weight: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Central differences of the mean cross-entropy by every entry of one weight."""
    flat, slopes, h = weight.view(-1), torch.zeros(weight.numel(), dtype=torch.float64), 1e-5
    for entry in range(len(flat)):
        old = float(flat[entry])
        losses = []
        for moved in (old + h, old - h):
            flat[entry] = moved
            losses.append(float(nn.functional.cross_entropy(network(x), y)))
        flat[entry] = old
        slopes[entry] = (losses[0] - losses[1]) / (2 * h)
    return slopes.view_as(weight)
