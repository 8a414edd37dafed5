"""Level 2: random cells are retrained from (seed, masks) and compared with the record.

The draw is a hash of the bundle and of a value published after it, so nobody can know before a
submission which cells will be drawn. No code of the submission runs: tickets are data, and their
training is the harness's own, in a fresh process with an empty cache (`retrain_worker`).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from lthbench.errors import ResourceError
from lthbench.evaluation.machine import environment
from lthbench.io.paths import cache, canonical_json
from lthbench.leaderboard.board.criteria import Again, Judged, alike, floors, judge
from lthbench.leaderboard.board.sampling import Drawn, candidates, draw, place
from lthbench.leaderboard.bundle.archive import Bundle
from lthbench.leaderboard.verification.result import Finding, Say, quiet
from lthbench.leaderboard.verification.retrain_worker import Request
from lthbench.protocol import datasets
from lthbench.protocol.task import Task
from lthbench.records.reference import Reference
from lthbench.records.schema import Carried, Cell, Record
from lthbench.training.dispatch import HERE, VERSIONS, engine_for


def check(
    bundle: Bundle,
    task: Task,
    record: Record,
    reference: Reference | None,
    count: int,
    beacon: str,
    workers: int | None,
    say: Say = quiet,
) -> tuple[list[Finding], Judged]:
    """Draw cells, retrain them, and judge.

    Returns:
        The verdict, and an informational finding for each cell whose bits differ although the claim
        was made on a machine like this one.

    Raises:
        RecordError: If there is no noise floor.
        ResourceError: If the training does not finish.
    """
    known = floors(task, reference)
    chosen = draw(candidates(record, reference), bundle.sha256, beacon, count)
    again = trained_again(bundle, task, chosen, workers, say)
    judged = judge(record, list(zip(chosen, again, strict=True)), known)
    own = environment() | {"engine": VERSIONS[engine_for(HERE, task.network)]}
    like = [row for row in judged.cells if alike(record.environment_of(row.seed), own)]
    told = (
        f"{len(like)} of {len(judged.cells)} cells are of this class of processor and versions, "
        f"{sum(row.equal for row in like)} of them equal bit for bit; {judged.what}"
    )
    findings = [Finding(task.name, 2, judged.ok, told)]
    for row in like:
        if not row.equal:
            what = _unequal(row, record.environment_of(row.seed), own)
            findings.append(Finding(task.name, 2, None, what))
    return findings, judged


def _unequal(row: Again, claimed: Mapping[str, str], own: Mapping[str, str]) -> str:
    """Describe a cell that should have matched its claim bit for bit, and both machines in full."""
    one, other = (
        ", ".join(f"{name} {value}" for name, value in sorted(machine.items()))
        for machine in (claimed, own)
    )
    return (
        f"seed {row.seed} {row.kind} at density {row.density:.4g}, schedule 1/{row.schedule}: not "
        f"equal bit for bit on one class of machine: claimed on {one}; trained again on {other}"
    )


def trained_again(
    bundle: Bundle, task: Task, cells: Sequence[Drawn], workers: int | None, say: Say = quiet
) -> list[Drawn]:
    """Retrain cells in a fresh process, from the bundle alone.

    Its cache is empty except for the data, which are prepared here.
    """
    datasets.prepare(task, download=False)
    with tempfile.TemporaryDirectory(prefix="lthbench-verify-") as place:
        folder = Path(place)
        (folder / "cache").mkdir()
        if (prepared := cache() / "data").is_dir():
            (folder / "cache" / "data").symlink_to(prepared, target_is_directory=True)
        asked = request(bundle, task, cells, workers)
        (folder / "request.json").write_bytes(canonical_json(asked.model_dump(mode="json")))
        status, heard = _run(folder, say, f"{task.name}: {{}} of {len(cells)} cells trained again")
        if status:
            said = (heard.strip().splitlines() or ["it said nothing"])[-1][:200]
            raise ResourceError(f"{task.name}: training again ended early ({said})")
        table = json.loads((folder / "answer.json").read_bytes())
    return [(Carried if "depth" in cell else Cell).model_validate(cell) for cell in table]


def _run(folder: Path, say: Say, words: str) -> tuple[int, str]:
    """Run the fresh process, relaying its progress; return its status and its errors."""
    with (
        (folder / "errors").open("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "lthbench.leaderboard.verification.retrain_worker",
                str(folder),
            ],
            env=os.environ | {"LTHBENCH_CACHE": str(folder / "cache")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        assert process.stdout
        try:
            for line in process.stdout:
                say(words.format(line.strip()))
        except BaseException:
            process.kill()
            raise
        status = process.wait()
        errors.seek(0)
        return status, errors.read()


def request(bundle: Bundle, task: Task, cells: Sequence[Drawn], workers: int | None) -> Request:
    """Return the request to the fresh process, which contains no claims of the record."""
    return Request(
        bundle=bundle.path.resolve(),
        sha256=bundle.sha256,
        task=task.model_copy(update={"calibration": None}),
        cells=tuple(place(cell) for cell in cells),
        workers=workers,
    )
