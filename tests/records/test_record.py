"""Records: what is written is read, and nothing else is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lthbench.errors import RecordError
from lthbench.evaluation.cells import kept_counts
from lthbench.io.paths import canonical_json
from lthbench.protocol.constants import CONTROLS
from lthbench.records import schema as records
from lthbench.records.schema import (
    Record,
    build,
    comparable,
    file_bytes,
    read_record,
    read_records,
    record_digest,
    write_record,
)
from lthbench.tools.rescore import rescored
from tests.strategies import moderate
from tests.synthetic import ACCURACY, AREA, as_file, synthetic_record

LIMIT = 300_000  # bytes of a record of ten seeds
# Six rungs, fifty evaluations.
TRANSFORMER = {"ladder": [0.8**n for n in (1, 2, 3, 4, 5, 6)], "steps": 1500, "every": 30}
Json = dict[str, Any]
Place = tuple[str | int, ...]


@st.composite
def drawn_records(draw: st.DrawFn) -> Record:
    """Records of both kinds, with and without a reference, whole and failed."""
    kind = draw(st.sampled_from(["accuracy", "area"]))
    whole = ACCURACY if kind == "accuracy" else AREA
    final, density = draw(st.booleans()), draw(st.sampled_from(whole["ladder"]))
    status = draw(st.sampled_from(["diverged", "failed", "missing"]))
    place = draw(st.sampled_from(["ticket", "shuffled", "dense"])), density, 0 if final else 1000
    return synthetic_record(
        draw(st.integers(0, 99)),
        kind,  # type: ignore[arg-type]
        draw(st.integers(1, 4)),
        final=final,
        reference=draw(st.booleans()),
        controls=draw(st.sampled_from(["all", "alternate", "one rung"])),
        division=draw(st.sampled_from(["init", "rewind", "open", "reference"])),
        options=draw(st.dictionaries(st.text(max_size=5), st.booleans() | st.text(max_size=5))),
        bad={place: (status, "é, \"quoted\", no number")} if draw(st.booleans()) else None,
    )  # fmt: skip


@settings(moderate, max_examples=15)
@given(record=drawn_records())
def test_what_is_written_is_read(record: Record, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("record") / "record.json"
    write_record(path, record)
    again = read_record(path)
    assert again == record
    assert canonical_json(as_file(again.model_dump(mode="json"))) == path.read_bytes()
    assert (comparable(again), record_digest(again)) == (comparable(record), record_digest(record))


def test_environment_and_times_are_not_compared() -> None:
    table = synthetic_record().model_dump(mode="json")
    other = {**table, "environment": {"device": "another"}, "times": {"find_seconds": 1.0}}
    for name in ("aggregates", "schema_version", "scorer"):
        table.pop(name), other.pop(name)
    assert comparable(build(table)) == comparable(build(other))
    assert record_digest(build(table)) != record_digest(build(other))


# --- edited by hand --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole() -> Json:
    return synthetic_record().model_dump(mode="json")


def refused(folder: Path, table: Any) -> str:
    """The one line that a file with this content is refused with."""
    path = folder / "record.json"
    path.write_bytes(table if isinstance(table, bytes) else json.dumps(table).encode())
    with pytest.raises(RecordError) as caught:
        read_record(path)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said.removeprefix(f"{path}: ")


def edited(table: Json, place: Place, value: Any) -> Json:
    """A copy with one value in another's place."""
    copy: Json = json.loads(json.dumps(table))
    inner: Any = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return copy


def numbers(tree: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every leaf of a tree that is a number or a truth, with its place."""
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from numbers(value, (*place, key))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from numbers(value, (*place, number))
    elif isinstance(tree, (bool, int, float)):
        yield place, tree


def spelt(place: Place) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)[1:]


AGGREGATES = list(
    numbers(synthetic_record().model_dump(mode="json")["aggregates"], ("aggregates",))
)


@settings(moderate, max_examples=25)
@given(chosen=st.sampled_from(AGGREGATES), by=st.sampled_from([1e-4, -1e-4, 1.0]))
def test_an_edited_aggregate_is_named(
    chosen: tuple[Place, Any], by: float, whole: Json, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every one of them, by as little as a hundredth of a point."""
    place, value = chosen
    other = (
        not value if isinstance(value, bool) else value + (by if isinstance(value, float) else 1)
    )
    said = refused(tmp_path_factory.mktemp("edited"), edited(whole, place, other))
    assert said.startswith(f"{spelt(place)} does not follow from the cells")


@pytest.mark.parametrize("edit", ["removed", "added", "emptied"])
def test_an_aggregate_that_is_not_there_is_named(edit: str, whole: Json, tmp_path: Path) -> None:
    aggregates = dict(whole["aggregates"])
    if edit == "removed":
        aggregates.pop("retention")
    aggregates = {} if edit == "emptied" else aggregates | ({"rank": 1} if edit == "added" else {})
    said = refused(tmp_path, {**whole, "aggregates": aggregates})
    names = {"removed": "retention", "added": "rank", "emptied": "above_erk"}
    assert said.startswith(f"aggregates.{names[edit]} does not follow from the cells")


def test_an_edited_division_is_noticed(whole: Json, tmp_path: Path) -> None:
    """The board that an entry stands on follows from where its weights come from."""
    number = next(n for n, cell in enumerate(whole["cells"]) if cell["kind"] == "ticket")
    said = refused(tmp_path, edited(whole, ("cells", number, "origin"), "final"))
    assert "division does not follow from its origin" in said


def test_an_edited_count_is_noticed(whole: Json, tmp_path: Path) -> None:
    """A count is what everything follows from, so everything has to be edited with it."""
    number = next(n for n, cell in enumerate(whole["cells"]) if cell["kind"] == "ticket")
    last = whole["cells"][number]["correct"]["test"][-1]
    table = edited(whole, ("cells", number, "correct", "test", -1), last + 1)
    assert "does not follow from the cells" in refused(tmp_path, table)


ABSURD = json.loads("9" * 400)
BAD: dict[str, tuple[Place, Any, str]] = {
    "more correct than there are": (
        ("cells", 3, "correct", "test", 0), 10_001, "counts exceed the set test"),
    "fewer than none": (("cells", 3, "correct", "test", 0), -1, "counts exceed the set test"),
    "half an answer": (("cells", 3, "correct", "test", 0), 0.5, "cells.3.correct.test.0: "),
    "a set without a size": (("cells", 3, "correct", "other"), [1], "exceed the set other"),
    "another seed's cell": (("cells", 3, "seed"), 99, "none of the record's"),
    "another density": (("cells", 3, "requested"), 7, "requested is not density * N"),
    "more kept than there are": (("cells", 3, "kept"), 266_201, "kept or effective is out of"),
    "more effective than kept": (("cells", 5, "effective"), 266_200, "kept or effective is out"),
    "more nodes than weights": (
        ("cells", 6, "effective_nodes"), 136_295, "more effective nodes than weights"),
    "a negative distance": (("cells", 3, "distance"), -1.0, "cells.3.distance: "),
    "operations in parts": (("cells", 3, "flops_inference"), 0.5, "cells.3.flops_inference: "),
    "density of nothing": (("cells", 3, "density"), 0.0, "cells.3.density: "),
    "unknown key": (("colour",), "red", "colour: Extra inputs are not permitted"),
    "unknown key within": (("task", "momentun"), 1, "task.momentun: Extra inputs"),
    "unknown kind": (("cells", 0, "kind"), "magic", "cells.0.kind: "),
    "unknown status": (("cells", 0, "status"), "great", "cells.0.status: "),
    "NaN": (("task", "chance"), float("nan"), "task.chance: Input should be a finite number"),
    "infinite": (("reference", "dense", 0), float("inf"), "reference.dense.0: Input should be a"),
    "a number as text": (("searches", 0, "cost"), "23", "searches.0.cost: "),
    "truth as a number": (("final",), 1, "final: "),
    "a list as a table": (("sizes",), [], "sizes: "),
    "a digest in capitals": (("method", "digest"), "A" * 64, "method.digest: "),
    "a name with a path": (("method", "name"), "../imp", "method.name: "),
    "an older schema": (("schema_version",), 0, "schema_version: "),
    "nothing": (("cells",), None, "cells: "),
    "too large to compute": (("task", "weights"), ABSURD, "task.weights: "),
    "too large a step": (("task", "steps"), ABSURD, "task.steps: "),
    "no grid": (("task", "every"), 0, "task.every: Input should be greater than 0"),
    "no examples": (("sizes", "0", "test"), 0, "sizes.0.test: "),
    "seeds twice": (("seeds", 1), 0, "a seed is there twice"),
    "a gift": (("searches", 0, "cost"), -1.0, "searches.0.cost: "),
    "a rung above another": (("task", "ladder"), [0.1, 0.5], ""),
    "a long reason": (("cells", 0, "reason"), "x" * 401, "cells.0.reason: "),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_values_are_refused_by_place(name: str, whole: Json, tmp_path: Path) -> None:
    place, value, words = BAD[name]
    assert words in refused(tmp_path, edited(whole, place, value))


def test_a_cell_twice_is_refused(whole: Json, tmp_path: Path) -> None:
    table = {**whole, "cells": [*whole["cells"], whole["cells"][3]]}
    assert "a cell is there twice" in refused(tmp_path, table)


@pytest.mark.parametrize("key", sorted(synthetic_record().model_dump()))
def test_every_key_is_needed(key: str, whole: Json, tmp_path: Path) -> None:
    table = {name: value for name, value in whole.items() if name != key}
    assert refused(tmp_path, table).startswith(f"{key}: Field required")


def test_what_is_no_record(tmp_path: Path) -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    tables = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    for content in (b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a": NaN}', deep, tables):
        refused(tmp_path, content)
    with pytest.raises(RecordError, match="run `lthbench evaluate` first"):
        read_record(tmp_path / "absent.json")
    with pytest.raises(RecordError, match="Is a directory"):
        read_record(tmp_path)


def test_nesting_in_an_open_place_is_refused(whole: Json, tmp_path: Path) -> None:
    """Aggregates are open to the schema; what they hold is compared all the same."""
    for depth in (50, 500):
        deep: Any = 1
        for _ in range(depth):
            deep = {"a": deep}
        refused(tmp_path, {**whole, "aggregates": deep})


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "record.json"
    with path.open("wb") as file:
        file.truncate(records.SIZE_LIMIT + 1)
    monkeypatch.setattr(Path, "read_bytes", lambda self: pytest.fail("it was read"))
    with pytest.raises(RecordError, match="larger than 2 MB"):
        read_record(path)


# --- size and cost ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "task"),
    [("accuracy", {}), ("area", {}), ("area", TRANSFORMER)],
    ids=["lenet300-mnist", "mlp-modadd59", "transformer-modadd59"],
)
def test_a_record_of_ten_seeds_is_small(kind: Any, task: Json) -> None:
    """With what `score` keeps of the curves, all controls on the longest ladders of suite lite."""
    table = synthetic_record(kind=kind, seeds=10, task=task).model_dump(mode="json")
    for cell in table["cells"]:
        cell["layers"] = {f"blocks.0.{n}.weight": 12345 for n in range(8)} if cell["layers"] else {}
        cell["correct"] = kept_counts(cell["correct"], cell["kind"], cell["schedule"])
    for name in ("aggregates", "schema_version", "scorer"):
        table.pop(name)
    record = build(table)
    kinds = {cell.kind for cell in record.cells}
    assert kinds == {"dense", "ticket", *CONTROLS}
    assert len(file_bytes(record)) < LIMIT


def test_validating_needs_no_torch(tmp_path: Path, whole: Json) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(canonical_json(whole))
    text = (
        "import sys, pathlib\n"
        "from lthbench.records.schema import read_record\n"
        "read_record(pathlib.Path(sys.argv[1]))\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", text, str(path)], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "numpy" in loaded
    assert not loaded & {"torch", "sklearn", "datasets", "pandas", "rich", "typer"}


def test_a_records_file_is_read_as_a_folder_of_one(tmp_path: Path) -> None:
    record = synthetic_record(3)
    path = tmp_path / "imp--01234567.json"
    write_record(path, record)
    assert read_records(path) == [record]
    with pytest.raises(RecordError, match="no records here"):
        read_records(tmp_path)


def test_a_record_of_the_schema_before_is_one_of_this_with_nothing_measured(
    tmp_path: Path,
) -> None:
    """All that was known stays, and what was not measured is null."""
    new = ("flops_inference", "flops_training", "distance", "effective_nodes")
    table = synthetic_record(3).model_dump(mode="json")
    table["cells"] = [
        {name: value for name, value in cell.items() if name not in new}
        for cell in table["cells"]
        if cell["kind"] != "reinit-signs"
    ]
    for cell in table["cells"]:
        del cell["correct"]["train"]
    for sizes in table["sizes"].values():
        del sizes["train"]
    old = tmp_path / "imp--01234567.json"
    old.write_bytes(canonical_json({**table, "schema_version": 1, "scorer": 5}))
    path = rescored(old)
    again = read_record(path).model_dump(mode="json")
    assert again["schema_version"] == 2
    for before, now in zip(table["cells"], again["cells"], strict=True):
        assert {name: now[name] for name in before} == before
        assert [now[name] for name in new] == [None] * 4
    assert {row["distance"] for row in again["aggregates"]["measures"]} == {None}
    assert rescored(path) == path


def test_a_record_is_scored_again_from_its_counts(tmp_path: Path) -> None:
    record = synthetic_record(3)
    table = record.model_dump(mode="json") | {"scorer": 1, "aggregates": {}}
    old = tmp_path / f"{record.method.name}--01234567.json"
    old.write_bytes(canonical_json(table))
    with pytest.raises(RecordError, match="scored by version 1"):
        read_record(old)
    new = rescored(old)
    assert read_record(new) == record
    assert new.name == f"{record.method.name}--{record_digest(record)[:8]}.json"
    assert not old.exists()
