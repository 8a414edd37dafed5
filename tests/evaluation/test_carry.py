"""Tickets at the task's neighbouring depths, from the search to the record."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lthbench.errors import MethodError, NotApplicable
from lthbench.evaluation.options import DEVELOPMENT as SEED
from lthbench.evaluation.pipeline import evaluate
from lthbench.evaluation.workload import carrying_steps
from lthbench.networks import families
from lthbench.protocol.task import load_task
from lthbench.records.schema import Record, comparable, read_record
from lthbench.report import terminal
from lthbench.tickets import masks
from lthbench.tools.estimate import estimate
from lthbench.tools.freeze_reference import build
from lthbench.training import dispatch
from lthbench.training.dispatch import HERE, engine_for
from lthbench.training.job import Job, Result
from tests import tiny
from tests.searching import ROOT

TASK = ROOT / "tests" / "tasks" / "tiny-digits.toml"
ONE_SHOT = (
    "from lthbench import Ticket, keep_top\n"
    "def find_tickets(problem):\n"
    "    end = problem.train()\n"
    "    for density in problem.densities:\n"
    "        yield Ticket(keep_top({n: end[n].abs() for n in problem.prunable}, density))\n"
)


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTHBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def carried(method: str, out: Path, **changes: Any) -> Record:
    given: dict[str, Any] = {"tasks": [str(TASK)], "seeds": 1, "workers": 0, "transfer": True}
    return evaluate(method, out=out, **{**given, **changes}).records[0]


@pytest.fixture(scope="module")
def one_shot(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Record]:
    folder = tmp_path_factory.mktemp("one-shot")
    (folder / "one_shot.py").write_text(ONE_SHOT)
    return folder, carried(str(folder / "one_shot.py"), folder / "out")


def test_every_rung_stands_at_every_target_beside_random(one_shot: tuple[Path, Record]) -> None:
    moved = one_shot[1].transfer
    assert moved is not None
    assert (moved.source, moved.targets, moved.densities) == (2, (1, 3), (0.5, 0.2))
    places = {(cell.kind, cell.depth, cell.density) for cell in moved.cells}
    both = {(k, d, p) for k in ("carried", "erk") for d in (1, 3) for p in (0.5, 0.2)}
    parts = {(k, d, 0.5) for k in ("layers", "mask-only", "weights-only") for d in (1, 3)}
    assert places == both | parts
    assert all(cell.status == "ok" for cell in moved.cells)
    assert all(cell.kept == cell.requested for cell in moved.cells)
    assert {c.origin for c in moved.cells if c.kind == "carried"} == {"transferred"}
    assert {c.division for c in moved.cells if c.kind == "carried"} == {"init"}
    assert carrying_steps(load_task(str(TASK)), 1, False) == len(moved.cells) * 120


def test_the_score_is_told(one_shot: tuple[Path, Record]) -> None:
    found = one_shot[1].aggregates["transfer"]
    assert len(found["rows"]) == 4
    above = [row["points"]["mean"] for row in found["rows"]]
    assert found["points"]["mean"] == pytest.approx(sum(above) / 4)
    assert found["gain"] is None  # there is no reference to tell a gain by


def test_the_record_is_read_again_and_a_second_run_is_the_same(
    one_shot: tuple[Path, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, record = one_shot
    tiny.trained_by(monkeypatch, lambda *args: pytest.fail("it was trained again"))
    again = carried(str(folder / "one_shot.py"), folder / "out")
    assert comparable(again) == comparable(record)
    stored = read_record(folder / "out" / "tiny-digits" / "record.json")
    assert comparable(stored) == comparable(record)


@pytest.mark.slow
def test_a_method_that_costs_little_is_run_at_the_targets_too(tmp_path: Path) -> None:
    record = carried("random", tmp_path / "out")
    assert record.transfer is not None
    direct = [cell for cell in record.transfer.cells if cell.kind == "direct"]
    places = {(cell.depth, cell.density) for cell in direct}
    assert places == {(d, p) for d in (1, 3) for p in (0.5, 0.2)}
    assert {cell.origin for cell in direct} == {"init"}
    cells = record.transfer.cells
    assert carrying_steps(load_task(str(TASK)), 1, True) == len(cells) * 120


def test_without_transfer_a_record_does_not_know_the_word(tmp_path: Path) -> None:
    record = carried("random", tmp_path / "out", transfer=False)
    assert record.transfer is None
    assert "transfer" not in record.model_dump(mode="json")
    assert "transfer" not in record.aggregates


@pytest.mark.slow
def test_the_reference_holds_what_random_and_imp_reach_at_the_targets(tmp_path: Path) -> None:
    record = carried("imp", tmp_path / "out", seeds=2, final=True, direct=True, transfer=None)
    assert record.controls == "all"
    frozen = build(record).frozen("test")
    assert frozen.transfer is not None
    assert set(frozen.transfer) == {f"{d}/{p!r}" for d in (1, 3) for p in (0.5, 0.2)}
    assert all(len(rung["imp"]) == len(rung["erk"]) == 2 for rung in frozen.transfer.values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["erk", "layers", "mask-only", "carried"])
def test_what_fails_at_a_target_is_drawn_again(
    kind: str,
    one_shot: tuple[Path, Record],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once here, with other masks or weights; a ticket never."""
    folder, record = one_shot
    assert record.transfer is not None
    (bad,) = [c for c in record.transfer.cells if (c.kind, c.depth, c.density) == (kind, 3, 0.5)]
    run = dispatch.RUN[engine_for(HERE, load_task(str(TASK)).network)]

    def failing(jobs: list[Job], *rest: Any) -> Iterator[tuple[str, Result]]:
        for key, result in run(jobs, *rest):
            told = masks.digest(jobs[0].masks or {}), jobs[0].start.digest, jobs[0].depth
            fails = told == (bad.masks, bad.weights, bad.depth)
            yield key, replace(result, status="diverged", correct={}) if fails else result

    monkeypatch.setenv("LTHBENCH_CACHE", str(tmp_path / "cache"))  # erk is shared there
    tiny.trained_by(monkeypatch, failing)
    moved = carried(str(folder / "one_shot.py"), tmp_path / "out").transfer
    assert moved is not None
    others = [c for c in moved.cells if (c.kind, c.depth, c.density) != (kind, 3, 0.5)]
    (cell,) = [c for c in moved.cells if c not in others]
    assert all(c in record.transfer.cells for c in others)
    if kind == "carried":
        assert (cell.status, cell.attempt) == ("diverged", 0)
        return
    assert (cell.status, cell.attempt) == ("ok", 1)
    assert (cell.masks != bad.masks) == (kind != "mask-only")
    assert (cell.weights != bad.weights) == (kind in ("mask-only", "layers"))
    assert cell.kept == bad.kept


def test_masks_alone_start_from_weights_that_the_ticket_has_not(
    one_shot: tuple[Path, Record],
) -> None:
    moved = one_shot[1].transfer
    assert moved is not None
    for depth in moved.targets:
        found = {c.kind: c for c in moved.cells if (c.depth, c.density) == (depth, 0.5)}
        assert found["mask-only"].masks == found["carried"].masks
        assert found["weights-only"].weights == found["carried"].weights
        weights = [
            families.initial(load_task(str(TASK)).network, depth, SEED, *stream)
            for stream in ((), ("control", "mask-only", "0"))
        ]
        assert found["layers"].weights == found["mask-only"].weights == weights[1].digest
        assert found["layers"].masks == found["weights-only"].masks
        assert not any(torch.equal(weights[0][n], weights[1][n]) for n in weights[0] if "w" in n)


def test_a_ticket_that_misses_its_rung_is_told_with_the_tensor(tmp_path: Path) -> None:
    """The elastic rule leaves a shallower network less than half of what the rung keeps."""
    (tmp_path / "deep.py").write_text(
        "from lthbench import Ticket, keep_top\n"
        "def find_tickets(problem):\n"
        "    theta = problem.theta()\n"
        "    scores = {n: theta[n].abs() + 9 * ('hidden.1' in n) for n in problem.prunable}\n"
        "    for density in problem.densities:\n"
        "        yield Ticket(keep_top(scores, density))\n"
    )
    record = carried(str(tmp_path / "deep.py"), tmp_path / "out")
    text = " ".join(terminal.terminal(record).split())
    assert re.search(
        r"Failed carried, 20.0 % density, seed 1000, depth 1: missing: \S+\.weight: .* off by more "
        "than a factor of 2",
        text,
    ), text


@pytest.mark.slow
def test_a_task_that_a_method_cannot_be_run_on_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "tens.py").write_text(
        "from lthbench import NotApplicable\n"
        + ONE_SHOT.replace(
            "    end =",
            "    if problem.classes != 10:\n"
            "        raise NotApplicable('ten classes only')\n"
            "    end =",
        )
    )
    method, sums = str(tmp_path / "tens.py"), str(TASK.with_name("tiny-modadd.toml"))
    for on in (False, True):
        given: Any = {"seeds": 1, "workers": 0, "out": tmp_path / "out", "keep_going": on}
        done = evaluate(method, tasks=[sums, str(TASK)], transfer=False, **given)
        assert [record.task.name for record in done.records] == ["tiny-digits"]
        assert done.left_out == (("tiny-modadd", "tens: ten classes only"),)
        with pytest.raises(NotApplicable, match=r"^tiny-modadd: tens: ten classes only$"):
            evaluate(method, tasks=[sums], **given)
    told = estimate(method, tasks=[sums, str(TASK)], seeds=1, workers=0)
    assert [row.task for row in told.rows] == ["tiny-digits"]
    assert "tiny-modadd: left out: tens: ten classes only" in told.notes()


@pytest.mark.slow
def test_a_task_is_not_left_out_once_it_is_begun(tmp_path: Path) -> None:
    """Who has seen how well he does may not choose his tasks."""
    late = ONE_SHOT.replace("from lthbench import", "from lthbench import NotApplicable,")
    given: Any = {"tasks": [str(TASK)], "seeds": 1, "workers": 0, "transfer": False}
    for place in ("    for density", "    return\n"):
        text = late + "    return\n"
        text = text.replace(place, "    raise NotApplicable('not so well')\n" + place, 1)
        (tmp_path / "late.py").write_text(text)
        with pytest.raises(MethodError, match=r"late\.py:\d+: NotApplicable") as told:
            evaluate(str(tmp_path / "late.py"), out=tmp_path / str(len(place)), **given)
        assert not isinstance(told.value, NotApplicable)


@pytest.mark.slow
def test_another_depth_may_be_left_out(tmp_path: Path) -> None:
    """The task keeps its record; what is carried from there has none."""
    (tmp_path / "shallow.py").write_text(
        ONE_SHOT.replace("from lthbench import", "from lthbench import NotApplicable,").replace(
            "    end =",
            "    if problem.depth != 1:\n        raise NotApplicable('one layer')\n    end =",
        )
    )
    record = carried(str(tmp_path / "shallow.py"), tmp_path / "out")
    assert record.transfer is not None
    assert record.transfer.reason == "shallow: one layer"
    assert "No transfer" in terminal.terminal(record)


OWN = ONE_SHOT + (
    "def transfer_ticket(ticket, source, target):\n    from lthbench import elastic\n    {body}\n"
)


def own(folder: Path, body: str) -> str:
    path = folder / "own.py"
    path.write_text(OWN.replace("{body}", body))
    return str(path)


def test_a_methods_own_rule_carries_its_tickets(
    tmp_path: Path, one_shot: tuple[Path, Record]
) -> None:
    """The elastic rule called by the method itself gives what the harness gives."""
    record = carried(own(tmp_path, "return elastic(ticket, source, target)"), tmp_path / "out")
    assert record.transfer is not None
    assert one_shot[1].transfer is not None
    assert record.transfer.rule == "own"
    assert record.transfer.cells == one_shot[1].transfer.cells


@pytest.mark.slow
def test_weights_of_its_own_making_are_free(tmp_path: Path) -> None:
    body = (
        "moved = elastic(ticket, source, target)\n"
        "    weights = {n: 2 * t for n, t in moved.weights.items()}\n"
        "    return Ticket(moved.masks, 0, weights)"
    )
    record = carried(own(tmp_path, body), tmp_path / "out")
    assert record.transfer is not None
    cells = [cell for cell in record.transfer.cells if cell.kind == "carried"]
    assert {(cell.origin, cell.division) for cell in cells} == {("free", "open")}


@pytest.mark.slow
def test_a_rung_that_was_not_found_scores_chance_at_every_target(tmp_path: Path) -> None:
    (tmp_path / "one_shot.py").write_text(
        ONE_SHOT.replace("problem.densities:", "problem.densities[:1]:")
    )
    moved = carried(str(tmp_path / "one_shot.py"), tmp_path / "out").transfer
    assert moved is not None
    sparse = [cell for cell in moved.cells if cell.kind == "carried" and cell.density == 0.2]
    assert {(cell.depth, cell.status) for cell in sparse} == {(1, "missing"), (3, "missing")}
