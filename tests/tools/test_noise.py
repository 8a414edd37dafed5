"""The noise floor: starts that differ by a bit, and what their counts differ by."""

from __future__ import annotations

import asyncio
import json
import statistics
from pathlib import Path

import numpy as np
import pytest

from lthbench.errors import RecordError
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol import datasets
from lthbench.protocol.task import load_task
from lthbench.records import runs
from lthbench.tickets import controls, masks, ticket_files
from lthbench.tickets.ticket_files import Rung
from lthbench.tools import noise_floor
from lthbench.tools.freeze_reference import _noise, build, searched_at_targets
from lthbench.training.dispatch import Means
from tests import submitted
from tests.searching import ROOT
from tests.synthetic import synthetic_record

TINY = str(ROOT / "tests" / "tasks" / "tiny-digits.toml")


def test_a_start_is_moved_by_one_unit_in_the_last_place() -> None:
    start = families.initial(load_task(TINY).network, 1, 0)
    moved = noise_floor.nudged(start, 0, 3)
    assert list(moved) == list(start)
    ups = []
    for name, tensor in start.items():
        one, other = tensor.numpy(), moved[name].numpy()
        up, down = np.nextafter(one, np.float32(np.inf)), np.nextafter(one, np.float32(-np.inf))
        assert ((other == up) | (other == down)).all()
        ups += [bool(bit) for bit in (other == up).ravel()]
    assert 0.4 < np.mean(ups) < 0.6
    assert noise_floor.nudged(start, 0, 3).digest == moved.digest
    assert noise_floor.nudged(start, 0, 4).digest != moved.digest
    assert noise_floor.nudged(start, 1, 3).digest != moved.digest


def test_a_floor_is_a_standard_deviation_and_at_least_an_example() -> None:
    assert noise_floor.floor([10, 14, 12], 1.0) == statistics.stdev([10, 14, 12])
    assert noise_floor.floor([5, 5, 5, 5], 1.0) == 1.0
    assert noise_floor.floor([5.0, 5.01], 0.1) == 0.1


@pytest.mark.parametrize("kind", ["accuracy", "area"])
def test_floors_are_measured_on_every_rung(kind: str, tmp_path: Path, cache: Path) -> None:
    task = load_task(TINY)
    task = task.model_copy(update={"score": task.score.model_copy(update={"kind": kind})})
    datasets.prepare(task, download=False)
    shapes = families.shapes(task.network, task.network.depth)
    for rung, chosen in zip(
        task.ladder.trained,
        controls.random_masks(shapes, task.ladder.trained, 0, "uniform"),
        strict=True,
    ):
        told = Rung(rung, masks.kept(chosen), True, "init", 0, masks.digest(chosen), None, 0.0)
        ticket_files.write_ticket(tmp_path / "tickets" / "seed0", told, chosen, {})
    found, sizes = asyncio.run(noise_floor.scored(task, 0, tmp_path, 0, Means(), draws=3))
    assert set(found) == {"held_out", "test"}
    for part, rungs in found.items():
        assert [[len(draw) for draw in rung] for rung in rungs] == (
            [[len(task.grid)] * 3] * len(task.ladder.trained)
        )
        least = runs.unit(task.score.kind, sizes[part]) / sizes[part]
        floors = noise_floor.floors(task, rungs, sizes[part])
        assert len(floors.score) == len(floors.curve) == len(task.ladder.trained)
        assert min(floors.score) >= least and min(floors.curve) >= 1.0


def test_a_floor_of_curves_is_a_mean_over_evaluations() -> None:
    """Deviations of 2 and 4 at two evaluations: the root of (4 + 16) / 2."""
    assert noise_floor.curve_floor([[10, 10], [12, 14], [14, 18]]) == pytest.approx(10**0.5)
    assert noise_floor.curve_floor([[10, 10], [10, 11]]) == 1.0


def test_a_reference_takes_floors_up_and_does_without(tmp_path: Path) -> None:
    record = synthetic_record(3, "accuracy", 5, reference=False)
    path = tmp_path / "noise.json"
    assert _noise(path, record) == ()
    assert "noise" not in build(record).model_dump(mode="json")
    rungs = [1.0] * len(record.task.ladder)
    floors = {part: {"score": rungs, "curve": rungs} for part in ("held_out", "test")}
    path.write_text(json.dumps({"task": record.task.digest, "floors": floors}))
    frozen = build(record, *_noise(path, record))
    assert frozen.noise and frozen.noise["test"].score == tuple(rungs)
    assert frozen.noise_at is None
    table = {"task": record.task.digest, "floors": floors, "targets": {"1": floors}}
    path.write_text(json.dumps(table))
    with pytest.raises(RecordError, match="of other rungs"):  # its tickets were not carried
        _noise(path, record)
    path.write_text(json.dumps({"task": "another", "floors": floors}))
    with pytest.raises(RecordError, match="floors of another protocol"):
        _noise(path, record)
    few = {part: {"score": rungs, "curve": rungs[1:]} for part in floors}
    path.write_text(json.dumps({"task": record.task.digest, "floors": few}))
    with pytest.raises(RecordError, match="of other rungs"):
        _noise(path, record)
    path.write_text("{")
    with pytest.raises(RecordError, match=r"damaged, .* run lthbench dev noise again"):
        _noise(path, record)


def test_no_state_is_left_moved() -> None:
    start = State({"w": families.initial(load_task(TINY).network, 1, 0)["head.bias"]}, 0)
    before = start.digest
    noise_floor.nudged(start, 0, 0)
    assert start.digest == before


def test_targets_have_a_floor_only_where_imp_searched_there() -> None:
    """Elsewhere there is no ticket of the target to measure; a reference freezes no runs there."""
    _, record = submitted.carried()
    assert record.transfer is not None
    assert not searched_at_targets(record)
    own = record.transfer.cells[0].model_copy(update={"kind": "direct"})
    moved = record.transfer.model_copy(update={"cells": (*record.transfer.cells, own)})
    assert searched_at_targets(record.model_copy(update={"transfer": moved}))
    assert not searched_at_targets(record.model_copy(update={"transfer": None}))
