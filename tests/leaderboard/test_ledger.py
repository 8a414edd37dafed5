"""The ledger: what it allows, what breaks its chain, and what the board makes of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lthbench.errors import RecordError
from lthbench.io import paths
from lthbench.io.paths import canonical_json, digest
from lthbench.leaderboard.board import entries, ledger
from lthbench.leaderboard.board.ledger import NOTHING, Ledger, append, parse, read, text, write
from lthbench.leaderboard.validation import parallel
from lthbench.records.schema import read_record
from tests.rewritten import shipped_records, table_of, written
from tests.strategies import moderate
from tests.submitted import carried

A, B, C, D = (letter * 64 for letter in "abcd")
IMP = ("lenet300-mnist", "imp")
Json = dict[str, Any]


LOT = {"nonce": "0" * 64}


def told(*acts: Any) -> Ledger:
    """A ledger of acts: (act, entry, own keys), all of imp on one task."""
    found = Ledger()
    for act, entry, keys in acts:
        found = append(found, act, entry, *IMP, **keys)
    return found


def accepted(*digests: str) -> Ledger:
    return told(*(("accept", one, LOT) for one in digests))


# --- acts ------------------------------------------------------------------------------------


def test_an_empty_ledger(tmp_path: Path) -> None:
    assert read(tmp_path / "absent.jsonl") == parse(b"") == Ledger()
    assert (Ledger().head, Ledger().digests(), Ledger().of(A)) == (NOTHING, (), ())


def test_a_line_names_the_digest_of_the_one_before_it() -> None:
    found = accepted(A, B)
    raw = text(found)
    first, second = raw.splitlines(keepends=True)
    assert json.loads(first) == {
        "n": 1, "previous": NOTHING, "act": "accept", "entry": A,
        "task": "lenet300-mnist", "method": "imp", **LOT,
    }  # fmt: skip
    assert json.loads(second)["previous"] == digest(first)
    assert found.head == digest(second)
    assert found.digests() == (digest(first), digest(second))
    assert parse(raw) == found


def test_what_the_lines_come_to() -> None:
    found = accepted(A, B)
    beacon = found.head
    for act, entry, keys in (
        ("supersede", B, {"of": A}),
        ("level", B, {"level": 2, "beacon": beacon, "report": {"cells": []}}),
        ("level", B, {"level": 1, "beacon": "", "report": {}}),
        ("challenge", B, {"why": "not so", "by": {"record": C}}),
        ("retract", B, {"why": "a mistake of ours"}),
    ):
        found = append(found, act, entry, *IMP, **keys)
    assert found.entries[A].superseded_by == B
    assert (found.entries[B].level, found.entries[B].retracted) == (2, True)
    assert [line["act"] for line in found.of(A)] == ["accept", "supersede"]
    assert len(found.of(B)) == 6
    assert parse(text(found)) == found


BEACON = accepted(A).head
REFUSED: dict[str, tuple[Ledger, str, str, Json, str]] = {
    "twice": (accepted(A), "accept", A, LOT, "was accepted at line 1 already"),
    "of the unknown": (accepted(A), "retract", B, {"why": "x"}, "was never accepted"),
    "after the end": (
        told(("accept", A, LOT), ("retract", A, {"why": "x"})), "level", A,
        {"level": 1, "beacon": "", "report": {}}, "was retracted, and stays so"),
    "supersedes itself": (accepted(A), "supersede", A, {"of": A}, "not older than"),
    "supersedes the younger": (accepted(A, B), "supersede", A, {"of": B}, "not older than"),
    "a loop": (
        told(("accept", A, LOT), ("accept", B, LOT), ("supersede", B, {"of": A})),
        "supersede", A, {"of": B}, "not older than"),
    "supersedes the superseded": (
        told(("accept", A, LOT), ("accept", B, LOT), ("accept", C, LOT),
             ("supersede", B, {"of": A})),
        "supersede", C, {"of": A}, "was superseded already"),
    "supersedes the retracted": (
        told(("accept", A, LOT), ("accept", B, LOT), ("retract", A, {"why": "x"})),
        "supersede", B, {"of": A}, "was retracted already"),
    "supersedes the unknown": (accepted(A), "supersede", A, {"of": B}, "was never accepted"),
    "level 4": (accepted(A), "level", A, {"level": 4, "beacon": BEACON, "report": {}}, "level 4"),
    "level true": (
        accepted(A), "level", A, {"level": True, "beacon": BEACON, "report": {}}, "'True' is not"),
    "without a beacon": (
        accepted(A), "level", A, {"level": 2, "beacon": "", "report": {}}, "beacon none"),
    "a beacon of one's own": (
        accepted(A), "level", A, {"level": 2, "beacon": D, "report": {}}, "beacon dddddddd"),
    "the beacon of zeros": (
        accepted(A), "level", A, {"level": 2, "beacon": NOTHING, "report": {}}, "beacon 00000000"),
    "a beacon from before": (
        accepted(A, B), "level", B, {"level": 2, "beacon": BEACON, "report": {}}, "beacon"),
    "an unknown act": (accepted(A), "bless", A, {}, "'bless' is none of accept"),
    "a key too many": (accepted(A), "accept", B, {**LOT, "level": 3}, "'level': no key of accept"),
    "a key too few": (accepted(A), "retract", A, {}, "retract needs why"),
    "accepted without chance": (accepted(A), "accept", B, {}, "accept needs nonce"),
    "chance of two digits": (accepted(A), "accept", B, {"nonce": "07"}, "nonce: '07' is not"),
    "another's digest": (accepted(A), "accept", "xyz", LOT, "entry: 'xyz' is not what"),
    "a reason in two lines": (accepted(A), "retract", A, {"why": "a\nb"}, "why: 'a"),
    "a reason that turns round": (accepted(A), "retract", A, {"why": "a\u202eb"}, "why: 'a"),
    "a reason without end": (accepted(A), "retract", A, {"why": "x" * 401}, "why: 'xxx"),
    "a number that is none": (
        accepted(A), "level", A, {"level": 1, "beacon": "", "report": {"z": float("nan")}},
        "cannot be written"),
    "a report without end": (
        accepted(A), "level", A, {"level": 1, "beacon": "", "report": {"z": "x" * 2**18}},
        "longer than 256 kB"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_an_act_that_does_not_follow(name: str) -> None:
    found, act, entry, keys, words = REFUSED[name]
    with pytest.raises(RecordError, match="line") as caught:
        append(found, act, entry, *IMP, **keys)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_entry_is_of_one_task_and_method() -> None:
    for task, method in (("mlp-digits", "imp"), ("lenet300-mnist", "snip")):
        with pytest.raises(RecordError, match="is imp on lenet300-mnist"):
            append(accepted(A), "retract", A, task, method, why="x")
        later = append(accepted(A), "accept", B, task, method, **LOT)
        with pytest.raises(RecordError, match="of the same method and task"):
            append(later, "supersede", B, task, method, of=A)
    for task, method in (("<b>", "imp"), ("lenet300-mnist", "../imp"), ("x\n", "imp")):
        with pytest.raises(RecordError, match="is not what accept has there"):
            append(Ledger(), "accept", A, task, method, **LOT)


# --- the chain -------------------------------------------------------------------------------


def long() -> Ledger:
    found = accepted(A, B, C)
    found = append(found, "supersede", C, *IMP, of=A)
    found = append(found, "level", C, *IMP, level=2, beacon=found.head, report={"z": 1.5})
    return append(found, "retract", B, *IMP, why="a mistake")


LONG = text(long())
LINES = LONG.splitlines(keepends=True)


@settings(moderate, max_examples=60)
@given(st.integers(0, len(LONG) - 1), st.integers(1, 255))
def test_any_changed_byte_breaks_it(place: int, by: int) -> None:
    """Every line is held by the next one; the last by what it says, or by the head."""
    changed = bytearray(LONG)
    changed[place] ^= by
    try:
        found = parse(bytes(changed))
    except RecordError as error:
        assert "\n" not in str(error)
    else:
        assert place >= len(LONG) - len(LINES[-1])
        assert found.head != long().head


@settings(moderate, max_examples=40)
@given(st.permutations(range(len(LINES))))
def test_any_other_order_breaks_it(order: list[int]) -> None:
    if order != sorted(order):
        with pytest.raises(RecordError):
            parse(b"".join(LINES[n] for n in order))


@pytest.mark.parametrize("gone", range(len(LINES) - 1))
def test_a_line_taken_out_breaks_it(gone: int) -> None:
    with pytest.raises(RecordError, match=f"line {gone + 1}: follows"):
        parse(b"".join(LINES[:gone] + LINES[gone + 1 :]))


GARBAGE = (
    b"\n", b"x", b"{}\n", b"[]\n", b"null\n", b"\x00", b"\xff\xfe\n", LINES[-1], LINES[0],
    LINES[-1].rstrip(b"\n"), b"[" * 100_000 + b"\n", b'{"n":' + b"9" * 5000 + b"}\n",
    b'{"act":"accept","act":"accept"}\n', "\u2028\n".encode(), b'{"a":NaN}\n', b'"\\ud800"\n',
)  # fmt: skip


@pytest.mark.parametrize("more", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_at_its_end_is_refused(more: bytes) -> None:
    with pytest.raises(RecordError, match="line 7") as caught:
        parse(LONG + more)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("cut", [1, 2, 40, len(LINES[-1]) - 1])
def test_a_file_cut_short_within_a_line_is_refused(cut: int) -> None:
    with pytest.raises(RecordError, match="line 6: has no end"):
        parse(LONG[:-cut])


def test_lines_cut_off_at_the_end_change_the_head() -> None:
    """They leave a whole chain: who holds an older head, as a commit or a beacon, notices."""
    assert parse(b"".join(LINES[:-1])).head != long().head
    assert long().head not in parse(b"".join(LINES[:-1])).digests()


def test_a_chain_made_anew_from_some_line_changes_every_later_digest() -> None:
    rewritten = accepted(A, B, D)
    assert rewritten.digests()[:2] == long().digests()[:2]
    assert set(rewritten.digests()[2:]) & set(long().digests()) == set()


def test_what_is_no_file_of_lines(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="must be a file of lines"):
        read(tmp_path)
    huge = tmp_path / "huge.jsonl"
    with huge.open("wb") as file:
        file.truncate(ledger.LEDGER_LIMIT + 1)
    with pytest.raises(RecordError, match="larger than 128 MB"):
        read(huge)


def test_it_is_written_as_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    write(path, long())
    assert path.read_bytes() == LONG
    assert read(path) == long()


# --- entries ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, cache: Path) -> Path:
    """A leaderboard with the shipped references, two records of one method, and no ledger yet."""
    place = tmp_path / "leaderboard"
    shutil.copytree(carried()[0] / "_share" / "leaderboard" / "reference", place / "reference")
    table = table_of()
    first = written(place / "records", table)
    table["times"]["find_seconds"] = 1.0
    second = written(place / "records", table)
    written(place / "records", table_of("carried"))
    assert first != second
    return place


def lines_of(folder: Path) -> tuple[Ledger, list[entries.Entry]]:
    """A ledger that accepts every entry of the folder, and the entries."""
    board = entries.load(folder)
    found = board.ledger
    for entry in board.entries:
        task, name = entry.record.task.name, entry.record.method.name
        found = append(found, "accept", entry.digest, task, name, **LOT)
    return found, list(board.entries)


def test_a_record_without_a_line_is_listed(folder: Path) -> None:
    board = entries.load(folder)
    assert [(e.state, e.level, e.of, e.lines) for e in board.entries] == [
        ("listed", 0, None, ())
    ] * 3
    assert [e.record.task.name for e in board.entries] == ["mlp-digits"] * 2 + ["tiny-modadd"]
    assert set(board.references) == {path.stem for path in (folder / "reference").iterdir()}
    for entry in board.entries:
        assert entry.digest == digest((folder / entry.file).read_bytes())
        assert entry.id == f"{entry.record.method.name}--{entry.digest[:8]}"
        assert entry.record == read_record(folder / entry.file)


def test_what_the_ledger_says_of_an_entry(folder: Path) -> None:
    found, (first, second, other) = lines_of(folder)
    task, name = "mlp-digits", "imp"
    found = append(found, "supersede", second.digest, task, name, of=first.digest)
    level = {"level": 3, "beacon": found.head, "report": {}}
    found = append(found, "level", second.digest, task, name, **level)
    by = {"why": "look again", "by": {"record": D}}
    moved = (other.record.task.name, other.record.method.name)
    found = append(found, "challenge", other.digest, *moved, **by)
    found = append(found, "retract", other.digest, *moved, why="withdrawn")
    write(folder / "ledger.jsonl", found)
    a, b, c = entries.load(folder).entries
    assert (a.state, a.of, len(a.lines)) == ("superseded", second.id, 2)
    assert (b.state, b.of, b.level, len(b.lines)) == ("accepted", None, 3, 3)
    assert (c.state, [line["why"] for line in c.challenges]) == ("retracted", ["look again"])


def test_an_accepted_record_that_is_gone_is_missed(folder: Path) -> None:
    found, (first, *_) = lines_of(folder)
    write(folder / "ledger.jsonl", found)
    (folder / first.file).unlink()
    with pytest.raises(RecordError, match=f"line 1: imp {first.digest[:8]} was accepted, but"):
        entries.load(folder)


def test_a_record_under_another_name_is_no_entry(folder: Path) -> None:
    path = next((folder / "records" / "mlp-digits").iterdir())
    path.rename(path.with_name("imp--00000000.json"))
    with pytest.raises(RecordError, match=f"must be mlp-digits/{path.name}"):
        entries.load(folder)


def test_a_ledger_that_calls_a_record_something_else(folder: Path) -> None:
    first, *_ = entries.load(folder).entries
    write(
        folder / "ledger.jsonl",
        append(Ledger(), "accept", first.digest, "mlp-digits", "snip", **LOT),
    )
    with pytest.raises(RecordError, match=r"calls .* snip on mlp-digits, but it is imp"):
        entries.load(folder)


def test_entries_are_found_by_id_digits_and_path(folder: Path) -> None:
    board = entries.load(folder)
    for entry in board.entries:
        raw = entry.digest
        for name in (entry.id, raw[:8], raw[:12], raw, entry.file, str(folder / entry.file)):
            assert entries.find(board, name) is entry
    for name in ("imp", "imp--0000000", "deadbeef", "", "x\ny", "[" * 500, "imp--*"):
        with pytest.raises(RecordError, match="no entry") as caught:
            entries.find(board, name)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
    with pytest.raises(RecordError, match=f"did you mean {board.entries[0].id}"):
        entries.find(board, board.entries[0].id[:-1] + "x")
    first = board.entries[0]
    of_one = f"entries of {first.record.method.name}: .*{first.id} \\({first.record.task.name}\\)"
    with pytest.raises(RecordError, match=of_one):
        entries.find(board, first.record.method.name)


def test_aggregates_are_computed_again_once(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was right is remembered by digest and scorer; a new record alone is looked at."""
    looked: list[list[Path]] = []
    findings = parallel.findings
    monkeypatch.setattr(
        parallel, "findings", lambda files, what: looked.append(files) or findings(files, what)
    )
    first = entries.load(folder)
    assert entries.load(folder) == first
    table = table_of()
    table["times"]["find_seconds"] = 2.0
    new = written(folder / "records", table)
    entries.load(folder)
    assert [len(files) for files in looked] == [3, 0, 1] and looked[2] == [new]
    (memory,) = (cache / "board").iterdir()
    memory.write_bytes(b"\xff\x00 damaged")
    assert len(entries.load(folder).entries) == 4
    assert len(looked[3]) == 4
    memory.unlink()
    memory.mkdir()  # cannot be written: nothing is remembered, and nobody is troubled
    assert len(entries.load(folder).entries) == 4


def test_edited_aggregates_are_refused_whatever_is_remembered(folder: Path) -> None:
    entries.load(folder)
    table = table_of()
    table["aggregates"]["dense"]["mean"] += 0.001
    written(folder / "records", table)
    for _ in range(2):
        with pytest.raises(RecordError, match=r"aggregates\.dense\.mean does not follow"):
            entries.load(folder)


def test_the_shipped_board_is_whole(cache: Path) -> None:
    board = entries.load()
    assert len(board.entries) == len(shipped_records())
    assert canonical_json([e.file for e in board.entries]).count(b"records/") == len(board.entries)
    assert paths.shipped("leaderboard").joinpath("ledger.jsonl").read_bytes() == text(board.ledger)


def test_a_damaged_reference_is_named(folder: Path) -> None:
    path = next((folder / "reference").iterdir())
    path.write_bytes(b"{}")
    with pytest.raises(RecordError, match=f"{path.name}: not a reference") as caught:
        entries.load(folder)
    assert "\n" not in str(caught.value)
