"""The frozen reference: made from one record, read by every other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lthbench.errors import RecordError
from lthbench.io.paths import canonical_json
from lthbench.protocol.task import Task, load_task
from lthbench.records import metrics, reference
from lthbench.records.reference import load_reference
from lthbench.records.schema import Record
from lthbench.tools.freeze_reference import build
from tests.scoring import score_of
from tests.synthetic import Kind, synthetic_record


def imp(kind: Kind = "accuracy", **changes: Any) -> Record:
    """IMP's final record as a reference is made from: all controls, published seeds."""
    return synthetic_record(3, kind, changes.pop("seeds", 5), reference=False, **changes)


def scores(record: Record, kind: str, density: float, part: str) -> list[float]:
    table = record.model_dump(mode="json")
    cells = [c for c in table["cells"] if (c["kind"], c["schedule"]) == (kind, 1)]
    cells = [c for c in cells if c["density"] == density]
    return [score_of(table, cell, part) for cell in cells]


@pytest.mark.parametrize("part", ["held_out", "test"])
@pytest.mark.parametrize("kind", ["accuracy", "area"])
def test_values_are_those_of_the_record(kind: Kind, part: Any) -> None:
    """On both sets: dense by seed, its margin, and what erk and imp lose down the ladder."""
    record = imp(kind)
    frozen = build(record)
    values, ladder = frozen.values[part], record.task.ladder
    dense = scores(record, "dense", 1.0, part)
    assert values.dense == tuple(dense)
    size = record.sizes["0"][part]
    assert values.margin == metrics.margin(dense, size)
    weights = metrics.log_density_weights(ladder)
    for runs, lost in (("erk", values.loss_random), ("ticket", values.loss_imp)):
        rows = [scores(record, runs, density, part) for density in ladder]
        by_hand = [
            100 * sum(w * (dense[seed] - row[seed]) for w, row in zip(weights, rows, strict=True))
            for seed in range(5)
        ]
        assert lost == pytest.approx(by_hand)


def test_the_reference_itself_scores_nothing() -> None:
    """A record's own reference moves its scores, not what the next one is made from."""
    bare, scored = imp(), synthetic_record(3)
    assert bare.reference is None
    assert scored.reference is not None
    assert build(bare) == build(scored)


def test_what_a_record_holds_of_it() -> None:
    frozen = build(imp())
    for part in ("held_out", "test"):
        held = frozen.frozen(part)  # type: ignore[arg-type]
        values = frozen.values[part]  # type: ignore[index]
        assert (held.digest, held.provisional) == (frozen.digest, True)
        assert (held.dense, held.margin) == (values.dense, values.margin)
        assert held.loss_random == values.loss_random


def test_provisional_until_it_has_ten_seeds() -> None:
    assert build(imp(seeds=9)).provisional
    assert not build(imp(seeds=10)).provisional


def test_dense_runs_are_paired_by_seed() -> None:
    """Whole curves at T of every seed, in the order of the seeds."""
    record = imp()
    frozen = build(record)
    assert tuple(cell.seed for cell in frozen.dense) == record.seeds == frozen.seeds
    assert {(cell.kind, cell.schedule) for cell in frozen.dense} == {("dense", 1)}
    assert all(cell in record.cells for cell in frozen.dense)
    last = [
        cell.correct["test"][-1] / frozen.sizes[str(cell.seed)]["test"] for cell in frozen.dense
    ]
    assert frozen.values["test"].dense == tuple(last)


def test_random_controls_are_carried_but_those_that_failed() -> None:
    """An evaluation of these seeds takes them from here; without any, a file says nothing."""
    record = imp(bad={("random", 0.8**7, 2): ("diverged", "")})
    frozen = build(record)
    assert frozen.controls
    wanted = [c for c in record.cells if c.kind in ("erk", "random") and c.status == "ok"]
    assert list(frozen.controls) == wanted and len(wanted) == 2 * 5 * 6 - 1
    assert frozen.cells == (*frozen.dense, *frozen.controls)
    older = frozen.model_copy(update={"controls": None})
    assert older.cells == frozen.dense and "controls" not in older.model_dump(mode="json")
    assert older.digest != frozen.digest


def test_every_value_moves_the_digest() -> None:
    frozen = build(imp())
    assert frozen.digest == build(imp()).digest
    for change in ({"provisional": False}, {"environment": {"device": "another"}}):
        assert frozen.model_copy(update=change).digest != frozen.digest


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "oneshot"}, "lthbench evaluate imp --final"),
        ({"final": False}, "lthbench evaluate imp --final"),
        ({"controls": "one rung"}, "--final --controls all"),
        ({"bad": {("erk", 0.8**7, 2): ("diverged", "")}}, "erk at density 0.2097: a seed is miss"),
        ({"bad": {("dense", 1.0, 0): ("failed", "")}}, "dense at density 1: a seed is missing or"),
        ({"bad": {("ticket", 0.8**3, 4): ("missing", "")}}, "ticket at density 0.512: a seed is"),
    ],
)
def test_the_wrong_record_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RecordError, match=words):
        build(imp(**changes))


# --- on disk ---------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of references in place of the shipped one."""
    monkeypatch.setattr(reference, "shipped", lambda kind: tmp_path / kind)
    folder = tmp_path / "leaderboard" / "reference"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("lenet300-mnist")


def test_it_belongs_to_one_protocol(place: Path, task: Task) -> None:
    """Of another version's reference nothing is used."""
    path = place / "lenet300-mnist.json"
    assert load_reference(task) is None
    other = build(imp())
    path.write_bytes(canonical_json(other.model_dump(mode="json")))
    assert load_reference(task) is None
    own = build(imp(task={"digest": task.digest}))
    path.write_bytes(canonical_json(own.model_dump(mode="json")))
    assert load_reference(task) == own


@pytest.mark.parametrize("spoil", ["cut", "unknown", "wrong"])
def test_a_damaged_reference_is_named(spoil: str, place: Path, task: Task) -> None:
    path = place / "lenet300-mnist.json"
    table = build(imp()).model_dump(mode="json")
    if spoil == "unknown":
        table["colour"] = "red"
    if spoil == "wrong":
        table["seeds"] = "five"
    text = json.dumps(table)
    path.write_text(text[:-9] if spoil == "cut" else text)
    with pytest.raises(RecordError) as caught:
        load_reference(task)
    assert str(caught.value).startswith(f"{path}: not a reference: ")
    assert "\n" not in str(caught.value)
