"""Scores as values and as the tables of a record's file: the same in both directions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lthbench.errors import RecordError
from lthbench.io.paths import canonical_json, shipped
from lthbench.records.aggregate import aggregate
from lthbench.records.schema import Record, read_record
from lthbench.records.scores import parse, tabulate
from tests.golden_aggregates import cases
from tests.scoring import aggregates
from tests.synthetic import synthetic_record

SHIPPED = sorted(shipped("leaderboard").glob("records/*/*.json"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_published_records_scores_are_the_bytes_of_its_file(path: Path) -> None:
    record = read_record(path)
    written = canonical_json(record.aggregates)
    assert canonical_json(tabulate(record.scores)) == written
    assert canonical_json(tabulate(aggregate(record))) == written


def test_scores_of_every_kind_survive_their_tables() -> None:
    for name, table in cases():
        found = aggregates(table)
        assert tabulate(parse(found)) == found, name


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("dense", {"mean": "0.9", "low": None, "high": None, "n": 1, "values": [0.9]}),
        ("dense", {"mean": 0.9, "low": None, "high": None, "n": 1}),
        ("complete", 1),
        ("division", "best"),
        ("rungs", {}),
    ],
)
def test_what_is_no_score_is_refused_by_its_place(place: str, value: Any) -> None:
    record = synthetic_record()
    spoilt = record.model_copy(update={"aggregates": {**record.aggregates, place: value}})
    with pytest.raises(RecordError, match=rf"aggregates\.{place}"):
        _ = spoilt.scores


def test_a_changed_copy_has_its_own_scores() -> None:
    record: Record = synthetic_record()
    assert record.scores.complete
    table = tabulate(replace(record.scores, complete=False))
    assert not record.model_copy(update={"aggregates": table}).scores.complete
