"""Parallel checks of many files: each process is a separate Python that reads a list of paths.

Plain subprocesses suffice, since only paths and findings are exchanged, and they work from any
script or notebook.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from lthbench.leaderboard.validation.files import Finding, check_file, read_file

What = Literal["rules", "aggregates"]

ALONE = 24  # files that are checked faster than another process starts
PROCESSES = 8


def findings(files: Sequence[Path], what: What = "rules") -> list[Finding]:
    """Return the finding for each file, in order.

    Args:
        files: The files to check.
        what: "rules" for all of level 0; "aggregates" for only reading a record and checking its
            aggregates.
    """
    shares = min(_cores(), PROCESSES, -(-len(files) // ALONE))
    if shares <= 1:
        return _here(files, what)
    return _gathered([files[n::shares] for n in range(shares)], what)


def _here(files: Sequence[Path], what: What) -> list[Finding]:
    check = check_file if what == "rules" else read_file
    return [check(file) for file in files]


def _gathered(chunks: Sequence[Sequence[Path]], what: What) -> list[Finding]:
    """Check the first share in this process while other processes check theirs."""
    workers = [_started(chunk, what) for chunk in chunks[1:]]
    try:
        found = [_here(chunks[0], what)]
        for worker, chunk in zip(workers, chunks[1:], strict=True):
            found.append(_heard(worker) or _here(chunk, what))
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
            worker.stdout.close()  # type: ignore[union-attr]
    ordered: list[Finding] = []
    for place in range(len(chunks[0])):
        ordered += [share[place] for share in found if place < len(share)]
    return ordered


def _started(chunk: Sequence[Path], what: What) -> subprocess.Popen[bytes]:
    # -P: never import from the working folder, which may be a submission's.
    command = [sys.executable, "-P", "-m", "lthbench.leaderboard.validation", what]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdin
    with suppress(OSError):  # a worker that could not start returns nothing
        worker.stdin.write(json.dumps([os.fsencode(p).hex() for p in chunk]).encode())
        worker.stdin.close()
    worker.stdin = None
    return worker


def _heard(worker: subprocess.Popen[bytes]) -> list[Finding]:
    """Return a worker's findings; empty if it failed, so that this process repeats its share."""
    assert worker.stdout
    output = worker.stdout.read()
    return [] if worker.wait() else [Finding(**row) for row in json.loads(output)]


def work() -> None:
    """Run a worker: read paths from standard input, write findings to standard output."""
    files = [Path(os.fsdecode(bytes.fromhex(name))) for name in json.loads(sys.stdin.buffer.read())]
    what: What = "rules" if sys.argv[1] == "rules" else "aggregates"
    rows = [vars(finding) for finding in _here(files, what)]
    sys.stdout.write(json.dumps(rows))


def _cores() -> int:
    """Return the number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
