"""The processing of one record: read it, check it, write its page, keep the lean part.

Many records are distributed among plain subprocesses, each a separate Python that reads a file of
jobs and writes a file of results. This works from any script or notebook.
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
from lthbench.records.scores import tabulate

ALONE = 12  # records that are processed faster than another process starts
PROCESSES = 8


@dataclass(frozen=True)
class Job:
    """One record to process.

    Attributes:
        checked: Whether its aggregates have already been recomputed by the same code.
        page: Path of the entry's page in the site; "" for none.
        copy: Path of the record's copy in the site; "" for none.
        baseline: The digest of the shipped baseline with the method's name; "" if there is none.
        sizes: Weights of each prunable tensor of the task.
        compares: Whether the task has a page that compares two entries.
        alike: Statements on masks shared with earlier entries, and whether they are the same
            tickets.
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
    """The result: the kept part as JSON; sha256 and size of each written file."""

    raw: str
    kept: str | None
    files: Mapping[str, tuple[str, int]]


def do(job: Job) -> Done:
    """Process one record."""
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
    """Return what other pages need of a record, also for published seeds if it has more."""
    record = entry.record
    extra = bool(set(record.seeds) - set(record.task.published))
    found = published(record) if extra else None
    return {"lean": record_cache.lean(record), "published": found and tabulate(found)}


def packed(entry: Entry) -> str:
    """Return the kept part as one line of JSON."""
    return canonical_json(kept(entry)).decode().rstrip()


def rendered(entry: Entry, job: Job) -> bytes:
    """Render the entry's page."""
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


# Distribution


def over(jobs: Sequence[Job], scratch: Path) -> Iterator[Done]:
    """Process records, in several processes if there are many.

    Args:
        jobs: The records to process.
        scratch: A folder for the files exchanged between processes.
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
            # A share that failed is repeated here, where its error can be reported.
            yield from map(do, chunk) if found is None else found
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _started(chunk: Sequence[Job], scratch: Path) -> subprocess.Popen[bytes]:
    write_loose(scratch / "jobs.json", canonical_json([asdict(job) for job in chunk]))
    # -P: never import from the working folder.
    command = [sys.executable, "-P", "-m", "lthbench.leaderboard.site.parallel", str(scratch)]
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)


def _heard(worker: subprocess.Popen[bytes], scratch: Path) -> list[Done] | None:
    if worker.wait():
        return None
    return [Done(**row) for row in json.loads((scratch / "done.json").read_bytes())]


def main(scratch: Path) -> None:
    """Run a worker: read jobs from one file, write results to another."""
    rows = json.loads((scratch / "jobs.json").read_bytes())
    done = [asdict(do(Job(**row))) for row in rows]
    write_loose(scratch / "done.json", canonical_json(done))


def _cores() -> int:
    """Return the number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


if __name__ == "__main__":
    main(Path(sys.argv[1]))
