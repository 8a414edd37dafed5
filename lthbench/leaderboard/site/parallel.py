"""What one process does with one record: read it, check it, write its page, keep what is lean.

Many records are shared out among plain subprocesses, each a Python of its own that reads a file of
jobs and leaves a file of what it did: this works from any script or notebook.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lthbench.io.paths import canonical_json, digest
from lthbench.leaderboard.board.entries import Entry
from lthbench.leaderboard.board.ledger import NOTHING, Ledger, Standing
from lthbench.leaderboard.board.standings import published
from lthbench.leaderboard.citation import cite
from lthbench.leaderboard.site import record_cache
from lthbench.leaderboard.site.labels import lines
from lthbench.leaderboard.site.pages import entry as entry_page
from lthbench.leaderboard.site.record_cache import Source
from lthbench.leaderboard.site.render import Page, render
from lthbench.leaderboard.site.staging import write_loose

ALONE = 12  # records that are done sooner than another process has begun
PROCESSES = 8


@dataclass(frozen=True)
class Job:
    """One record to go through.

    Attributes:
        checked: whether its aggregates were computed again before, by the same code.
        page, copy: where the entry's page and the record's copy go in the site; "" for neither.
        baseline: the digest of the shipped baseline of the method's name; "" if there is none.
        sizes: weights of each prunable tensor of the task.
        compares: whether the task has a page that compares two entries.
        alike: what is said of the masks that it shares with earlier entries, and whether they are
            the same tickets.
    """

    folder: str
    staging: str
    path: str
    raw: str
    standing: Mapping[str, Any] | None
    lines: Sequence[Mapping[str, Any]]
    checked: bool
    page: str = ""
    copy: str = ""
    baseline: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)
    compares: bool = False
    alike: Sequence[tuple[str, bool]] = ()

    @property
    def source(self) -> Source:
        """The record's file as the board knows it."""
        standing = {self.raw: Standing(**self.standing)} if self.standing else {}
        ledger = Ledger((), NOTHING, standing)
        return Source(Path(self.path), self.raw, ledger, tuple(self.lines))


@dataclass(frozen=True)
class Done:
    """What became of it: what is kept, as JSON; sha256 and size of each file that was written."""

    raw: str
    kept: str | None
    files: Mapping[str, tuple[str, int]]


def do(job: Job) -> Done:
    """Go through one record."""
    entry = record_cache.whole(Path(job.folder), job.source, checked=job.checked)
    files: dict[str, tuple[str, int]] = {}
    if job.copy:
        files[job.copy] = _write(job, job.copy, Path(job.path).read_bytes())
    if job.page:
        files[job.page] = _write(job, job.page, rendered(entry, job))
    return Done(job.raw, None if job.checked else packed(entry), files)


def _write(job: Job, path: str, data: bytes) -> tuple[str, int]:
    write_loose(Path(job.staging) / path, data)
    return digest(data), len(data)


def kept(entry: Entry) -> dict[str, Any]:
    """What the site's other pages need of a record; of more seeds than the published, both."""
    record = entry.record
    extra = bool(set(record.seeds) - set(record.task.published))
    return {
        "lean": record_cache.lean(record),
        "published": record_cache.lean_aggregates(published(record)) if extra else None,
    }


def packed(entry: Entry) -> str:
    """The same as JSON, one line."""
    return canonical_json(kept(entry)).decode().rstrip()


def rendered(entry: Entry, job: Job) -> bytes:
    """The entry's page."""
    record = entry.record
    cited = {form: lines(cite.of_entry(entry, form)) for form in ("bibtex", "cff")}
    found = entry_page.page(entry, job.baseline, job.sizes, cited, job.alike)
    page = Page(
        f"entries/{record.task.name}/{entry.id}.html",
        f"{found['method']} on {found['task']} ({entry.digest[:8]}): lthbench leaderboard",
        f"{found['answers'][0].name} {found['answers'][0].value}: the lottery-ticket method "
        f"{found['method']} on {found['task']}, every cell, curve and control.",
        charts=True,
    )
    stands = entry.state in ("accepted", "listed")
    return render("entry.html.j2", page, **found, compare=job.compares and stands)


# Sharing out


def over(jobs: Sequence[Job], scratch: Path) -> Iterator[Done]:
    """Go through records, in several processes where they are many.

    Args:
        scratch: a folder for the files between the processes.
    """
    shares = min(_cores(), PROCESSES, len(jobs) // ALONE)
    if shares < 2:
        yield from map(do, jobs)
        return
    chunks = [jobs[place::shares] for place in range(shares)]
    workers = [_started(chunk, scratch / str(n)) for n, chunk in enumerate(chunks[1:])]
    try:
        yield from map(do, chunks[0])
        for place, (worker, chunk) in enumerate(zip(workers, chunks[1:], strict=True)):
            found = _heard(worker, scratch / str(place))
            # A share that failed is done again here, where its error can be told.
            yield from map(do, chunk) if found is None else found
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _started(chunk: Sequence[Job], scratch: Path) -> subprocess.Popen[bytes]:
    write_loose(scratch / "jobs.json", canonical_json([asdict(job) for job in chunk]))
    # -P: what lies in the working folder is never imported.
    command = [sys.executable, "-P", "-m", "lthbench.leaderboard.site.parallel", str(scratch)]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)


def _heard(worker: subprocess.Popen[bytes], scratch: Path) -> list[Done] | None:
    if worker.wait():
        return None
    return [Done(**row) for row in json.loads((scratch / "done.json").read_bytes())]


def main(scratch: Path) -> None:
    """What a worker does: jobs from a file, what became of them to another."""
    rows = json.loads((scratch / "jobs.json").read_bytes())
    done = [asdict(do(Job(**row))) for row in rows]
    write_loose(scratch / "done.json", canonical_json(done))


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
