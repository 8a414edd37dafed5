"""Every baseline's check passes for the baseline and fails for what is put in its place.

A check is `check(find)` in `tests/checks/<name>.py`: it runs a method on a problem that is computed
again in numpy, and raises AssertionError unless the tickets are right. Each must fail for IMP, for
random pruning, and for the baseline itself with its scores negated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from lthbench.method.problem import Problem
from lthbench.method.source import baseline_names
from lthbench.tickets.masks import Masks, counts, keep_top
from lthbench.tickets.ticket import Ticket
from tests.checks import small
from tests.checks.small import Find

CHECKS = Path(__file__).parents[1] / "checks"
NEGATED = {
    # A lot with its sign turned is another lot: there is nothing that a check could notice.
    "random": "draws lots",
    "erk": "draws lots",
}
UNTRAINED = ("edge_popup", "multiprize", "supermask")
CHECKED = sorted(p.stem for p in CHECKS.glob("*.py") if p.stem in baseline_names())
PAIRS = [
    (name, impostor)
    for name in CHECKED
    for impostor in ("imp", "random", "negated")
    if name != impostor and not (impostor == "negated" and name in NEGATED)
]


def own(name: str) -> Find:
    """A baseline's own function, in a module of its own."""
    found: Find = small.namespace(name)["find_tickets"]
    return found


def other(name: str) -> Find:
    """Another baseline in its place, whatever options are given."""
    found = own(name)

    def find_tickets(problem: Problem, **_options: Any) -> Iterable[Ticket]:
        return found(problem)

    return find_tickets


def negated(name: str) -> Find:
    """The baseline, keeping the lowest scores in place of the highest."""

    def keep_bottom(
        scores: Mapping[str, Tensor],
        keep: float | Mapping[str, int],
        within: Masks | None = None,
    ) -> dict[str, Tensor]:
        return keep_top({n: -values for n, values in scores.items()}, keep, within)

    found = own(name)
    assert "keep_top" in found.__globals__, f"{name} chooses without keep_top: negate it here"
    found.__globals__["keep_top"] = keep_bottom
    return found


def dressed(name: str, impostor: str) -> Find:
    """Another baseline's masks with all that is formal of an untrained ticket.

    The number of tickets, each layer's count, signs and magnitudes are right: which weights are
    kept is all that a check can fail for.
    """
    genuine, found = own(name), own(impostor)

    def find_tickets(problem: Problem, **options: Any) -> Iterable[Ticket]:
        theta, tickets = problem.theta(), list(genuine(problem, **options))
        problem.densities = problem.untrained_densities
        for ticket, other in zip(tickets, found(problem), strict=True):
            assert ticket.weights is not None
            masks = keep_top({n: m.float() for n, m in other.masks.items()}, counts(ticket.masks))
            weights = dict(ticket.weights)
            for tensor, mask in masks.items():
                magnitude = theta[tensor].abs()[mask].mean()  # as multiprize has it
                if name != "multiprize":
                    magnitude = ticket.weights[tensor].abs()[ticket.masks[tensor]].max()
                weights[tensor] = theta[tensor].sign() * magnitude
            yield Ticket(masks, 0, weights, trained=False)

    return find_tickets


def check(name: str, find: Find) -> None:
    import_module(f"tests.checks.{name}").check(find)


def test_every_baseline_has_a_check() -> None:
    assert list(baseline_names()) == CHECKED


@pytest.mark.parametrize("name", CHECKED)
def test_a_baseline_passes_its_check(name: str) -> None:
    check(name, own(name))


@pytest.mark.parametrize(("name", "impostor"), PAIRS)
def test_an_impostor_does_not(name: str, impostor: str) -> None:
    with pytest.raises(AssertionError):
        check(name, negated(name) if impostor == "negated" else other(impostor))


@pytest.mark.parametrize("impostor", ["imp", "random"])
@pytest.mark.parametrize("name", UNTRAINED)
def test_an_impostor_in_untrained_dress_does_not(name: str, impostor: str) -> None:
    with pytest.raises(AssertionError, match="entries differ"):  # all else is right
        check(name, dressed(name, impostor))


@pytest.mark.parametrize("impostor", ["imp", "random"])
def test_an_impostor_with_the_weights_of_elastic_does_not(impostor: str) -> None:
    """Its start, its weights and each layer's count are right: the masks are another's."""

    def find_tickets(problem: Problem) -> Iterable[Ticket]:
        genuine = own("elastic")(problem)
        for ticket, other in zip(genuine, own(impostor)(problem), strict=True):
            ranked = {name: mask.float() for name, mask in other.masks.items()}
            yield replace(ticket, masks=keep_top(ranked, counts(ticket.masks)))

    with pytest.raises(AssertionError, match="differ"):
        check("elastic", find_tickets)
