"""Looks at many files in several processes: each is a Python of its own that reads a list of paths.

Plain subprocesses, for nothing but paths and findings passes between them, and they work from any
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

from lthbench.leaderboard.validation import validate
from lthbench.leaderboard.validation.validate import Finding

What = Literal["rules", "aggregates"]

ALONE = 24  # files that are looked at sooner than another process has begun
PROCESSES = 8


def findings(files: Sequence[Path], what: What = "rules") -> list[Finding]:
    """What is found of each file, in their order.

    Args:
        what: "rules", all of level 0; "aggregates", of a record that is read, no rule but these.
    """
    shares = min(_cores(), PROCESSES, -(-len(files) // ALONE))
    if shares <= 1:
        return _here(files, what)
    return _gathered([files[n::shares] for n in range(shares)], what)


def _here(files: Sequence[Path], what: What) -> list[Finding]:
    check = validate.check_file if what == "rules" else validate.read_file
    return [check(file) for file in files]


def _gathered(chunks: Sequence[Sequence[Path]], what: What) -> list[Finding]:
    """The first share in this process while others look at theirs."""
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
    # -P: what lies in the working folder, which may be a submission's, is never imported.
    command = [sys.executable, "-P", "-m", "lthbench.leaderboard.validation.validate", what]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert worker.stdin
    with suppress(OSError):  # one that could not begin is heard to say nothing
        worker.stdin.write(json.dumps([os.fsencode(p).hex() for p in chunk]).encode())
        worker.stdin.close()
    worker.stdin = None
    return worker


def _heard(worker: subprocess.Popen[bytes]) -> list[Finding]:
    """What a worker found; nothing if it could not work, so that this process does it again."""
    assert worker.stdout
    output = worker.stdout.read()
    return [] if worker.wait() else [Finding(**row) for row in json.loads(output)]


def work() -> None:
    """What a worker does: paths from its input, findings to its output."""
    files = [Path(os.fsdecode(bytes.fromhex(name))) for name in json.loads(sys.stdin.buffer.read())]
    what: What = "rules" if sys.argv[1] == "rules" else "aggregates"
    rows = [vars(finding) for finding in _here(files, what)]
    sys.stdout.write(json.dumps(rows))


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
