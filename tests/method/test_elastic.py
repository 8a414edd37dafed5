"""The elastic baseline: what it hands over is the other depth's ticket, and is known as such."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lthbench import Ticket
from lthbench.method.problem import Problem
from lthbench.method.source import load_method
from lthbench.records.aggregate import division
from lthbench.tickets.ticket import check, origin
from lthbench.tools.check import TASK
from tests.searching import begin, search

SEED = 3


def deeper(folder: Path) -> tuple[Problem, Problem]:
    problem, _ = begin(TASK, SEED, folder)
    return problem, problem.at_depth(2)


def test_its_tickets_are_transferred_and_stand_where_their_source_stood(tmp_path: Path) -> None:
    state = search(load_method("elastic", {"depth": "2"}), TASK, SEED, tmp_path)
    assert {rung.origin for rung in state.rungs} == {"transferred"}
    assert {rung.start for rung in state.rungs} == {TASK.search.rewind_limit}
    assert [rung.density for rung in state.rungs] == list(TASK.ladder.trained)
    assert division("transferred", 0) == "init"
    assert division("transferred", 20) == "rewind"


def test_one_bit_more_and_it_is_free(tmp_path: Path) -> None:
    problem, source = deeper(tmp_path)
    there = {name: tensor for name, tensor in source.theta().items() if name in problem.theta()}
    masks = {name: torch.ones(shape, dtype=torch.bool) for name, shape in problem.shapes.items()}
    foreign = {**there, "head.weight": there["head.weight"].flip(0)}
    other = problem.at_depth(3).theta()
    ticket = Ticket(masks, 0, {**there, "hidden.0.weight": there["hidden.0.weight"] + 0})
    check(ticket, problem.shapes, {n: tuple(t.shape) for n, t in problem.theta().items()}, 0)
    known = {0: source.theta(20)}  # not theta_0 of its own depth: that has the same first tensors
    assert origin(ticket, known, [], [source.theta()]) == ("transferred", 0)
    assert origin(ticket, known, [], []) == ("free", 0)
    for name in ("hidden.0.weight", "hidden.0.bias", "head.bias"):
        changed = there[name].clone().view(torch.int32)
        changed.view(-1)[0] += 1
        moved = Ticket(masks, 0, {**there, name: changed.view(torch.float32)})
        assert origin(moved, known, [], [source.theta(), other])[0] == "free", name
    assert origin(Ticket(masks, 0, foreign), known, [], [source.theta()])[0] == "free"


def test_a_smaller_network_without_blocks_is_no_source(tmp_path: Path) -> None:
    problem, _ = begin(TASK, SEED, tmp_path)
    with pytest.raises(Exception, match="depths from 1"):
        problem.at_depth(0)
