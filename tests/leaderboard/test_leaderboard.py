"""What the leaderboard folder holds: references and records that can be read and follow."""

from __future__ import annotations

from pathlib import Path

import pytest

from lthbench.io.paths import shipped
from lthbench.protocol.task import load_task
from lthbench.records.reference import PROVISIONAL_BELOW, load_reference
from lthbench.records.schema import read_record, record_digest
from lthbench.tools.freeze_reference import build

BOARD = shipped("leaderboard")
RECORDS = sorted(BOARD.glob("records/*/*.json"))
REFERENCES = sorted(BOARD.glob("reference/*.json"))


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def test_a_reference_is_of_its_tasks_present_protocol() -> None:
    for name in (path.stem for path in REFERENCES):
        reference = load_reference(load_task(name))
        assert reference is not None, f"{name}: the reference is of another protocol"
        assert reference.provisional == (len(reference.seeds) < PROVISIONAL_BELOW)


@pytest.mark.parametrize("path", RECORDS, ids=named)
def test_a_record_stands_under_its_own_digest(path: Path) -> None:
    """Reading it computes every score again and refuses what does not follow from the counts."""
    record = read_record(path)
    assert path.parent.name == record.task.name
    assert path.name == f"{record.method.name}--{record_digest(record)[:8]}.json"
    assert record.final
    assert record.task.digest == load_task(record.task.name).digest


@pytest.mark.parametrize("path", RECORDS, ids=named)
def test_a_record_is_scored_against_the_present_reference(path: Path) -> None:
    record = read_record(path)
    reference = load_reference(load_task(record.task.name))
    assert reference is not None
    assert record.reference == reference.frozen("test")
    paired = {cell.seed: cell for cell in reference.dense}
    for cell in record.cells:
        if cell.kind == "dense" and cell.schedule == 1 and cell.seed in paired:
            assert cell == paired[cell.seed]


@pytest.mark.parametrize("path", REFERENCES, ids=named)
def test_a_reference_follows_from_imps_record(path: Path) -> None:
    """The reference and a record of IMP's are one run: built again, it is the same to the byte.

    Of a record with controls on every second rung, as its suite has it, what both hold is the same.
    """
    reference = load_reference(load_task(path.stem))
    assert reference
    records = [
        read_record(found)
        for found in RECORDS
        if found.parent.name == path.stem and found.name.startswith("imp--")
    ]
    if whole := [record for record in records if record.controls == "all"]:
        built = [build(record, reference.noise, reference.noise_at) for record in whole]
        if reference.controls is None:  # made before references carried any
            built = [made.model_copy(update={"controls": None}) for made in built]
        assert reference in built
        return
    (record,) = records
    assert record.aggregates["loss"]["values"] == list(reference.values["test"].loss_imp)
    shared = [c for c in record.cells if c.kind in ("dense", "erk", "random") and c.schedule == 1]
    assert shared and all(cell in reference.cells for cell in shared)
