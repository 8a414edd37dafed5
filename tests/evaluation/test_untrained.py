"""Tickets that are scored as they stand: origin, cells, headline, tables, and their baselines."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lthbench.errors import MethodError
from lthbench.evaluation import trainings
from lthbench.evaluation.cells import missing_cells, planned, untrained
from lthbench.evaluation.scoring import see
from lthbench.evaluation.search import session
from lthbench.method import child
from lthbench.method.source import load_method
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol import datasets
from lthbench.protocol.constants import UNTRAINED
from lthbench.protocol.design import Plan
from lthbench.protocol.task import Task, load_task
from lthbench.records.aggregate import division
from lthbench.records.schema import Record, build
from lthbench.report import figures, html, latex, tables, terminal
from lthbench.tickets import masks
from lthbench.tickets.ticket import Ticket, origin
from lthbench.tickets.ticket_files import Rung
from lthbench.training import batch_norm
from lthbench.training.engines import plain
from lthbench.training.executors.local import Here
from tests import tiny
from tests.checks import edge_popup, multiprize, small, supermask
from tests.searching import ROOT, begin
from tests.synthetic import synthetic_record

CHECKS = {
    "edge_popup": edge_popup.check,
    "multiprize": multiprize.check,
    "supermask": supermask.check,
}
SEED = 1000


def own(name: str) -> Any:
    method = load_method(name)
    return child._load(method.source, method.path)["find_tickets"]


# --- origin ----------------------------------------------------------------------------------

OF = tiny.network()
THETA = families.initial(OF, 2, 0)
MASKS = tiny.masks(OF, 2)
KEPT = tuple(map(int, MASKS["hidden.1.weight"].nonzero()[0]))


def scaled(factor: float = 1.7) -> dict[str, Tensor]:
    """theta_0 times a factor for each prunable tensor, another for each."""
    weights = THETA.tensors()
    for number, name in enumerate(MASKS):
        weights[name] = weights[name] * (factor + 0.3 * number)
    return weights


def of(weights: Mapping[str, Tensor] | None, trained: bool = False) -> tuple[str, int]:
    later = State({n: t + 1 for n, t in THETA.items()}, 5)
    return origin(Ticket(MASKS, 0, weights, trained), {0: THETA, 5: later}, [later])


@pytest.mark.parametrize("factor", [1.0, 0.1, 1.7, 1 / 3, 1e4])
def test_one_factor_a_tensor_counts_as_init(factor: float) -> None:
    """Rounded to float32, so that no division gives the factor back."""
    weights = scaled(factor)
    assert of(weights) == ("scaled", 0)
    assert of(weights, trained=True)[0] == "free"
    assert division("scaled", 0) == "init"
    exact = {n: (3.3 * t.double()).float() if n in MASKS else t for n, t in THETA.items()}
    assert of(exact) == ("scaled", 0)


def test_the_ordinary_origins_come_first() -> None:
    assert of(None) == ("init", 0)
    assert of(THETA.tensors()) == ("init", 0)
    signs = {n: 0.3 * t.sign() if n in MASKS else t for n, t in THETA.items()}
    assert of(signs) == ("signs", 0)


@pytest.mark.parametrize(
    "how", ["two factors", "negative", "one sign", "one zero", "an ulp", "a bias", "theta_5"]
)
def test_more_than_a_factor_is_free(how: str) -> None:
    weights = scaled()
    tensor = weights["hidden.1.weight"]
    changes = {
        "two factors": lambda: tensor[4:].mul_(1.001),
        "negative": lambda: tensor.neg_(),
        "one sign": lambda: tensor[KEPT].neg_(),
        "one zero": lambda: tensor[KEPT].zero_(),
        "an ulp": lambda: tensor[KEPT].copy_(torch.nextafter(tensor[KEPT], 2 * tensor[KEPT])),
        "a bias": lambda: weights["head.bias"].mul_(2),
        # a later state's biases and norms are learned, whatever a trained ticket may start from
        "theta_5": lambda: weights.update({n: 2 * (t + 1) for n, t in THETA.items()}),
    }
    changes[how]()
    assert of(weights) == ("free", 0)


# --- norms -----------------------------------------------------------------------------------


class Centred(nn.Module):
    """A norm written out, of two features, between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.momentum = 0.1
        self.register_buffer("running_mean", torch.full((2,), 7.0))
        self.register_buffer("running_var", torch.full((2,), 7.0))

    def forward(self, x: Tensor) -> Tensor:
        statistics = self.running_mean, self.running_var
        return nn.functional.batch_norm(x, *statistics, None, None, self.training, self.momentum)  # type: ignore[arg-type]


@pytest.mark.parametrize("norm", [Centred, lambda: nn.BatchNorm1d(2, affine=False)])
def test_running_statistics_are_the_mean_over_batches(norm: Any) -> None:
    draw = torch.Generator().manual_seed(0)
    batches = [torch.randn(6, 2, generator=draw) * i + i for i in range(1, 6)]
    network = nn.Sequential(norm()).eval()
    if isinstance(network[0], nn.BatchNorm1d):
        network[0].num_batches_tracked = None
    batch_norm.estimate(network, batches)
    found = dict(network.named_buffers())
    means = torch.stack([b.mean(0) for b in batches]).mean(0)
    variances = torch.stack([b.var(0) for b in batches]).mean(0)
    torch.testing.assert_close(found["0.running_mean"], means)
    torch.testing.assert_close(found["0.running_var"], variances)
    assert network[0].momentum == 0.1
    assert not network.training


def test_a_network_without_norms_reads_no_batch() -> None:
    batch_norm.estimate(nn.Linear(2, 2), iter(lambda: pytest.fail("a batch was read"), 0))


# --- cells -----------------------------------------------------------------------------------


@pytest.fixture
def digits(cache: Path) -> Task:
    task = load_task(str(ROOT / "tests/tasks/tiny-digits.toml"))
    datasets.prepare(task, download=False)
    return task


def found(task: Task, folder: Path, count: int = 99) -> session.Search:
    """A search that yields the first rungs of the untrained ladder, theta_0 doubled."""
    problem, coordinator = begin(task, SEED, folder)
    theta = problem.theta()
    weights = {n: 2 * theta[n] if n in problem.prunable else theta[n] for n in theta}
    ranked = {n: theta[n].abs() for n in problem.prunable}
    for density in problem.untrained_densities[:count]:
        chosen = masks.keep_top(ranked, density)
        child._yield(coordinator, Ticket(chosen, weights=weights, trained=False))  # type: ignore[arg-type]
    return session.Search(SEED, "ok", "", 0.0, 0.0, tuple(coordinator.state.rungs))


def test_what_is_run_for_untrained_tickets(digits: Task, tmp_path: Path) -> None:
    """As they stand beside a random mask, and once more after training with controls."""
    seen = see(digits, (SEED,), Plan())
    entries = asyncio.run(
        planned(digits, [found(digits, tmp_path)], tmp_path, Here(), Plan(), seen)
    )
    kinds = ("untrained", "untrained_random", "ticket", "shuffled", "reinit")
    wanted = {(kind, density) for kind in kinds for density in digits.ladder.untrained}
    assert Counter((e.kind, e.density) for e in entries) == Counter({*wanted, ("dense", 1.0)})
    for entry in entries:
        stands = entry.kind in UNTRAINED
        assert entry.job.until == (0 if stands else digits.recipe.steps)
        assert entry.job.norm_batches == (batch_norm.BATCHES if stands else 0)
    theta = families.initial(digits.network, digits.network.depth, SEED)
    by_kind = {e.kind: e for e in entries if e.density == digits.ladder.untrained[-1]}
    assert {e.origin for k, e in by_kind.items() if k != "untrained_random"} == {"scaled"}
    assert by_kind["untrained_random"].job.start.digest == theta.digest
    assert masks.kept(by_kind["untrained_random"].job.masks or {}) == masks.kept(
        by_kind["ticket"].job.masks or {}
    )
    ticket, reinit = by_kind["untrained"].job, by_kind["reinit"].job
    assert torch.equal(ticket.start["head.weight"], 2 * theta["head.weight"])
    for name, mask in (ticket.masks or {}).items():  # other weights, of the ticket's size
        assert not torch.equal(reinit.start[name], ticket.start[name])
        ours, theirs = (s[name][mask].norm().item() for s in (ticket.start, reinit.start))
        assert theirs == pytest.approx(ours, rel=1e-5)


def test_a_rung_that_was_not_yielded_scores_chance(digits: Task, tmp_path: Path) -> None:
    searches = [found(digits, tmp_path, 1)]
    missing = missing_cells(digits, searches)
    densities = digits.ladder.untrained[1:]
    wanted = {(kind, d, SEED, 1) for kind in ("ticket", "untrained") for d in densities}
    assert {cell.place for cell in missing} == wanted
    assert {cell.status for cell in missing} == {"missing"}


def test_one_kind_of_ticket_at_every_seed(digits: Task, tmp_path: Path) -> None:
    one = found(digits, tmp_path, 1)
    rung = Rung(0.5, 1, True, "init", 0, "", None, 0.0)
    other = session.Search(1001, "ok", "", 0.0, 0.0, (rung,))
    assert untrained([one]) and not untrained([other]) and not untrained([])
    with pytest.raises(MethodError, match="trained tickets at seed 1001, untrained ones at seed 1"):
        untrained([one, other])


# --- scores ----------------------------------------------------------------------------------

BEST = {0: 0.5, 1: 0.7, 2: 0.9, 3: 0.9, 4: 0.6, 5: 0.3}  # by rung, on the held-out part


def untrained_record(seeds: int = 5, final: bool = True, kind: Any = "accuracy") -> Record:
    """A record whose tickets stand at BEST on the held-out part, and a tenth lower on test."""
    task = {"ladder": [0.8, 0.64, 0.512, 0.32768, 0.2097152, 0.1073741824]}
    plain_ = synthetic_record(seeds=seeds, final=final, kind=kind, task=task, compressed=False)
    table = json.loads(html.as_json(plain_))
    cells = [c for c in table["cells"] if c["kind"] not in ("random", "erk")]
    for cell in [c for c in cells if c["kind"] == "ticket"]:
        sizes = table["sizes"][str(cell["seed"])]
        level = BEST[task["ladder"].index(cell["density"])] + 0.01 * (cell["seed"] % 10)
        counts = {part: [round(n * level)] for part, n in sizes.items()}
        if final:
            counts["test"] = [round(sizes["test"] * (level - 0.1))]
        chance = {part: [round(0.1 * n)] for part, n in sizes.items()}
        cells.append({**cell, "kind": "untrained", "correct": counts})
        cells.append({**cell, "kind": "untrained_random", "correct": chance})
    return build({**table, "cells": cells})


@pytest.mark.parametrize("kind", ["accuracy", "area"])
def test_the_headline_is_the_best_rung_on_the_held_out_part(kind: str) -> None:
    """Its accuracy on what is shown, in arithmetic tasks too; of equal rungs the sparser."""
    record = untrained_record(kind=kind)
    found_ = record.aggregates["untrained"]
    assert found_["headline"] == 0.32768
    best = found_["rungs"][3]
    assert best["ticket"]["mean"] == pytest.approx(0.82, abs=1e-3)  # test: .8 to .84
    assert best["above_random"]["mean"] == pytest.approx(0.72, abs=1e-3)
    assert best["p"] < 1e-4
    difference = best["ticket"]["mean"] - best["dense"]["mean"]
    assert best["difference"]["mean"] == pytest.approx(difference)
    for name in ("loss", "retention", "rankable"):
        assert record.aggregates[name] is None
    assert record.aggregates["matching"] == {"proved": None, "not_refuted": None}
    assert record.aggregates["speed"] == {}
    assert record.aggregates["complete"]


def test_a_trained_record_has_no_word_of_it() -> None:
    assert "untrained" not in synthetic_record().aggregates


def test_a_failed_untrained_run_scores_chance() -> None:
    table = json.loads(html.as_json(untrained_record()))
    for cell in table["cells"]:
        if (cell["kind"], cell["density"], cell["seed"]) == ("untrained", 0.512, 0):
            cell["status"], cell["correct"] = "missing", {}
        if (cell["kind"], cell["seed"]) == ("untrained_random", 0):
            cell["status"], cell["correct"] = "failed", {}
    record = build(table)
    rung = record.aggregates["untrained"]["rungs"][2]
    assert rung["ticket"]["values"][0] == 0.1
    assert rung["random"] is None and rung["above_random"] is None and rung["p"] is None
    assert not record.aggregates["complete"]
    assert "1 of 60 tickets missing" in terminal.terminal(record)


# --- what a reader sees ----------------------------------------------------------------------


def test_the_first_screen_says_how_good_against_what() -> None:
    text = " ".join(terminal.terminal(untrained_record()).split())
    assert "How good at 32.8 % density 82.00 ±1.96 % accuracy on the test split" in text
    assert "the rung best on the held-out part" in text
    assert "points above a random mask, both untrained; p <.001" in text
    assert "untrained tickets, which have a board of their own" in text
    development = terminal.terminal(untrained_record(2, final=False))
    assert "which is shown here too" in " ".join(development.split())


@pytest.mark.parametrize("kind", ["accuracy", "area"])
def test_tables_for_untrained_tickets(kind: str) -> None:
    first, trained, *_ = tables.tables(untrained_record(kind=kind))
    assert first.caption.startswith("Ticket as it stands, no weight trained: accuracy on the test")
    assert first.head[1:4] == ("untrained", "−\u00a0dense, points", "random mask")
    assert [row[0] for row in first.rows] == ["80.0", "64.0", "51.2", "32.8", "21.0", "10.7"]
    assert trained.caption.startswith("Ticket after training, against dense and the controls")
    assert trained.head[3:] == ("shuffled", "reinit")


def test_the_page_and_latex_hold_them_too(tmp_path: Path) -> None:
    record = untrained_record()
    page = html.html(tmp_path, [record])
    assert "Ticket as it stands" in page
    assert "beside a random mask at theta_0" in page
    assert "Ticket as it stands" in latex.latex(record)
    assert [f.name for f in figures.figures(record)][:2] == ["untrained", "density"]


# --- baselines -------------------------------------------------------------------------------


def test_supermask_differentiates_through_its_multiplier() -> None:
    """Where all weights help alike none is worth more than another: the sum stays as it is."""
    sampled = own("supermask").__globals__["sampled"]
    draw = torch.Generator().manual_seed(3)
    logits = torch.randn(60, 50, generator=draw, requires_grad=True)
    effective = sampled({"w": torch.ones(60, 50)}, {"w": logits}, draw)["w"]
    assert 0 < int((effective > 0).sum()) < 3000
    (gradient,) = torch.autograd.grad(effective.sum(), logits)
    torch.testing.assert_close(gradient, torch.zeros(60, 50), rtol=0, atol=1e-6)


def test_supermask_gradients_on_average() -> None:
    """Of a loss that is linear in the weights of a large layer: those of its mean over masks."""
    sampled = own("supermask").__globals__["sampled"]
    draw = torch.Generator().manual_seed(3)
    shape = (60, 50)
    weights, slopes, start = (torch.randn(shape, generator=draw) for _ in range(3))
    slopes += 0.5 * weights.sign()  # so that the multiplier counts
    logits = start.clone().requires_grad_()
    total = torch.zeros(shape)
    for _ in range(400):
        effective = sampled({"w": weights}, {"w": logits}, draw)["w"]
        total += torch.autograd.grad((effective * slopes).sum(), logits)[0] / 400
    along, chance = (weights * slopes).double(), start.double().sigmoid()
    share = chance.mean()
    # d/dp of sum(p along) / mean(p), the loss at the mean mask, which many weights come close to.
    expected = (along - (chance * along).mean() / share) / share * chance * (1 - chance)
    torch.testing.assert_close(total.double(), expected, rtol=0.02, atol=2e-3)


def test_an_empty_draw_of_a_supermask_is_finite() -> None:
    """The authors' code divides by the count, which is 0 there."""
    sampled = own("supermask").__globals__["sampled"]
    logits = torch.full((2, 2), -100.0, requires_grad=True)
    effective = sampled({"w": torch.ones(2, 2)}, {"w": logits}, torch.Generator())["w"]
    assert not effective.any()
    assert torch.autograd.grad(effective.sum(), logits)[0].isfinite().all()


def test_binary_weights_of_an_empty_or_tiny_layer_are_finite() -> None:
    """The authors' code divides by a count that is 0 there."""
    binary = own("multiprize").__globals__["binary"]
    weights = {"w": torch.tensor([[0.5, -2.0], [1.0, 3.0]])}
    given = torch.tensor([[0.1, -0.9], [0.2, 0.3]], requires_grad=True)
    for count, alpha in ((0, 0.0), (1, 2.0), (2, 2.5), (4, 1.625)):
        found_ = binary(weights, {"w": given}, {"w": count})["w"]
        assert int((found_ != 0).sum()) == count
        assert count == 0 or found_[0, 1].item() == -alpha
        (slope,) = torch.autograd.grad(found_.sum(), given)
        assert torch.equal(slope, weights["w"] * given.sign())


@pytest.mark.slow
def test_edge_popup_is_well_above_chance_untrained() -> None:
    """Ramanujan et al.'s result, on digits: no weight is trained."""
    task = load_task("mlp-digits")
    datasets.prepare(task, download=False, test=False)
    search = datasets.search(task, SEED)
    train, held_out = (trainings.examples(task, part) for part in (search.train, search.held_out))
    with small.problem(task, train) as problem:
        find = own("edge_popup")(problem, length=0.1)
        tickets = [next(find) for _ in range(3)]
    for ticket in tickets:
        weights = {
            n: t * ticket.masks.get(n, torch.tensor(True)) for n, t in ticket.weights.items()
        }
        state = State(weights, 0)
        network = families.load(task.network, task.network.depth, state).eval()
        found_ = network(held_out.inputs(slice(None))).argmax(1)
        assert (found_ == held_out.y).float().mean() > 0.6


def test_the_engine_estimates_before_it_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that only evaluates sees as many batches as its job says, a training none."""
    seen: list[int] = []
    monkeypatch.setattr(
        batch_norm, "estimate", lambda network, inputs: seen.append(len(list(inputs)))
    )
    job = tiny.job(until=0)
    from dataclasses import replace

    for count in (0, 7):
        list(plain.run([replace(job, norm_batches=count)], {0: tiny.examples()}))
    assert seen == [0, 7]
