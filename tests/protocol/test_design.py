"""protocol.design: which cells an experiment has, from the task, the plan and the tickets."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import pytest

from lthbench.protocol import design
from lthbench.protocol.constants import COMPRESSED, CONTROLS, PARTS
from lthbench.protocol.design import Found, Place, Plan, TargetPlace
from lthbench.protocol.task import Controls, load_task
from tests.searching import ROOT

TASK = load_task(str(ROOT / "tests" / "tasks" / "tiny-digits.toml"))
LADDER, RUNG = TASK.ladder.trained, TASK.score.compressed_density
EVERY = Plan()


def kinds_at(density: float, ticket: Found | None, plan: Plan = EVERY) -> list[str]:
    """The kinds of cell on a rung, where every other rung has a ticket at theta_0."""
    tickets = dict.fromkeys(LADDER, Found())
    tickets = {d: found for d, found in tickets.items() if d != density}
    cells = design.cells(TASK, plan, 0, tickets | ({density: ticket} if ticket else {}))
    return [place.kind for place in cells if (place.density, place.schedule) == (density, 1)]


def test_a_ticket_has_its_controls() -> None:
    assert kinds_at(LADDER[0], Found()) == ["ticket", *CONTROLS]
    assert kinds_at(LADDER[0], Found("rewind", 12)) == ["ticket", *CONTROLS]


def test_trained_weights_have_no_others() -> None:
    assert kinds_at(LADDER[0], Found("final")) == ["ticket", "shuffled", "random", "erk"]


def test_a_missing_ticket_is_a_cell_without_controls_of_its_own() -> None:
    assert kinds_at(LADDER[0], None) == ["ticket", "random", "erk"]


@pytest.mark.parametrize("controls", get_args(Controls))
def test_controls_are_where_the_plan_wants_them(controls: Controls) -> None:
    rungs = {"all": LADDER, "alternate": LADDER[::-2], "one rung": LADDER[-2:-1]}[controls]
    for density in LADDER:
        found = kinds_at(density, Found(), Plan(controls=controls))
        assert found == ["ticket", *(CONTROLS if density in rungs else ())]


@pytest.mark.parametrize(("start", "factors"), [(0, COMPRESSED), (15, (4, 2)), (60, ())])
def test_a_short_schedule_begins_after_the_tickets_step(
    start: int, factors: tuple[int, ...]
) -> None:
    """Of T = 120, an eighth is 15 steps."""
    tickets = {RUNG: Found("rewind", start)}
    short = [p for p in design.cells(TASK, EVERY, 3, tickets) if p.schedule > 1]
    wanted = [Place("dense", 1.0, 3, n) for n in COMPRESSED]
    wanted += [Place(kind, RUNG, 3, n) for kind in ("ticket", "reinit") for n in factors]
    assert short == wanted
    assert not [p for p in design.cells(TASK, Plan(compressed=False), 3, tickets) if p.schedule > 1]


def test_untrained_tickets_stand_beside_a_random_one() -> None:
    tickets = {TASK.ladder.untrained[0]: Found("scaled")}
    found = Counter(p.kind for p in design.cells(TASK, EVERY, 0, tickets, untrained=True))
    rungs = len(TASK.ladder.untrained)
    assert found == {
        **dict.fromkeys(("ticket", "untrained", "untrained_random"), rungs),
        **dict.fromkeys(("dense", "shuffled", "reinit"), 1),
    }


def test_parts_of_what_arrived_on_the_denser_rung() -> None:
    assert TASK.transfer
    rungs = design.target_rungs(TASK.transfer)
    arrived, direct = set(rungs) - {rungs[0]}, {rungs[1]}
    found = list(design.target_cells(TASK.transfer, 0, arrived, direct))
    wanted = {TargetPlace(kind, *at, 0) for kind in ("erk", "carried") for at in rungs}
    wanted |= {TargetPlace(kind, *rungs[2], 0) for kind in PARTS}
    assert set(found) == wanted | {TargetPlace("direct", *rungs[1], 0)}
    assert len(set(found)) == len(found)
    assert rungs[2][1] == rungs[0][1] == TASK.transfer.densities[0]
