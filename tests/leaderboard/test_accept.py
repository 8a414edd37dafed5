"""`lthbench leaderboard accept`: the only writer of the ledger, on main, all or nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from lthbench.errors import LthbenchError, RecordError, ResourceError, UsageError
from lthbench.io import paths
from lthbench.io.paths import canonical_json, digest
from lthbench.leaderboard.board import accept as accepting
from lthbench.leaderboard.board import criteria, entries, ledger, reproduction, sampling
from lthbench.leaderboard.board.accept import accept
from lthbench.leaderboard.board.ledger import Ledger
from lthbench.protocol.task import load_task
from lthbench.records.reference import load_reference
from lthbench.records.schema import Record, parse_record, read_record, record_digest
from tests.rewritten import Edit, changed, table_of, written
from tests.submitted import carried, furnish

ROOT = Path(__file__).resolve().parents[2]
BUNDLE = {"sha256": "b" * 64, "size": 1000, "urls": []}
Json = dict[str, Any]


@pytest.fixture
def board(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty leaderboard with the shipped references, that this process takes for its own."""
    references = sorted((carried()[0] / "_share" / "leaderboard" / "reference").glob("*.json"))
    home = furnish(tmp_path / "home")
    folder = home / "_share" / "leaderboard"
    for path in references:
        (folder / "reference" / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(paths, "PACKAGE", home)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    git(folder, "init", "--quiet", "--initial-branch=main")
    commit(folder)
    return folder


def git(board: Path, *arguments: str) -> None:
    command = ["git", "-C", str(board), "-c", "user.name=A", "-c", "user.email=a@example.org"]
    subprocess.run([*command, *arguments], check=True, capture_output=True)


def commit(board: Path) -> None:
    git(board, "add", "--all")
    git(board, "commit", "--quiet", "--message", "x")


def put(board: Path, edit: Edit = lambda table: None, kind: str = "carried") -> Path:
    """A record on a branch that was merged."""

    def named(table: Json) -> None:
        table["bundle"] = dict(BUNDLE)
        edit(table)

    return written(board / "records", changed(table_of(kind), named))


def later(table: Json) -> None:
    table["times"]["find_seconds"] = 1.0


def called(name: str) -> Edit:
    """Another method's."""
    other = {"name": name, "described": {}, "digest": digest(name.encode())}
    return lambda table: table["method"].update(other)


def entry_of(path: Path) -> str:
    return digest(path.read_bytes())


def name_of(path: Path) -> str:
    return path.stem


def ledger_of(board: Path) -> ledger.Ledger:
    return ledger.read(board / "ledger.jsonl")


def report(folder: Path, board: Path, path: Path, **changes: Any) -> Path:
    """What `lthbench verify --report` writes of an entry, beside the keys that are named."""
    told = {
        "entry": entry_of(path),
        "task": path.parent.name,
        "level": 2,
        "beacon": ledger_of(board).head,
        "ok": True,
        "bundle": BUNDLE["sha256"],
        "cells": [],
        "environment": {"torch": "2.11.0"},
        "found": [[2, True, "8 cells trained again"]],
        "lthbench": "0.1.0",
        **changes,
    }
    if "cells" not in changes:
        told["cells"] = again(path, told)
    file = folder / f"report{digest(canonical_json(told))[:8]}.json"
    file.write_bytes(canonical_json({"reports": [told]}))
    return file


def again(path: Path, told: Json, count: int = 0) -> list[Json]:
    """Rows of the cells that a report's bundle and beacon draw, come out as claimed."""
    record = parse_record(path.read_bytes(), path)
    task = load_task(record.task.name)
    reference = load_reference(task)
    some = sampling.candidates(record, reference)
    cells = sampling.draw(some, str(told["bundle"]), told["beacon"], count)
    known = criteria.floors(task, reference)
    judged = criteria.judge(record, [(cell, cell) for cell in cells], known)
    return [asdict(row) for row in judged.cells]


# --- records ---------------------------------------------------------------------------------


def test_a_record_is_accepted(board: Path) -> None:
    path = put(board)
    (said,) = accept([path])
    found = ledger_of(board)
    assert said.startswith(f"line 1: {name_of(path)} on tiny-modadd: accepted; head {found.head}")
    assert [line["act"] for line in found.lines] == ["accept"]
    assert found.lines[0]["entry"] == entry_of(path) == record_digest(read_record(path))
    (entry,) = entries.load(board).entries
    assert (entry.state, entry.level) == ("accepted", 0)


def test_several_at_once_are_a_line_each(board: Path) -> None:
    first = put(board)
    other = put(board, called("other"), "compressed")
    assert len(accept([first, other])) == 2
    assert len(ledger_of(board).lines) == 2


def test_one_that_is_not_valid_leaves_the_ledger_as_it_was(board: Path) -> None:
    good = put(board)
    bad = put(board, lambda table: table["environment"].update(processor="a\u202eb"))
    before = (board / "ledger.jsonl").read_bytes()
    with pytest.raises(RecordError, match=r"U\+202E"):
        accept([good, bad])
    assert (board / "ledger.jsonl").read_bytes() == before


def test_none_is_accepted_twice(board: Path) -> None:
    path = put(board)
    accept([path])
    with pytest.raises(RecordError, match="was accepted already, at line 1"):
        accept([path])
    with pytest.raises(RecordError, match="was accepted already"):
        accept([path], supersedes=name_of(path))
    assert len(ledger_of(board).lines) == 1


def test_a_second_record_of_a_method_must_take_the_firsts_place(board: Path) -> None:
    first, second = put(board), put(board, later)
    accept([first])
    with pytest.raises(RecordError, match=f"add --supersedes {name_of(first)} to take its place"):
        accept([second])
    with pytest.raises(RecordError, match="add --supersedes"):
        accept([second, first])  # nor both in one go
    said = accept([second], supersedes=name_of(first))
    assert len(said) == 2 and f"in the place of {entry_of(first)[:8]}" in said[1]
    by_file = {entry.file: entry for entry in entries.load(board).entries}
    old, new = (by_file[path.relative_to(board).as_posix()] for path in (first, second))
    assert (old.state, old.of, new.state) == ("superseded", new.id, "accepted")
    with pytest.raises(RecordError, match="was accepted already"):  # a loop cannot begin
        accept([first], supersedes=name_of(second))


def test_what_cannot_be_superseded(board: Path, tmp_path: Path) -> None:
    first, second, third = put(board), put(board, later), put(board, lambda t: t["times"].clear())
    accept([first])
    accept([second], supersedes=entry_of(first)[:8])
    with pytest.raises(RecordError, match="add --supersedes"):
        accept([third], supersedes=str(first))  # its place is taken
    with pytest.raises(RecordError, match="no accepted entry"):
        accept([third], supersedes="imp--00000000")
    assert len(ledger_of(board).lines) == 3


def test_a_record_elsewhere_is_not_taken(board: Path, tmp_path: Path) -> None:
    path = written(tmp_path, table_of("carried"))
    with pytest.raises(RecordError, match="merge its pull request first"):
        accept([path])
    link = board / "records" / "tiny-modadd" / path.name
    link.parent.mkdir()
    link.symlink_to(path)
    with pytest.raises(RecordError, match="merge its pull request first"):
        accept([link])


def test_a_task_of_no_ranked_suite_is_never_on_the_board(board: Path) -> None:
    path = put(board, kind="small")
    with pytest.raises(RecordError, match="mlp-digits is in no ranked suite"):
        accept([path])


# --- levels ----------------------------------------------------------------------------------


def test_a_report_raises_the_level(board: Path, tmp_path: Path) -> None:
    path = put(board)
    accept([path])
    file = report(tmp_path, board, path)
    (said,) = accept([], verified=[file])
    assert "level 2" in said
    (entry,) = entries.load(board).entries
    assert entry.level == 2
    assert entry.lines[-1]["report"] == json.loads(file.read_bytes())["reports"][0]
    first = report(tmp_path, board, path, level=1, beacon="")
    accept([], verified=[first])
    assert entries.load(board).entries[0].level == 2
    with pytest.raises(RecordError, match="is in the ledger already"):
        accept([], verified=[file])


def test_a_report_that_does_not_hold_is_a_challenge(board: Path, tmp_path: Path) -> None:
    path = put(board)
    accept([path])
    file = report(tmp_path, board, path, ok=False)
    with pytest.raises(RecordError, match=f"attach it by --challenge {name_of(path)}"):
        accept([], verified=[file])
    accept([], challenge=name_of(path), verified=[file], why="8 cells do not agree")
    (entry,) = entries.load(board).entries
    assert entry.level == 0
    assert [line["why"] for line in entry.challenges] == ["8 cells do not agree"]
    assert entry.challenges[0]["by"]["report"]["ok"] is False


REPORTS: dict[str, tuple[Json, str]] = {
    "another entry": ({"entry": "0" * 64}, "is no accepted entry"),
    "another task": ({"task": "lenet300-mnist"}, "is of tiny-modadd"),
    "another bundle": ({"bundle": "c" * 64}, "verify the bundle that the record names"),
    "no bundle": ({"bundle": None}, "verify the bundle that the record names"),
    "a beacon of one's own": ({"beacon": "d" * 64}, "is the digest of no line"),
    "no beacon": ({"beacon": ""}, "is the digest of no line"),
    "zeros": ({"beacon": "0" * 64}, "is the digest of no line"),
    "level 0": ({"level": 0}, "level 0 is what every accepted record has"),
    "level 9": ({"level": 9}, "level of a report is missing or none"),
    "level 2.0": ({"level": 2.0}, "level of a report is missing or none"),
    "level true": ({"level": True}, "level of a report is missing or none"),
    "ok as text": ({"ok": "yes"}, "ok of a report is missing or none"),
    "an entry as list": ({"entry": []}, "entry of a report is missing or none"),
    "no cells": ({"cells": None}, "cells of a report is missing or none"),
    "without end": ({"found": "x" * 2**18}, "longer than 256 kB"),
}


@pytest.mark.parametrize("name", REPORTS)
def test_a_report_that_does_not_belong(name: str, board: Path, tmp_path: Path) -> None:
    changes, words = REPORTS[name]
    path = put(board)
    accept([path])
    before = (board / "ledger.jsonl").read_bytes()
    with pytest.raises(RecordError) as caught:
        accept([], verified=[report(tmp_path, board, path, **changes)])
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert (board / "ledger.jsonl").read_bytes() == before


def counted(value: float) -> Json:
    """The same count at every evaluation that the tiny task's records keep."""
    return {"held_out": [value] * 12, "test": [value] * 12, "train": [value] * 12}


def edited(place: int, **changes: Any) -> Callable[[list[Json]], Any]:
    return lambda cells: cells[place].update(changes)


UNFOUNDED: dict[str, tuple[Callable[[list[Json]], Any], str]] = {
    "no cell": (lambda cells: cells.clear(), "not those that bundle and beacon draw"),
    "fewer than were drawn": (lambda cells: cells.pop(), "not those that bundle and beacon draw"),
    "one that was not drawn": (edited(0, seed=7), "not those that bundle and beacon draw"),
    "one twice": (lambda cells: cells.append(cells[0]), "not those that bundle and beacon draw"),
    "another set": (edited(0, retrained={"test": [1]}), "no counts of its sets"),
    "no number": (edited(0, retrained=counted(0.5)), "no counts of its sets"),
    "more than there are": (edited(0, retrained=counted(10**6)), "no counts of its sets"),
    "text": (edited(0, retrained="1"), "cannot be read (AttributeError)"),
    "half a row": (lambda cells: cells[0].pop("retrained"), "cannot be read (KeyError)"),
    "no row": (lambda cells: cells.__setitem__(0, ["ticket"]), "cannot be read (TypeError)"),
    "a control that diverged": (edited(1, status="diverged"), "its own cells are refused"),
    "nothing was learned": (
        lambda cells: [row.update(retrained=counted(0)) for row in cells],
        "its own cells are refused",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNFOUNDED)
def test_a_report_is_not_believed_for_its_own_verdict(
    name: str, board: Path, tmp_path: Path
) -> None:
    edit, words = UNFOUNDED[name]
    path = put(board)
    accept([path])
    accepted = (board / "ledger.jsonl").read_bytes()
    sound = json.loads(report(tmp_path, board, path).read_bytes())["reports"][0]
    sound["cells"] = again(path, sound, 40)  # all tickets
    assert accept([], verified=[report(tmp_path, board, path, cells=list(sound["cells"]))])
    (board / "ledger.jsonl").write_bytes(accepted)
    edit(sound["cells"])
    with pytest.raises(RecordError) as caught:
        accept([], verified=[report(tmp_path, board, path, cells=sound["cells"])])
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert entries.load(board).entries[0].level == 0


def test_level_three_needs_scores_of_the_seeds_that_are_drawn(board: Path, tmp_path: Path) -> None:
    path = put(board)
    accept([path])
    record = parse_record(path.read_bytes(), path)
    claimed = reproduction.score_of(record, record)
    assert claimed
    lot = BUNDLE["sha256"], ledger_of(board).head
    seeds = list(reproduction.fresh_seeds(*lot))
    repeated = [
        asdict(reproduction.Repeated(s, record.searches[s].cost, True, 1.0, 0.1, claimed[0][s]))
        for s in reproduction.repeated_seeds(record.seeds, *lot)
    ]
    sound = {
        "published": claimed[0], "fresh": claimed[0][:3], "seeds": seeds, "repeated": repeated
    }  # fmt: skip
    for changes, words in (
        ({"repeated": []}, "its seeds are not those"),
        ({"repeated": [{**row, "cost": 99.0} for row in repeated]}, "dense trainings, not"),
        ({"seeds": [1, 2, 3]}, "its seeds are not those"),
        ({"published": [1.0] * len(claimed[0])}, "not the record's"),
        ({"fresh": claimed[0][:2]}, "no score of 3 fresh seeds"),
        ({"fresh": [-9.0, -9.1, -9.0]}, "its own scores are refused"),
    ):
        told = report(tmp_path, board, path, level=3, reproduced={**sound, **changes})
        with pytest.raises(RecordError, match=words):
            accept([], verified=[told])
    with pytest.raises(RecordError, match="cannot be read"):
        accept([], verified=[report(tmp_path, board, path, level=3)])
    assert accept([], verified=[report(tmp_path, board, path, level=3, reproduced=sound)])


def test_nobody_can_foresee_which_cells_an_entry_gets(board: Path, tmp_path: Path) -> None:
    """Else who submits could try many records until the draw is a lucky one."""
    path = put(board)
    raw = path.read_bytes()
    heads = set()
    for _ in range(2):
        accept([path])
        heads.add(ledger_of(board).head)
        (board / "ledger.jsonl").unlink()
        assert path.read_bytes() == raw
    assert len(heads) == 2


def test_a_beacon_from_before_the_acceptance_is_refused(board: Path, tmp_path: Path) -> None:
    """Who knew the beacon could have made a bundle whose drawn cells are right."""
    accept([put(board, called("first"))])
    known = ledger_of(board).head
    path = put(board)
    accept([path])
    with pytest.raises(RecordError, match="is the digest of no line from the acceptance of"):
        accept([], verified=[report(tmp_path, board, path, beacon=known)])
    assert accept([], verified=[report(tmp_path, board, path, beacon=ledger_of(board).head)])


def test_a_report_of_no_record_with_a_bundle(board: Path, tmp_path: Path) -> None:
    """Without a bundle an entry is level 0."""
    path = put(board, lambda table: table.pop("bundle"))
    accept([path])
    with pytest.raises(RecordError, match="verify the bundle that the record names"):
        accept([], verified=[report(tmp_path, board, path, bundle=None)])


BAD_FILES = (
    b"", b"{}", b"[]", b"null", b"{", b'{"reports":[]}', b'{"reports":[1]}', b'{"reports":{}}',
    b'{"reports":[{}]}', b"\xff\xfe", b"[" * 100_000, b'{"reports":[' + b"9" * 5000 + b"]}",
    b'{"reports":[],"reports":[]}', b'{"entry":NaN}',
)  # fmt: skip


@pytest.mark.parametrize("raw", BAD_FILES, ids=range(len(BAD_FILES)))
def test_what_is_no_report(raw: bytes, board: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_bytes(raw)
    with pytest.raises(RecordError, match=r"lthbench verify ENTRY --level N --report FILE"):
        accept([], verified=[file])
    with pytest.raises(RecordError, match="No such file"):
        accept([], verified=[tmp_path / "absent"])


# --- retractions and challenges --------------------------------------------------------------


def test_an_entry_is_retracted_for_a_reason(board: Path, tmp_path: Path) -> None:
    path = put(board)
    accept([path])
    accept([], retract=entry_of(path)[:8], why="its search read the test split")
    (entry,) = entries.load(board).entries
    assert (entry.state, entry.lines[-1]["why"]) == ("retracted", "its search read the test split")
    file = report(tmp_path, board, path)
    with pytest.raises(RecordError, match="was retracted, and stays so"):
        accept([], retract=name_of(path), why="x")
    with pytest.raises(RecordError, match="was retracted, and stays so"):
        accept([], verified=[file])
    accept([put(board, later)])  # and another may come


def test_a_record_may_challenge(board: Path) -> None:
    path, other = put(board), put(board, later)
    accept([path])
    accept([other], challenge=str(path), why="ours is lower")
    entry = entries.find(entries.load(board), name_of(path))
    method = entry.record.method.name
    assert entry.challenges[0]["by"] == {"record": entry_of(other), "method": method}
    with pytest.raises(RecordError, match="is not another record of"):
        accept([path], challenge=name_of(path), why="x")
    small = put(board, kind="small")
    with pytest.raises(RecordError, match="is not another record of"):
        accept([small], challenge=name_of(path), why="x")


def test_a_challenge_by_a_report_that_agrees_or_is_of_another(board: Path, tmp_path: Path) -> None:
    path = put(board)
    accept([path])
    for changes, words in (
        ({}, "says that"),
        ({"entry": "0" * 64, "ok": False}, "holds no report of"),
        ({"ok": False, "beacon": "e" * 64}, "is the digest of no line"),
    ):
        file = report(tmp_path, board, path, **changes)
        with pytest.raises(RecordError, match=words):
            accept([], challenge=name_of(path), verified=[file], why="x")


# --- the command line, the branch, the file --------------------------------------------------

USAGE: tuple[Json, ...] = (
    {},
    {"why": "x"},
    {"retract": "a"},
    {"challenge": "a"},
    {"challenge": "a", "why": "x"},
    {"challenge": "a", "why": "x", "retract": "b", "paths": ["p"]},
    {"challenge": "a", "why": "x", "paths": ["p", "q"]},
    {"supersedes": "a"},
    {"supersedes": "a", "paths": ["p", "q"]},
    {"paths": ["p"], "why": "x"},
)


@pytest.mark.parametrize("given", USAGE, ids=str)
def test_arguments_that_cannot_be_meant(given: Json, board: Path) -> None:
    given = dict(given)
    with pytest.raises(UsageError):
        accept([Path(name) for name in given.pop("paths", [])], **given)


@pytest.mark.parametrize("why", ["a\nb", "a\u202eb", "x" * 401, "\x1b[31m"])
def test_a_reason_is_one_line_that_is_seen(why: str, board: Path) -> None:
    path = put(board)
    accept([path])
    with pytest.raises(UsageError, match="one line of at most 400"):
        accept([], retract=name_of(path), why=why)


def test_on_main_alone(board: Path) -> None:
    path = put(board)
    git(board, "switch", "--quiet", "--create", "submission")
    with pytest.raises(UsageError, match="on submission: records are accepted on main alone"):
        accept([path])
    git(board, "switch", "--quiet", "--detach")
    with pytest.raises(UsageError, match="on no branch: "):
        accept([path])
    assert ledger_of(board).lines == ()
    git(board, "switch", "--quiet", "main")
    assert accept([path])


def test_a_ledger_that_does_not_go_on_from_the_committed_one(board: Path) -> None:
    """Lines cut off at the end leave a whole chain; the last commit tells of them."""
    path = put(board)
    other = put(board, called("first"))
    accept([path])
    commit(board)
    whole = (board / "ledger.jsonl").read_bytes()
    for bad in (b"", ledger.text(ledger.append(
        ledger.Ledger(), "accept", entry_of(other), other.parent.name, "first",
        nonce="0" * 64))):  # fmt: skip
        (board / "ledger.jsonl").write_bytes(bad)
        with pytest.raises(RecordError, match="does not go on from the ledger of the last commit"):
            accept([other])
    (board / "ledger.jsonl").write_bytes(whole)
    assert accept([other])


def test_a_damaged_ledger_is_not_written_over(board: Path) -> None:
    path = put(board)
    (board / "ledger.jsonl").write_bytes(b"garbage\n")
    with pytest.raises(RecordError, match="line 1: not JSON"):
        accept([path])
    assert (board / "ledger.jsonl").read_bytes() == b"garbage\n"


def refused(board: Path, path: Path, words: str) -> None:
    """Nothing is accepted, in one line."""
    before = (board / "ledger.jsonl").read_bytes()
    with pytest.raises(LthbenchError, match=words) as caught:
        accept([path])
    assert "\n" not in str(caught.value)
    assert (board / "ledger.jsonl").read_bytes() == before


def test_without_git_nothing_is_accepted(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(board)
    monkeypatch.setenv("PATH", "")
    refused(board, path, r"git: cannot be run \(No such file.*install it; records are accepted in")


def program(folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another git, before the machine's own."""
    place = folder / "bin"
    place.mkdir(exist_ok=True)
    (place / "git").write_text(text)
    (place / "git").chmod(0o755)
    monkeypatch.setenv("PATH", str(place), prepend=os.pathsep)


@pytest.mark.parametrize("verb", ["branch", "ls-tree", "cat-file"])
def test_where_git_answers_an_error_nothing_is_accepted(
    verb: str, board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever question it is, and though it begins to answer."""
    path, other = put(board), put(board, called("first"))
    accept([path])
    commit(board)
    git_itself = shutil.which("git")
    script = f"""#!/bin/sh
for word; do
  if [ "$word" = {verb} ]; then echo main; echo "fatal: no {verb}" >&2; exit 128; fi
done
exec {git_itself} "$@"
"""
    with monkeypatch.context() as patch:
        program(tmp_path, script, patch)
        refused(board, other, f"git {verb} in .*: fatal: no {verb}; records are accepted in")
    assert accept([other])


def test_git_that_cannot_be_run_accepts_nothing(
    board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(board)
    program(tmp_path, "no program\n", monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    refused(board, path, "git: cannot be run")


def test_a_folder_that_git_does_not_keep(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In no repository; in one without a commit; ignored by the one that it lies in."""
    path = put(board)
    shutil.rmtree(board / ".git")
    refused(board, path, "git branch in .*: fatal: not a git repository")
    git(board, "init", "--quiet", "--initial-branch=main")
    refused(board, path, "git ls-tree in .*: fatal: Not a valid object name HEAD")
    shutil.rmtree(board / ".git")
    home = board.parent
    git(home, "init", "--quiet", "--initial-branch=main")
    (home / ".gitignore").write_text("/leaderboard/\n")
    commit(home)
    refused(board, path, "not in main's last commit; run `lthbench` from a checkout")


def test_no_variable_leads_git_elsewhere(
    board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as those that git itself sets for its hooks."""
    path = put(board)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(board, elsewhere)
    git(board, "switch", "--quiet", "--create", "submission")
    monkeypatch.setenv("GIT_DIR", str(elsewhere / ".git"))
    refused(board, path, "on submission: records are accepted on main alone")


def test_one_writer_at_a_time(board: Path, cache: Path) -> None:
    path = put(board)
    busy = pytest.raises(ResourceError, match="another accept is writing it")
    with accepting._alone(board / "ledger.jsonl"), busy:
        accept([path])
    assert accept([path])


def test_two_users_at_once_lose_nothing(
    board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has a cache of their own, and one a path of its own to the same ledger."""
    first, second = put(board), put(board, called("second"))
    check, link = accepting.check_record, tmp_path / "link"
    link.symlink_to(board.parents[1])

    def meanwhile(path: Path) -> Record:
        with monkeypatch.context() as another:
            another.setattr(accepting, "check_record", check)
            another.setattr(paths, "PACKAGE", link)
            another.setenv("LTHBENCH_CACHE", str(tmp_path / "another"))
            with pytest.raises(ResourceError, match="another accept is writing it; wait for it"):
                accept([link / second.relative_to(board.parents[1])])
        return check(path)

    with monkeypatch.context() as one:
        one.setattr(accepting, "check_record", meanwhile)
        accept([first])
    accept([second])
    assert [line["entry"] for line in ledger_of(board).lines] == [entry_of(first), entry_of(second)]


def test_a_ledger_that_changes_meanwhile_is_not_written_over(
    board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By who heeds no lock, as `git pull` and `git switch` do."""
    first, second = put(board), put(board, called("second"))
    check, place = accepting.check_record, board / "ledger.jsonl"
    line = ledger.append(
        Ledger(), "accept", entry_of(first), first.parent.name, "mixed", nonce="0" * 64
    )

    def pulled(path: Path) -> Record:
        ledger.write(place, line)
        return check(path)

    def switched(path: Path) -> Record:
        git(board, "switch", "--quiet", "--create", "submission")
        return check(path)

    for meanwhile, words in ((pulled, "was changed by another meanwhile"), (switched, "on submis")):
        with monkeypatch.context() as patch:
            patch.setattr(accepting, "check_record", meanwhile)
            with pytest.raises(LthbenchError, match=words):
                accept([second])
        assert place.read_bytes() == ledger.text(line)


def test_a_folder_that_may_not_be_written(board: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(board)
    (board / "ledger.jsonl.lock").unlink(missing_ok=True)
    (board / "ledger.jsonl.lock").mkdir()
    refused(board, path, r"ledger\.jsonl\.lock: Is a directory; accept as a user who may write")


HOSTILE: tuple[Callable[[Path], Json], ...] = (
    lambda board: {"retract": "\u202e<script>", "why": "x"},
    lambda board: {"retract": "a" * 5000, "why": "x"},
    lambda board: {"retract": "imp--" + "0" * 8, "why": "x"},
    lambda board: {"verified": [board]},
    lambda board: {"verified": [board / "ledger.jsonl"]},
)


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_names_that_are_none(number: int, board: Path) -> None:
    accept([put(board)])
    with pytest.raises(LthbenchError) as caught:
        accept([], **HOSTILE[number](board))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_the_command_line_reaches_it() -> None:
    """With nothing to do it is the user's mistake; the repository's own ledger stays as it is."""
    before = (ROOT / "leaderboard" / "ledger.jsonl").read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "lthbench", "leaderboard", "accept"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2 and "nothing to accept" in done.stderr
    assert (ROOT / "leaderboard" / "ledger.jsonl").read_bytes() == before
