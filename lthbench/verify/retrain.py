"""Level 2: cells drawn by lot are trained again from (seed, masks) and compared with the record.

The lot is a hash of the bundle and of a value published after it, so that nobody knows before a
submission which cells will be drawn. No code of the submission runs: tickets are data, and their
training is the harness's own, in a fresh process with an empty cache (`lthbench.verify.again`).
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lthbench import data as data_module
from lthbench import scores
from lthbench.bundle import Bundle
from lthbench.errors import RecordError, ResourceError
from lthbench.paths import cache, canonical_json, digest
from lthbench.record import Cell, Record
from lthbench.reference import Reference
from lthbench.task import Task
from lthbench.verify.found import Finding, Say, quiet

CONTROLS = ("shuffled", "reinit", "random", "erk", "untrained_random")
TICKETS = ("ticket", "untrained")
OWN_WEIGHTS = ("transferred", "final", "free")  # a bundle does not hold what they prune
SPREAD = 1.41  # of a difference of two counts that have one spread
SUM_LIMIT, ONE_LIMIT = 3.0, 5.0
P_LIMIT = 0.01
ONE_EXAMPLE = 1.0  # the least floor


@dataclass(frozen=True)
class Again:
    """A cell that was trained again: counts at T (means of the last ones at a constant rate).

    Attributes:
        z: in standard deviations of a difference; None where 0 or 1 is compared.
    """

    kind: str
    density: float
    seed: int
    claimed: float
    retrained: float
    z: float | None


@dataclass(frozen=True)
class Judged:
    """The outcome: what was tested, and whether the record holds."""

    ok: bool
    what: str
    statistic: float
    cells: tuple[Again, ...]


def candidates(record: Record) -> list[Cell]:
    """The cells that may be drawn: all that a bundle is enough to train again.

    Dense cells are the frozen reference's. Of a shuffled ticket with weights of its own the bundle
    does not hold the weights that its control keeps.
    """
    return [
        cell
        for cell in record.cells
        if cell.kind in (*TICKETS, *CONTROLS)
        and cell.schedule == 1
        and cell.status == "ok"
        and not (cell.kind == "shuffled" and cell.origin in OWN_WEIGHTS)
    ]


def drawn(cells: Sequence[Cell], count: int, bundle: str, beacon: str) -> list[Cell]:
    """As many cells as asked for, a quarter of them controls, by lot.

    A cell's lot is sha256 of bundle, beacon and its own place, and the lowest are drawn: tickets
    for three quarters, for they make the score, and controls for the rest. Where there are too few
    of the one, the others take their places.
    """
    ranked = sorted(cells, key=lambda cell: lot(bundle, beacon, cell))
    tickets = [cell for cell in ranked if cell.kind in TICKETS]
    controls = [cell for cell in ranked if cell.kind in CONTROLS]
    quarter = math.ceil(count / 4)
    kept = max(quarter, count - len(tickets))
    chosen = controls[:kept]
    chosen += tickets[: count - len(chosen)]
    return sorted(chosen, key=lambda cell: (cell.seed, -cell.density, cell.kind))


def lot(bundle: str, beacon: str, cell: Cell) -> str:
    """What decides whether a cell is drawn."""
    return digest(canonical_json([bundle, beacon, cell.kind, cell.density, cell.seed]))


def floors(task: Task, reference: Reference | None) -> Mapping[float, float] | None:
    """By density, the standard deviation of a count by noise alone; None for generalisation.

    Raises:
        RecordError: where no floor was measured.
    """
    if task.score.kind == "generalisation":
        return None
    if reference is None or reference.noise is None or "test" not in reference.noise:
        raise RecordError(
            f"{task.name}: the reference has no noise floor; measure it with python -m "
            "lthbench.noise OUT, then python -m lthbench.reference OUT"
        )
    return dict(zip(task.ladder.trained, reference.noise["test"], strict=True))


def floor_at(known: Mapping[float, float], kind: str, density: float) -> float:
    """The floor of a cell: that of the nearest rung, by ratio; one example where none is trained.

    The rungs of untrained tickets are not the ladder's own, so the nearest stands for them.
    """
    if kind in scores.UNTRAINED:
        return ONE_EXAMPLE
    rung = min(known, key=lambda at: abs(math.log(at / density)))
    return max(ONE_EXAMPLE, known[rung])


def judge(
    record: Record, pairs: Sequence[tuple[Cell, Cell]], known: Mapping[float, float] | None
) -> Judged:
    """Compare claimed cells with their new trainings.

    Args:
        known: floors by density; None for a task whose runs generalise or do not.
    """
    counted = [pair for pair in pairs if known is not None or pair[0].kind in scores.UNTRAINED]
    shared = [pair for pair in pairs if pair not in counted]
    by_count = _by_count(record, counted, known or {}) if counted else None
    by_share = _by_share(record, shared) if shared else None
    judged = [one for one in (by_count, by_share) if one is not None]
    if not judged:
        return Judged(False, "no cell can be trained again", 0.0, ())
    return Judged(
        all(one.ok for one in judged),
        "; ".join(one.what for one in judged),
        judged[0].statistic,
        tuple(row for one in judged for row in one.cells),
    )


def _by_count(
    record: Record, pairs: Sequence[tuple[Cell, Cell]], known: Mapping[float, float]
) -> Judged:
    """Differences of counts, in standard deviations of what noise alone makes of them."""
    rows, zs = [], []
    for cell, again in pairs:
        size = record.sizes[str(cell.seed)]["test"]
        claimed, retrained = (size * _score(record, one) for one in (cell, again))
        z = (claimed - retrained) / (SPREAD * floor_at(known, cell.kind, cell.density))
        zs.append(z)
        rows.append(_row(cell, claimed, retrained, z))
    statistic, largest = sum(zs) / math.sqrt(len(zs)), max(map(abs, zs))
    what = (
        f"{len(zs)} cells trained again: sum(z)/sqrt(m) {statistic:.2f} (at most {SUM_LIMIT:g}), "
        f"largest |z| {largest:.2f} (at most {ONE_LIMIT:g})"
    )
    return Judged(statistic <= SUM_LIMIT and largest <= ONE_LIMIT, what, statistic, tuple(rows))


def _by_share(record: Record, pairs: Sequence[tuple[Cell, Cell]]) -> Judged:
    """How many generalised as claimed, and now."""
    both = [(_score(record, cell), _score(record, again)) for cell, again in pairs]
    claimed, retrained = (round(sum(share[i] for share in both)) for i in (0, 1))
    p = fisher(claimed, retrained, len(both))
    what = (
        f"{len(both)} cells trained again: {claimed} generalised as claimed, {retrained} now "
        f"(Fisher's exact p {p:.3g}, refused below {P_LIMIT:g})"
    )
    rows = [_row(cell, *scored, None) for (cell, _), scored in zip(pairs, both, strict=True)]
    return Judged(p >= P_LIMIT, what, p, tuple(rows))


def _score(record: Record, cell: Cell) -> float:
    """On the test split: the accuracy at T, or 1 for a run that generalised."""
    return scores.score_of(record.model_dump(mode="json"), cell.model_dump(mode="json"), "test")


def _row(cell: Cell, claimed: float, retrained: float, z: float | None) -> Again:
    return Again(cell.kind, cell.density, cell.seed, round(claimed, 6), round(retrained, 6), z)


def fisher(ours: int, theirs: int, each: int) -> float:
    """One-sided exact p of so many successes or more, against theirs, of `each` on both sides."""
    both, ways = ours + theirs, math.comb(2 * each, ours + theirs)
    upper = min(both, each)
    tail = sum(math.comb(each, k) * math.comb(each, both - k) for k in range(ours, upper + 1))
    return tail / ways


def check(
    bundle: Bundle,
    task: Task,
    record: Record,
    reference: Reference | None,
    count: int,
    beacon: str,
    workers: int | None,
    say: Say = quiet,
) -> tuple[Finding, Judged]:
    """Draw, train again, judge.

    Raises:
        RecordError: without a noise floor.
        ResourceError: if the trainings do not end.
    """
    known = floors(task, reference)
    chosen = drawn(candidates(record), count, bundle.sha256, beacon)
    if not any(cell.kind in TICKETS for cell in chosen):
        judged = Judged(False, "no ticket can be trained again", 0.0, ())
    else:
        again = trained_again(bundle, task, chosen, workers, say)
        pairs = list(zip(chosen, again, strict=True))
        judged = judge(record, pairs, known)
    return Finding(task.name, 2, judged.ok, judged.what), judged


def trained_again(
    bundle: Bundle, task: Task, cells: Sequence[Cell], workers: int | None, say: Say = quiet
) -> list[Cell]:
    """The same cells as a fresh process trains them, from the bundle alone.

    Its cache is empty but for the data, which are prepared here.
    """
    data_module.prepare(task, download=False)
    with tempfile.TemporaryDirectory(prefix="lthbench-verify-") as place:
        folder = Path(place)
        (folder / "cache").mkdir()
        if (prepared := cache() / "data").is_dir():
            (folder / "cache" / "data").symlink_to(prepared, target_is_directory=True)
        asked = canonical_json(request(bundle, task, cells, workers))
        (folder / "request.json").write_bytes(asked)
        status, heard = _run(folder, say, f"{task.name}: {{}} of {len(cells)} cells trained again")
        if status:
            said = (heard.strip().splitlines() or ["it said nothing"])[-1][:200]
            raise ResourceError(f"{task.name}: training again ended early ({said})")
        table = json.loads((folder / "answer.json").read_bytes())
    return [Cell.model_validate(cell) for cell in table]


def _run(folder: Path, say: Say, words: str) -> tuple[int, str]:
    """The fresh process: it prints how many cells are done; returns its status and its errors."""
    with (
        (folder / "errors").open("w+", encoding="utf-8", errors="replace") as errors,
        subprocess.Popen(
            [sys.executable, "-P", "-m", "lthbench.verify.again", str(folder)],
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


def request(
    bundle: Bundle, task: Task, cells: Sequence[Cell], workers: int | None
) -> dict[str, Any]:
    """What the fresh process is told: no claim of the record is in it."""
    return {
        "bundle": str(bundle.path.resolve()),
        "sha256": bundle.sha256,
        "task": task.model_dump(mode="json", exclude={"calibration"}),
        "cells": [[cell.kind, cell.density, cell.seed, cell.attempt] for cell in cells],
        "workers": workers,
    }


def report(judged: Judged) -> dict[str, Any]:
    """What the ledger holds of it."""
    cells = [asdict(cell) for cell in judged.cells]
    return {"ok": judged.ok, "cells": cells, "statistic": judged.statistic, "what": judged.what}
