"""`lthbench submit`: what it refuses, what it leaves, and the branch that it makes."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lthbench import branch, submission
from lthbench.cli import main
from lthbench.errors import LthbenchError, RecordError, ResourceError, UsageError
from lthbench.paths import canonical_json, digest
from lthbench.record import record_digest
from lthbench.submission import submit
from tests.submitted import DIGITS, MODADD, at_home, house

URL = "https://example.org/files/bundle.zip"


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A finished evaluation that a test may spoil, outside of any clone."""
    folder = tmp_path / "out"
    shutil.copytree(house().out, folder)
    monkeypatch.chdir(tmp_path)
    with at_home(house().share, house().cache):
        yield folder


def git(folder: Path, *command: str) -> str:
    identity = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    done = subprocess.run(
        ["git", *command], cwd=folder, env=os.environ | identity, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return done.stdout


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of a leaderboard, with a change staged, one that is not, and a stranger's file."""
    for name, value in (("AUTHOR", "A"), ("COMMITTER", "C")):
        monkeypatch.setenv(f"GIT_{name}_NAME", value)
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "a@example.org")
    folder = tmp_path / "a clone"
    (folder / branch.RECORDS).mkdir(parents=True)
    git(folder, "init", "-q", "-b", "main")
    (folder / branch.RECORDS / ".gitkeep").write_text("")
    (folder / "README").write_text("one\n")
    git(folder, "add", ".")
    git(folder, "commit", "-q", "-m", "first")
    git(folder, "remote", "add", "origin", "https://example.org/board.git")
    (folder / "README").write_text("two\n")
    git(folder, "add", "README")
    (folder / "README").write_text("three\n")
    (folder / "mine").write_text("not git's\n")
    return folder


def test_what_it_leaves(out: Path) -> None:
    """The bundle, a record for each task that names it, and what is to be done next."""
    done = submit(out, (URL,), None)
    packed = (out / "bundle.zip").read_bytes()
    assert done.path == out / "bundle.zip" and packed == house().bundle.read_bytes()
    assert (done.bundle.sha256, done.bundle.size) == (digest(packed), len(packed))
    assert done.bundle.urls == (URL,)
    for path, record in zip(done.records, house().records, strict=True):
        whole = json.loads(path.read_bytes())
        assert whole.pop("bundle") == {
            "sha256": digest(packed), "size": len(packed), "urls": [URL],
        }  # fmt: skip
        assert whole == record.model_dump(mode="json")
        data = path.read_bytes()
        name = f"mixed--{digest(data)[:8]}.json"
        assert path == out / "submission" / "records" / record.task.name / name
    text = done.text()
    assert digest(packed) in text and "0.10 MB" in text and "larger" not in text
    assert "level 0" not in text and "--repository CLONE" in text
    assert not (out / "submission" / "records" / "left").exists()


def test_twice_the_same(out: Path) -> None:
    """Bytes and names; with another address the bundle stays and the records are others."""
    first = submit(out, (URL,), None)
    files = {path: path.read_bytes() for path in (first.path, *first.records)}
    again = submit(out, (URL,), None)
    assert {path: path.read_bytes() for path in (again.path, *again.records)} == files
    moved = submit(out, (URL + ".too",), None)
    assert moved.path.read_bytes() == files[first.path]
    assert not set(moved.records) & set(first.records)
    assert sorted((out / "submission").rglob("*.json")) == sorted(moved.records)


def test_without_an_address(out: Path) -> None:
    """It is told that the entry stays at level 0, and what to do."""
    text = submit(out, (), None).text()
    assert "stays at level 0" in text and f"lthbench submit {out} --url" in text


def test_a_large_bundle_is_told(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no error: others wait for it."""
    monkeypatch.setattr(submission, "LARGE", 1000)
    assert "larger than 0 MB" in submit(out, (URL,), None).text()
    monkeypatch.setattr(submission, "BUNDLE_LIMIT", 1000)
    with pytest.raises(RecordError, match="submit fewer tasks"):
        submit(out, (URL,), None)


@pytest.mark.parametrize(
    "urls",
    [
        ("http://example.org/b.zip",),
        ("https://example.org/a b.zip",),
        ("https://example.org/<script>",),
        ("https://example.org/\u202egpj.zip",),
        ("https://example.org/x\nhttps://example.org/y",),
        ("file:///etc/passwd",),
        (URL,) * 5,
    ],
)
def test_addresses_that_are_none(out: Path, urls: tuple[str, ...]) -> None:
    """One line that names the address; nothing is left."""
    with pytest.raises(UsageError, match="--url") as caught:
        submit(out, urls, None)
    assert "\n" not in str(caught.value) and str(caught.value).isascii()
    assert not (out / "submission").exists() and not (out / "bundle.zip").exists()


def spoil_final(out: Path) -> None:
    claim = json.loads((out / "evaluation.json").read_bytes())
    (out / "evaluation.json").write_bytes(canonical_json(claim | {"final": False}))


def spoil_claim(out: Path) -> None:
    (out / "evaluation.json").write_bytes(b"[1]")


def spoil_nothing_finished(out: Path) -> None:
    for path in out.glob("*/record.json"):
        path.unlink()


def spoil_source(out: Path) -> None:
    (out / "method.py").write_text("something else")


def spoil_older(out: Path) -> None:
    (out / "method.py").unlink()


def spoil_answers(out: Path) -> None:
    (out / DIGITS / "answers.json").unlink()


def spoil_answers_damaged(out: Path) -> None:
    (out / DIGITS / "answers.json").write_bytes(b'{"cells": [[1]]}')


def spoil_key(out: Path) -> None:
    table = json.loads((out / DIGITS / "answers.json").read_bytes())
    table["cells"][0][-1] = "../../../../etc/passwd"
    (out / DIGITS / "answers.json").write_bytes(canonical_json(table))


def spoil_cells(out: Path) -> None:
    shutil.rmtree(out / DIGITS / "cells")


def spoil_a_cell(out: Path) -> None:
    next((out / DIGITS / "cells").iterdir()).write_bytes(b"short")


def spoil_ticket(out: Path) -> None:
    (out / DIGITS / "tickets" / "seed0" / "0500000.safetensors").unlink()


def spoil_swapped(out: Path) -> None:
    for seed, other in ((0, 1), (1, 0)):
        source = house().out / DIGITS / "tickets" / f"seed{other}" / "0500000.safetensors"
        shutil.copy(source, out / DIGITS / "tickets" / f"seed{seed}")


def spoil_edited(out: Path) -> None:
    path = out / DIGITS / "record.json"
    table = json.loads(path.read_bytes())
    next(c for c in table["cells"] if c["kind"] == "ticket")["correct"]["test"][-1] += 3
    path.write_bytes(canonical_json(table))


def spoil_moved(out: Path) -> None:
    shutil.copy(out / MODADD / "record.json", out / DIGITS / "record.json")


def spoil_fewer_seeds(out: Path) -> None:
    path = out / DIGITS / "record.json"
    table = json.loads(path.read_bytes())
    table["seeds"] = [0]
    path.write_bytes(canonical_json(table))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_final, r"without --final.*`lthbench evaluate mixed\.py --task tiny-digits --task "
                      r"tiny-modadd --set scale=0\.5 --final`"),
        (spoil_claim, "damaged"),
        (spoil_nothing_finished, "no task is finished; run the same"),
        (spoil_source, "not the source that the record"),
        (spoil_older, "older than bundles: run the same"),
        (spoil_answers, "older than bundles: run the same"),
        (spoil_answers_damaged, "damaged"),
        (spoil_key, "damaged"),
        (spoil_cells, "gone, with its answers; run the same"),
        (spoil_a_cell, "damaged"),
        (spoil_ticket, "damaged or gone"),
        (spoil_swapped, "is not the ticket's"),
        (spoil_edited, "does not follow from the cells"),
        (spoil_moved, "a record of tiny-modadd|must be"),
        (spoil_fewer_seeds, "seed"),
    ],
)  # fmt: skip
def test_what_is_refused(out: Path, spoil: object, message: str) -> None:
    """Nothing is left; in one line, which says what to do."""
    assert callable(spoil)
    spoil(out)
    with pytest.raises(LthbenchError, match=message) as caught:
        submit(out, (URL,), None)
    assert "\n" not in str(caught.value)
    assert not (out / "submission").exists() and not (out / "bundle.zip").exists()


def test_no_evaluation_is_no_submission(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no evaluation"):
        submit(tmp_path, (), None)


def test_what_has_no_record_is_told(out: Path) -> None:
    """A task that was left out, or is not finished, is named, and the others are submitted."""
    (out / MODADD / "record.json").unlink()
    done = submit(out, (URL,), None)
    assert done.left_out == (MODADD,) and f"left out {MODADD}" in done.text()
    assert [path.parent.name for path in done.records] == [DIGITS]


# --- the branch -------------------------------------------------------------------------------


def state_of(clone: Path) -> tuple[str, ...]:
    """What a user sees of a clone."""
    seen = ("status", "--porcelain"), ("diff",), ("diff", "--cached"), ("rev-parse", "HEAD")
    index = (clone / ".git" / "index").read_bytes()
    return *(git(clone, *command) for command in seen), digest(index), git(clone, "stash", "list")


def test_the_branch(out: Path, clone: Path) -> None:
    """Holds the records beside what HEAD holds; checkout, index and stranger's files stay."""
    before = state_of(clone)
    done = submit(out, (URL,), clone / "leaderboard")
    assert state_of(clone) == before
    assert (clone / "README").read_text() == "three\n"
    assert done.clone == clone and done.branch.startswith("entry/mixed-")
    added = git(clone, "diff", "--name-status", "main", done.branch).split("\n")
    wanted = [f"A\t{branch.RECORDS}/{p.parent.name}/{p.name}" for p in sorted(done.records)]
    assert added[:-1] == wanted
    assert git(clone, "rev-list", "--count", f"main..{done.branch}").strip() == "1"
    assert git(clone, "rev-parse", "main").startswith(done.base[:12])
    for path in done.records:
        name = f"{done.branch}:{branch.RECORDS}/{path.parent.name}/{path.name}"
        assert git(clone, "cat-file", "blob", name) == path.read_text()
    git(clone, "fsck", "--strict")
    assert not list(clone.rglob("lthbench-*"))


def test_the_command(out: Path, clone: Path) -> None:
    """One line that a shell takes apart into what was meant; the folder's name has a space."""
    done = submit(out, (URL,), clone)
    assert done.command.splitlines() == [done.command] and done.command in done.text()
    words = shlex.split(done.command)
    assert words[:7] == ["cd", str(clone), "&&", "git", "push", "origin", done.branch]
    assert words[7:13] == ["&&", "gh", "pr", "create", "--head", done.branch]
    options = dict(zip(words[13::2], words[14::2], strict=True))
    assert options["--title"] == f"Entry: mixed on {DIGITS}, {MODADD}"
    assert URL in options["--body"] and done.bundle.sha256 in options["--body"]


def test_twice_is_the_same_branch(out: Path, clone: Path) -> None:
    """And no second commit; a branch of that name with other files is not touched."""
    first = submit(out, (URL,), clone)
    commit = git(clone, "rev-parse", first.branch)
    assert submit(out, (URL,), clone) == first
    assert git(clone, "rev-parse", first.branch) == commit
    git(clone, "branch", "-f", first.branch, "main")
    with pytest.raises(ResourceError, match="is there with other files; delete it"):
        submit(out, (URL,), clone)


def test_an_entry_that_is_there_is_not_added_again(out: Path, clone: Path) -> None:
    done = submit(out, (URL,), clone)
    git(clone, "update-ref", "refs/heads/main", done.branch)
    git(clone, "branch", "-D", done.branch)
    with pytest.raises(ResourceError, match="HEAD has the same record"):
        submit(out, (URL,), clone)


def test_inside_a_clone(out: Path, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clone need not be named where one works in it; one of something else is no clone."""
    monkeypatch.chdir(clone / "leaderboard")
    assert submit(out, (URL,), None).clone == clone
    other = clone.parent / "other"
    other.mkdir()
    git(other, "init", "-q")
    monkeypatch.chdir(other)
    assert submit(out, (URL,), None).clone is None
    with pytest.raises(UsageError, match="no git clone whose HEAD has"):
        submit(out, (URL,), other)
    with pytest.raises(UsageError, match="no such folder"):
        submit(out, (URL,), other / "nowhere")


def test_another_index_in_the_environment(
    out: Path, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a hook of another repository: its variables are not followed."""
    monkeypatch.setenv("GIT_DIR", str(out / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(out / "index"))
    done = submit(out, (URL,), clone)
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_INDEX_FILE")
    assert git(clone, "rev-parse", "--verify", done.branch)
    assert not (out / "index").exists()


def test_git_that_refuses(out: Path, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own words on one line; and without git the option says so."""
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    with pytest.raises(ResourceError, match=r"git commit-tree in .*ident") as caught:
        submit(out, (URL,), clone)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("PATH", "")
    assert submit(out, (URL,), None).clone is None
    with pytest.raises(ResourceError, match="git: cannot be run"):
        submit(out, (URL,), clone)


def test_branches_are_named_by_what_they_hold() -> None:
    """One record by its digest; several by the digest of theirs, in any order."""
    a, b = (record_digest(record) for record in house().records)
    assert branch.name_of("imp", [a]) == f"entry/imp-{a[:8]}"
    assert branch.name_of("imp", [a, b]) == branch.name_of("imp", [b, a])


# --- the command line -------------------------------------------------------------------------


def test_the_verb(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Prints where everything lies; a mistake is one line and exit code 2."""
    monkeypatch.setattr(sys, "argv", ["lthbench", "submit", str(out), "--url", URL])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert str(out / "bundle.zip") in capsys.readouterr().out
    spoil_final(out)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capsys.readouterr()
    assert said.out == "" and len(said.err.splitlines()) == 1
