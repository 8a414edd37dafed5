"""Scores of plain tables, as the files of records hold them, whole or in part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lthbench.records import runs
from lthbench.records.aggregate import aggregate
from lthbench.records.schema import (
    Carried,
    Cell,
    Frozen,
    Record,
    SearchEntry,
    TaskEntry,
    TransferEntry,
)
from lthbench.records.scores import tabulate

Json = Mapping[str, Any]


def as_record(table: Json) -> Record:
    """A record of what a table has, unchecked: at least what its scores read."""
    moved, frozen = table.get("transfer"), table.get("reference")
    task = {**table["task"], "ladder": tuple(table["task"].get("ladder", ()))}
    parts = {
        "task": TaskEntry.model_construct(**task),
        "cells": tuple(map(as_run, table.get("cells", ()))),
        "searches": tuple(SearchEntry.model_construct(**s) for s in table.get("searches", ())),
        "reference": frozen and Frozen.model_construct(**frozen),
        "transfer": moved
        and TransferEntry.model_construct(**{**moved, "cells": tuple(map(as_run, moved["cells"]))}),
    }
    return Record.model_construct(**{**table, **parts})


def as_run(table: Json) -> Cell | Carried:
    kind = Carried if "depth" in table else Cell
    return kind.model_construct(**{"kind": "ticket", **table})


def aggregates(table: Json) -> dict[str, Any]:
    """The tables of a record's scores."""
    return tabulate(aggregate(as_record(table)))


def score_of(table: Json, run: Json, part: str | None = None) -> float:
    return runs.score_of(as_record(table), as_run(run), part)
