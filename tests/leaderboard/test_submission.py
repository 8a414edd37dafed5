"""`lthbench submit`: what it refuses, what it leaves, and the branch that it makes."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lthbench.cli.main import main
from lthbench.errors import LthbenchError, RecordError, ResourceError, UsageError
from lthbench.evaluation import environment
from lthbench.evaluation.options import parts_of
from lthbench.io.paths import canonical_json, digest
from lthbench.leaderboard.bundle import archive
from lthbench.leaderboard.submission import branch
from lthbench.leaderboard.submission import submit as submission
from lthbench.leaderboard.submission.submit import submit
from lthbench.method.source import load_method
from lthbench.protocol.design import Part
from lthbench.records.schema import record_digest
from tests.searching import ROOT
from tests.submitted import DIGITS, MODADD, at_home, house
from tests.synthetic import as_table

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
    git(folder, "remote", "add", "origin", "https://github.com/somebody/board.git")
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
        whole = as_table(path.read_bytes())
        assert whole.pop("bundle") == {
            "sha256": digest(packed), "size": len(packed), "urls": [URL],
        }  # fmt: skip
        assert whole == record.model_dump(mode="json")
        data = path.read_bytes()
        name = f"mixed--{digest(data)[:8]}.json"
        assert path == out / "submission" / "records" / record.task.name / name
    text = done.text()
    size = f"({len(packed) / 1e6:.2f} MB, "
    assert digest(packed) in text and size in text and "larger" not in text
    assert "nobody else" not in text and f"submit {out} --url {URL} --repository CLONE`" in text
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
    """It is told what nobody can do then, and what to do."""
    text = submit(out, (), None).text()
    assert "without --url nobody else can fetch or check the tickets; upload" in text
    assert f"then `lthbench submit {out} --url https://… --repository CLONE`" in text
    assert "level 0" not in text


@pytest.mark.parametrize("older", [False, True])
def test_what_is_installed_later(out: Path, monkeypatch: pytest.MonkeyPatch, older: bool) -> None:
    """It is no part of the evaluation; one of an older lthbench keeps its bundle's list."""
    if older:
        (out / "environment.json").unlink()
    first = submit(out, (), None).path.read_bytes()
    monkeypatch.setattr(environment, "packages", lambda: {"installed-later": "1"})
    assert submit(out, (URL,), None).path.read_bytes() == first
    (out / "bundle.zip").unlink()
    again = archive.read(submit(out, (URL,), None).path).members["environment.json"]
    assert (b"installed-later" in bytes(again)) == older


def test_a_package_without_a_name_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broken installation of something else must not end an evaluation."""
    for name, text in (("a", ""), ("b", "Name: b\n"), ("c", "Version: 1\n"), ("d", None)):
        folder = tmp_path / f"{name}-1.dist-info"
        folder.mkdir()
        if text is not None:
            (folder / "METADATA").write_text(text)
    whole = environment.packages()
    assert whole["numpy"]
    monkeypatch.syspath_prepend(tmp_path)
    assert environment.packages() == whole


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


def spoil_environment(out: Path) -> None:
    (out / "environment.json").write_bytes(b'{"packages":{"a":1}}')


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
        (spoil_environment, r"environment\.json: damaged; remove it and run the same"),
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
    """Nothing is left; in one line, which says what to do, and names no file that is gone."""
    assert callable(spoil)
    spoil(out)
    with pytest.raises(LthbenchError, match=message) as caught:
        submit(out, (URL,), None)
    assert "\n" not in str(caught.value) and ".submit-" not in str(caught.value)
    assert not (out / "submission").exists() and not (out / "bundle.zip").exists()
    assert not list(out.glob(".*"))


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("spoil", [spoil_swapped, spoil_source])
def test_what_is_refused_later(out: Path, spoil: object) -> None:
    """An earlier bundle may be what was uploaded: it stays, and so do its records."""
    assert callable(spoil)
    submit(out, (URL,), None)
    spoil(out)
    before = files_of(out)
    with pytest.raises(LthbenchError):
        submit(out, (), None)
    assert files_of(out) == before


def test_a_record_that_is_refused_later(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last check of all; and a folder that cannot be written is told in one line."""
    submit(out, (URL,), None)
    before = files_of(out)
    with monkeypatch.context() as patch:
        patch.setattr(submission, "check_record", refuse)
        with pytest.raises(RecordError, match=f"^{out}/submission/records/{DIGITS}/mixed--"):
            submit(out, (), None)
    assert files_of(out) == before
    monkeypatch.setattr(submission.tempfile, "TemporaryDirectory", full)
    with pytest.raises(ResourceError, match=f"^{out}: No space left; make the folder"):
        submit(out, (), None)


def refuse(path: Path) -> None:
    raise RecordError(f"{path}: refused")


def full(**options: object) -> None:
    raise OSError(28, "No space left")


def test_no_evaluation_is_no_submission(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no evaluation"):
        submit(tmp_path, (), None)


def test_what_has_no_record_is_told(out: Path) -> None:
    """A task that was left out, or is not finished, is named, and the others are submitted."""
    (out / MODADD / "record.json").unlink()
    done = submit(out, (URL,), None)
    assert done.left_out == (MODADD,) and f"left out {MODADD}" in done.text()
    assert [path.parent.name for path in done.records] == [DIGITS]


def with_method(out: Path, **described: str) -> None:
    """The source and the records of a folder say something else of their method."""
    said = {"name": "mixed", **described}
    old = (house().out / "method.py").read_text()
    source = re.sub("METHOD = .*", f"METHOD = {said!r}", old).encode()
    (out / "method.py").write_bytes(source)
    for path in (out / "evaluation.json", *out.glob("*/record.json")):
        table = json.loads(path.read_bytes())
        if path.name == "record.json":
            table["method"].update(described=said, digest=digest(source))
        else:
            table["method"] = digest(source)
        path.write_bytes(canonical_json(table))


def test_what_is_never_ranked_is_remarked(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of no ranked suite, fewer seeds, no authors: each may be kept, and is told."""
    few = "2 of 5 published seeds: listed, never ranked"
    done = submit(out, (URL,), None)
    remarks = [remark for remark in done.remarks if "not checked" not in remark]
    assert remarks == [f"{DIGITS}: {few}", f"{MODADD}: {few}"]
    assert f"remark   {DIGITS}: {few}\n" in done.text()
    whole = [r.model_copy(update={"task": r.task.model_copy(update={"seeds": 2})})
             for r in house().records]  # fmt: skip
    assert not any("seeds" in remark for remark in submission._remarks(whole))
    with monkeypatch.context() as patch:
        patch.setattr(submission, "suite_names", lambda: ())
        never = "is in no ranked suite: its record can be kept but is never on the board"
        told = submit(out, (URL,), None).remarks
        assert {f"{DIGITS} {never}", f"{MODADD} {never}"} <= set(told)
        assert not any("seeds" in remark for remark in told)
    with_method(out, authors=" ")
    assert (
        "METHOD of mixed names no authors and no licence; add" in submit(out, (URL,), None).text()
    )
    with_method(out, licence="MIT")
    assert "METHOD of mixed names no authors; add" in submit(out, (URL,), None).text()
    with_method(out, authors="A. Nobody", licence="MIT")
    assert "names no" not in submit(out, (URL,), None).text()


def parts(**changes: Any) -> tuple[Part, ...]:
    given = {"suite": None, "tasks": (DIGITS,), "seeds": None, "final": True, **changes}
    return parts_of(**given)


def test_what_is_said_before_it_begins(out: Path, tmp_path: Path) -> None:
    """All that may stand in an evaluation and keeps its record from the board or from a rank."""
    method = load_method(str(out / "method.py"))

    def told(*named: Part) -> list[str]:
        return list(submission.foreseen(method, named))

    assert told(*parts()) == told(*parts(suite="tiny", tasks=())) == []
    assert told(*parts(seeds=2)) == [f"{DIGITS}: 2 of 5 published seeds: listed, never ranked"]
    (gap, few) = told(*parts(only_seeds=(1, 3)))
    assert gap == f"{DIGITS}: not before the seeds from 0 to 3 are there, all of them"
    assert few == f"{DIGITS}: 2 of 5 published seeds: listed, never ranked"
    (controls,) = told(*parts(controls="one rung"))
    assert controls.startswith(f"{DIGITS}: controls: 'one rung', must be \"all\"; make the record")
    (reference,) = (line for line in told(*parts(tasks=("mlp-digits",))) if "reference" in line)
    assert reference.startswith("task mlp-digits: has no frozen reference for its present protocol")
    text = (ROOT / "tests" / "tasks" / "tiny-digits.toml").read_text()
    for name, changed in (
        ("own", text.replace("tiny-digits", "own")),
        ("tiny-digits", text.replace("1.2e-3", "1.3e-3", 1)),
    ):
        own = tmp_path / f"{name}.toml"
        own.write_text(changed)
        said = f"{name} is a task of your own: no board takes its record"
        assert told(*parts(tasks=(str(own),))) == [said]


def test_names_of_others_are_remarked(out: Path) -> None:
    """A baseline's name on another source; on its own it is the baseline."""
    source = (out / "method.py").read_text().replace('"mixed"', '"snip"', 1)
    (out / "method.py").write_text(source)
    stolen = list(submission.foreseen(load_method(str(out / "method.py")), ()))
    assert stolen == ["snip is the name of a baseline of another source; choose your own"]
    assert not list(submission.foreseen(load_method("snip"), ()))


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
    assert words[7:13] == ["&&", "gh", "pr", "create", "--head", f"somebody:{done.branch}"]
    options = dict(zip(words[13::2], words[14::2], strict=True))
    assert options["--title"] == f"Entry: mixed on {DIGITS}, {MODADD}"
    assert URL in options["--body"] and done.bundle.sha256 in options["--body"]


def test_twice_is_the_same_branch(out: Path, clone: Path) -> None:
    """And no second commit; a branch of that name with other files is not touched."""
    first = submit(out, (URL,), clone)
    commit = git(clone, "rev-parse", first.branch)
    assert submit(out, (URL,), clone) == first
    assert git(clone, "rev-parse", first.branch) == commit
    more = git(clone, "commit-tree", f"{commit.strip()}^{{tree}}", "-p", first.branch, "-m", "x")
    other = git(clone, "commit-tree", "main^{tree}", "-p", "main", "-m", "x")
    for at in ("main", more.strip(), other.strip()):
        git(clone, "branch", "-f", first.branch, at)
        with pytest.raises(ResourceError, match="is there with other files or commits") as caught:
            submit(out, (URL,), clone)
        assert f"delete it (`git -C '{clone}' branch -D {first.branch}`)" in str(caught.value)


def test_an_entry_that_is_there_is_not_added_again(out: Path, clone: Path) -> None:
    done = submit(out, (URL,), clone)
    git(clone, "update-ref", "refs/heads/main", done.branch)
    git(clone, "branch", "-D", done.branch)
    with pytest.raises(ResourceError, match="main has the same record"):
        submit(out, (URL,), clone)


def test_inside_a_clone(out: Path, clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No branch is made that was not asked for: the command that makes it is printed."""
    monkeypatch.chdir(clone / "leaderboard")
    before = git(clone, "for-each-ref")
    done = submit(out, (URL,), None)
    assert (done.clone, done.branch, done.command) == (None, "", "")
    assert git(clone, "for-each-ref") == before
    (asked,) = (line for line in done.text().splitlines() if line.startswith("Next: `"))
    words = shlex.split(asked.removeprefix("Next: `").removesuffix("`"))
    assert words == ["lthbench", "submit", str(out), "--url", URL, "--repository", "CLONE"]
    assert "a clone of your fork" in done.text()
    assert submit(out, (URL,), Path()).clone == clone


def test_folders_that_are_no_clone(out: Path, clone: Path) -> None:
    """One of something else, one without main, none: one line that names the folder."""
    other = clone.parent / "other"
    other.mkdir()
    with pytest.raises(UsageError, match="other: no git clone; clone your fork"):
        submit(out, (URL,), other)
    git(other, "init", "-q", "-b", "main")
    with pytest.raises(UsageError, match=r"no main.*; run `git -C \S+ fetch origin main:main`"):
        submit(out, (URL,), other)
    git(other, "commit", "-q", "--allow-empty", "-m", "empty")
    with pytest.raises(UsageError, match="its main has no leaderboard/records"):
        submit(out, (URL,), other)
    with pytest.raises(UsageError, match="no such folder"):
        submit(out, (URL,), other / "nowhere")


def commit_on(clone: Path, reference: str, name: str) -> str:
    """A commit on top of main, under a reference; it adds a file of that name."""
    blob = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"], cwd=clone, input=name.encode(),
        capture_output=True, check=True,
    ).stdout.decode().strip()  # fmt: skip
    rows = git(clone, "ls-tree", "main") + f"100644 blob {blob}\t{name}\n"
    tree = subprocess.run(
        ["git", "mktree"], cwd=clone, input=rows.encode(), capture_output=True, check=True
    ).stdout.decode().strip()  # fmt: skip
    commit = git(clone, "commit-tree", tree, "-p", "main", "-m", name).strip()
    git(clone, "update-ref", reference, commit)
    return commit


def test_it_begins_at_main(out: Path, clone: Path) -> None:
    """Wherever HEAD is; at the leaderboard's own, where the clone has fetched it."""
    git(clone, "stash", "-q", "-u")
    elsewhere = commit_on(clone, "refs/heads/entry/other-12345678", "elsewhere")
    git(clone, "checkout", "-q", "entry/other-12345678")
    begins = [git(clone, "rev-parse", "main").strip()]
    for name in ("origin", "upstream"):
        begins.append(commit_on(clone, f"refs/remotes/{name}/main", name))
    commit_on(clone, "refs/remotes/another/main", "another")
    for given, base in reversed(list(zip(("", "origin", "upstream"), begins, strict=True))):
        done = submit(out, (URL,), clone)
        assert done.base == base and f"from {base[:12]}" in done.text()
        assert git(clone, "rev-parse", f"{done.branch}^").strip() == base
        assert elsewhere not in git(clone, "rev-list", done.branch)
        added = git(clone, "diff", "--name-only", base, done.branch).split()
        assert len(added) == 2 and all(path.startswith(branch.RECORDS) for path in added)
        git(clone, "branch", "-D", done.branch)
        if given:
            git(clone, "update-ref", "-d", f"refs/remotes/{given}/main")
    assert git(clone, "rev-parse", "HEAD").strip() == elsewhere


def test_a_branch_that_an_entry_is_under(out: Path, clone: Path) -> None:
    """An older lthbench made it from another entry's branch: it would carry both."""
    main = git(clone, "rev-parse", "main").strip()
    git(clone, "update-ref", "refs/heads/main", commit_on(clone, "refs/heads/x", "under"))
    submit(out, (URL,), clone)
    git(clone, "update-ref", "refs/heads/main", main)
    with pytest.raises(ResourceError, match="with other files or commits"):
        submit(out, (URL,), clone)


def test_the_earlier_branch_is_told(out: Path, clone: Path) -> None:
    """With an address the record is another, and so is the branch; others' branches are not."""
    git(clone, "branch", "entry/mixed-empty")
    first = submit(out, (), clone)
    assert first.earlier == () and "is still there" not in first.text()
    assert "no address yet" in first.command and "level 0" not in first.command
    assert f"--url https://… --repository '{clone}'`" in first.text()
    git(clone, "update-ref", "refs/heads/entry/imp-12345678", first.branch)
    second = submit(out, (URL,), clone)
    assert second.branch != first.branch and second.earlier == (first.branch,)
    assert f"`git -C '{clone}' branch -D {first.branch}`" in second.text()
    git(clone, "branch", "-D", first.branch)
    assert submit(out, (URL,), clone).earlier == ()


def test_earlier_branches_of_other_results(out: Path, clone: Path) -> None:
    """Other options are another entry, and what is no record is nothing."""
    first = submit(out, (), clone)
    path = f"{branch.RECORDS}/{DIGITS}/{first.records[0].name}"
    table = json.loads(first.records[0].read_bytes())
    table["method"]["options"] = {"scale": 0.25}
    for number, text in enumerate((canonical_json(table), b"[" * 10**5, b"[]", b"{}", b"\xff")):
        branch.add(clone, f"entry/mixed-{number}", {path: text}, "other")
    assert submit(out, (URL,), clone).earlier == (first.branch,)


@pytest.mark.parametrize(
    ("url", "owner"),
    [
        ("https://github.com/Some-Body/board.git", "Some-Body"),
        ("https://github.com/somebody/board", "somebody"),
        ("https://somebody:token@GitHub.com/somebody/board/", "somebody"),
        ("git@github.com:somebody/board.git", "somebody"),
        ("github.com:/somebody/board", "somebody"),
        ("org-1@github.com:some_body/board.git", "some_body"),
        ("ssh://git@github.com/somebody/board.git", "somebody"),
        ("ssh://git@ssh.github.com:443/somebody/board.git", "somebody"),
        ("https://example.org/somebody/board.git", ""),
        ("https://github.com.example.org/somebody/board.git", ""),
        ("https://github.com@example.org/somebody/board.git", ""),
        ("https://example.org/github.com/somebody/board.git", ""),
        ("git@work:somebody/board.git", ""),
        ("/home/github.com/somebody/board", ""),
        ("https://github.com/$(touch${IFS}pwned)/board.git", ""),
        ("https://github.com/a;id/board.git", ""),
        ("https://github.com/-x/board.git", ""),
        ("https://github.com/somebody", ""),
        ("'; touch pwned; '", ""),
    ],
)
def test_whose_fork_it_is(clone: Path, url: str, owner: str) -> None:
    """By the remote that is pushed to; what is not GitHub's, or no owner's name, gives none."""
    git(clone, "remote", "set-url", "--push", "origin", url)
    assert branch.head(clone, "entry/x") == (f"{owner}:entry/x" if owner else "entry/x")


def test_which_remote_is_pushed_to(clone: Path) -> None:
    """Not the leaderboard's own where there is another; and none need be there."""
    git(clone, "remote", "rename", "origin", "zoo")
    git(clone, "remote", "add", "upstream", "https://github.com/board/board.git")
    assert branch.remote(clone) == "zoo" and branch.head(clone, "x") == "somebody:x"
    git(clone, "remote", "remove", "zoo")
    assert branch.remote(clone) == "upstream" and branch.head(clone, "x") == "board:x"
    git(clone, "remote", "remove", "upstream")
    assert branch.remote(clone) == "origin" and branch.head(clone, "x") == "x"


def test_a_remote_that_would_be_a_command(out: Path, clone: Path) -> None:
    """Names of remotes and addresses are quoted: a shell runs git and gh, nothing else."""
    name, url = "a;touch${IFS}pwned", f"{URL}?a=$(touch$IFS'pwned')&b"
    git(clone, "remote", "rename", "origin", name)
    done = submit(out, (url,), clone)
    words = shlex.split(done.command)
    assert words[5] == name and url in words[-1] and words[12] == f"somebody:{done.branch}"
    tools = out.parent / "tools"
    tools.mkdir()
    for tool in ("git", "gh"):
        (tools / tool).write_text("#!/bin/sh\nexit 0\n")
        (tools / tool).chmod(0o755)
    path = {"PATH": f"{tools}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", done.command], cwd=clone, env=os.environ | path, check=True)
    assert not (clone / "pwned").exists()


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
