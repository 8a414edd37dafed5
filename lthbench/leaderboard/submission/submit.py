"""From an evaluation's folder to an entry: checks, the bundle, the pull request."""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from lthbench.errors import RecordError, ResourceError, UsageError
from lthbench.evaluation.layout import AGAIN, TRAINED, Claim, read_claim
from lthbench.io.paths import digest, write_whole
from lthbench.io.untrusted import shown
from lthbench.leaderboard.bundle.build import BUNDLE, pack
from lthbench.leaderboard.submission import branch
from lthbench.leaderboard.validation.claims import check_controls, known_of
from lthbench.leaderboard.validation.record_rules import rules
from lthbench.leaderboard.validation.validate import check_bundle, check_record
from lthbench.method.publishable import entry_of, remarks
from lthbench.method.source import Method, baseline_names
from lthbench.protocol.task import load_suite, load_task, suite_names, task_names
from lthbench.records.schema import (
    BUNDLE_LIMIT,
    BundleEntry,
    Record,
    file_bytes,
    read_record,
    record_digest,
)

if TYPE_CHECKING:
    from lthbench.protocol.design import Part

LARGE = 25 * 10**6  # bytes; the bundles of the suite lite are smaller
RECORDS = Path("submission", "records")  # OUT/…


@dataclass(frozen=True)
class Submitted:
    """The outputs of `submit`, and the next steps.

    Attributes:
        records: The files of the entries, under OUT.
        branch: The branch to which they were added, if any.
        clone: The clone of the leaderboard's repository that holds the branch.
        base: The commit from which the branch starts.
        command: Opens the pull request.
        earlier: Other branches there, with entries of the same method on the same tasks.
        left_out: Tasks of the folder that have no record.
        remarks: What could not be checked here, and what the leaderboard will not do with it.
    """

    path: Path
    bundle: BundleEntry
    records: tuple[Path, ...]
    left_out: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    clone: Path | None = None
    branch: str = ""
    base: str = ""
    command: str = ""
    earlier: tuple[str, ...] = ()

    def text(self) -> str:
        """Return the text that the command line prints."""
        size, sha256 = self.bundle.size, self.bundle.sha256
        lines = [f"bundle   {self.path} ({size / 1e6:,.2f} MB, sha256 {sha256})"]
        if size > LARGE:
            lines.append(
                f"         larger than {LARGE // 10**6} MB: those who verify it will wait for it"
            )
        lines += [f"at       {url}" for url in self.bundle.urls]
        lines += [f"record   {path}" for path in self.records]
        lines += [
            f"left out {task}: no record; unfinished, or not applicable" for task in self.left_out
        ]
        lines += [f"remark   {remark}" for remark in self.remarks]
        if self.branch:
            lines.append(f"branch   {self.branch} in {self.clone}, from {self.base[:12]}")
        if self.clone:
            lines += [
                f"earlier  {name}, of the same method and task, is still there; if it has no open "
                f"pull request it may be deleted: `{branch.delete(self.clone, name)}`"
                for name in self.earlier
            ]
        if not self.bundle.urls:
            lines.append(
                "without --url nobody else can fetch or check the tickets; upload "
                f"{self.path}, then `{self._again()}`"
            )
        if self.command:
            lines.append(f"This opens the pull request:\n{self.command}")
        elif self.bundle.urls:
            lines.append(f"Next: `{self._again()}`")
        if not self.clone:
            lines.append(
                "CLONE is a clone of your fork of the leaderboard's repository: the records are "
                "put on a branch there"
            )
        return "\n".join(lines)

    def _again(self) -> str:
        """Return the command that makes the branch, or remakes it with the bundle's address."""
        words = ["lthbench", "submit", str(self.path.parent)]
        for url in self.bundle.urls or ("https://…",):
            words += ["--url", url]
        words += ["--repository", str(self.clone or "CLONE")]
        return " ".join(word if word == "https://…" else shlex.quote(word) for word in words)


def submit(out: Path, urls: Sequence[str], repository: Path | None) -> Submitted:
    """Check an evaluation as the leaderboard does, write its bundle, prepare the pull request.

    Args:
        out: The folder of an evaluation with --final.
        urls: Future addresses of the bundle.
        repository: A clone of a fork of the leaderboard's repository, for a branch; None for no
            branch.

    Raises:
        RecordError: If the leaderboard would reject something.
        UsageError: If a folder or an address is invalid.
    """
    clone = branch.leaderboard_clone(repository) if repository else None
    records = finished(out)
    packed = pack(out, records)
    entry = _entry(packed, urls)
    named = [record.model_copy(update={"bundle": entry}) for record in records]
    files = {_file(record): file_bytes(record) for record in named}
    with _draft(out) as draft:
        write_whole(draft / BUNDLE, packed)
        remarks = check_bundle(draft / BUNDLE)[1]
        for name, data in files.items():
            write_whole(draft / RECORDS / name, data)
            check_record(draft / RECORDS / name)
        _take(draft, out)
    written = tuple(out / RECORDS / name for name in files)
    remarks = (*remarks, *_remarks(named))
    done = Submitted(out / BUNDLE, entry, written, _left_out(out), remarks)
    return _with_branch(done, named, files, clone) if clone else done


def foreseen(method: Method, parts: Sequence[Part]) -> Iterator[str]:
    """Yield what `submit` will say about an evaluation with --final, before it starts.

    A task may be evaluated anyway, for instance as its own reference. Problems with the method
    itself are errors (`publishable.check`).
    """
    yield from remarks(entry_of(method))
    for part in parts:
        task, seeds = part.task, part.seeds
        if task.name not in task_names() or load_task(task.name).digest != task.digest:
            yield f"{task.name} is a task of your own: no board takes its record"
            continue
        try:
            known_of(task.name)
        except RecordError as error:
            yield str(error)
        try:
            check_controls(task.name, part.plan.controls)
        except RecordError as error:
            yield f"{task.name}: {error}"
        if seeds != tuple(range(len(seeds))):
            yield f"{task.name}: not before the seeds from 0 to {seeds[-1]} are there, all of them"
        yield from _place_of(task.name, task.seeds, seeds)


def _remarks(records: Sequence[Record]) -> Iterator[str]:
    """Yield what a record may hold that keeps it from the board, a rank or a name."""
    for record in records:
        yield from _place_of(record.task.name, record.task.seeds, record.seeds)
    yield from remarks(records[0].method)


def _place_of(task: str, published: int, seeds: Sequence[int]) -> Iterator[str]:
    """Yield what keeps a record of these seeds from the board or from a rank."""
    suites = map(load_suite, suite_names())
    had = len(set(range(published)).intersection(seeds))
    if not any(suite.ranked and task in suite.tasks for suite in suites):
        yield f"{task} is in no ranked suite: its record can be kept but is never on the board"
    elif had < published:
        yield f"{task}: {had} of {published} published seeds: listed, never ranked"


def finished(out: Path) -> list[Record]:
    """Return the checked records of a finished evaluation with --final; otherwise a RecordError."""
    claim = read_claim(out)
    if not claim.final:
        raise RecordError(
            f"{out}: made without --final, on development seeds; run `{_final_command(out, claim)}`"
        )
    paths = sorted(out.glob("*/record.json"))
    if not paths:
        raise RecordError(f"{out}: no task is finished; {AGAIN}")
    records = [read_record(path) for path in paths]
    for path, record in zip(paths, records, strict=True):
        of = record.method.name, record.method.digest, record.method.options, record.final
        if of != (claim.name, claim.method, claim.options, True):
            raise RecordError(f"{path}: not of the evaluation that {out} holds; {AGAIN}")
        if record.task.name != path.parent.name:
            raise RecordError(f"{path}: a record of {shown(record.task.name)}; {AGAIN}")
        try:
            rules(record)
        except RecordError as error:
            raise RecordError(f"{path}: {error}") from error
    return records


def _final_command(out: Path, claim: Claim) -> str:
    """Return the command line whose result can be submitted."""
    method = claim.name if claim.name in baseline_names() else f"{claim.name}.py"
    tasks = [f"--task {path.parent.name}" for path in sorted(out.glob(f"*/{TRAINED}"))]
    options = [f"--set {shlex.quote(f'{k}={v}')}" for k, v in claim.options.items()]
    return " ".join(["lthbench evaluate", shlex.quote(method), *tasks, *options, "--final"])


def _left_out(out: Path) -> tuple[str, ...]:
    begun = sorted(path.parent for path in out.glob(f"*/{TRAINED}"))
    return tuple(folder.name for folder in begun if not (folder / "record.json").is_file())


def _entry(packed: bytes, urls: Sequence[str]) -> BundleEntry:
    if len(packed) > BUNDLE_LIMIT:
        raise RecordError(
            f"the bundle would be {len(packed) / 2**20:.0f} MB, at most {BUNDLE_LIMIT >> 20} are "
            "read; submit fewer tasks"
        )
    try:
        return BundleEntry(sha256=digest(packed), size=len(packed), urls=tuple(urls))
    except ValidationError as error:
        what = error.errors(include_url=False)[0]
        place = what["loc"][1] if len(what["loc"]) > 1 else None
        url = shown(urls[place]) if isinstance(place, int) else f"{len(urls)} of them"
        raise UsageError(
            f"--url {url}: at most 4 addresses that begin with https:// and have no spaces"
        ) from error


@contextmanager
def _draft(out: Path) -> Iterator[Path]:
    """Yield a folder inside OUT for unchecked files, keeping an earlier submission until they pass.

    An error names the final path of the file.
    """
    try:
        with tempfile.TemporaryDirectory(
            prefix=".submit-", dir=out, ignore_cleanup_errors=True
        ) as folder:
            yield Path(folder)
    except (RecordError, ResourceError) as error:
        raise type(error)(str(error).replace(f"{Path(folder).name}/", "")) from error
    except OSError as error:
        raise ResourceError(
            f"{out}: {error.strerror or error}; make the folder writable and run the same command "
            "again"
        ) from error


def _take(draft: Path, out: Path) -> None:
    """Replace the files of an earlier call, possibly of another bundle, with the checked ones."""
    (draft / BUNDLE).replace(out / BUNDLE)
    if (out / RECORDS).is_dir():
        shutil.rmtree(out / RECORDS)
    (out / RECORDS).parent.mkdir(exist_ok=True)
    (draft / RECORDS).replace(out / RECORDS)


def _file(record: Record) -> str:
    return f"{record.task.name}/{record.method.name}--{record_digest(record)[:8]}.json"


def _with_branch(
    done: Submitted, records: Sequence[Record], files: dict[str, bytes], clone: Path
) -> Submitted:
    """Add the records on a branch, and the command that opens the pull request."""
    method, tasks = records[0].method.name, ", ".join(record.task.name for record in records)
    name = branch.name_of(method, [record_digest(record) for record in records])
    title = f"Entry: {method} on {tasks}"
    where = " and ".join(done.bundle.urls) or "no address yet"
    body = f"Bundle: {done.bundle.size} bytes, sha256 {done.bundle.sha256}, at {where}"
    added = {f"{branch.RECORDS}/{path}": data for path, data in files.items()}
    base = branch.add(clone, name, added, f"{title}\n\n{body}")
    head = branch.head(clone, name)
    words = (
        ["git", "push", branch.remote(clone), name],
        ["gh", "pr", "create", "--head", head, "--title", title, "--body", body],
    )
    command = " && ".join([f"cd {shlex.quote(str(clone))}", *map(shlex.join, words)])
    earlier = _earlier(clone, name, records)
    return replace(done, clone=clone, branch=name, base=base, command=command, earlier=earlier)


def _earlier(clone: Path, name: str, records: Sequence[Record]) -> tuple[str, ...]:
    """List other branches with the same method and task, such as with another bundle address."""
    ours = [_claims(record.model_dump(mode="json")) for record in records]
    found = branch.entries(clone, records[0].method.name)
    return tuple(dict.fromkeys(b for b, text in found if b != name and _claimed(text) in ours))


def _claimed(text: str) -> tuple[object, ...] | None:
    """Return the claim of a record on some branch; None if it is not a record."""
    try:
        return _claims(json.loads(text))
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _claims(table: Mapping[str, object]) -> tuple[object, ...]:
    """Return whose results a record holds, and of what, without times and addresses."""
    return table["method"], table["task"]
