"""How often level 2 refuses what is honest and passes what is forged: `python -m tests.level2`.

Two simulations over records of the leaderboard whose reference has noise floors, each of 10,000
draws. *Honest*: every cell was made on another machine, which moves its score as the floor says;
the floor itself is estimated from ten trainings. *Forged*: besides, a fifth of the tickets, by lot,
claim half of what separates them from random masks (ERK) of the same rung. Of scores on the test
split alone: curves and held-out counts can only make the rule stricter.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lthbench.io.paths import shipped
from lthbench.leaderboard.board import criteria, sampling
from lthbench.protocol.task import load_task
from lthbench.records.reference import FLOOR_DRAWS, Reference, load_reference
from lthbench.records.runs import score_of
from lthbench.records.schema import Record, read_record

LOTS, WORLDS = 20, 500  # draws of cells, and simulations of each
Floats = NDArray[np.float64]


def simulate(record: Record, reference: Reference, dice: np.random.Generator) -> Floats:
    """The shares of honest records that are refused and of forged ones that pass."""
    task = load_task(record.task.name)
    known = criteria.floors(task, reference)
    cells = sampling.candidates(record, reference)
    found = []
    for lot in range(LOTS):
        chosen = sampling.draw(cells, "b" * 64, f"{lot:064x}")
        rows = [criteria._row(record, cell, cell, known) for cell in chosen]
        allowed, parts = criteria.limits(rows)[:, None], criteria._parts(rows)
        makes = parts == 0
        unit = np.array(
            [criteria._floor(record, c, known["test"], "test")[0].score for c in chosen]
        )
        tickets = [c for c in chosen if sampling.part_of(c.kind, c.schedule) == 0]
        tickets += [
            c for c in cells if sampling.part_of(c.kind, c.schedule) == 0 and c not in tickets
        ]
        gain = np.array([_gain(record, cell.density) for cell in tickets])
        raised = np.zeros((WORLDS, len(rows)))
        raised[:, makes] = _forged(gain, dice)[:, : makes.sum()] / (criteria.SPREAD * unit[makes])
        ended = []
        for claims in (np.zeros(raised.shape), raised):
            z = _noise(rows, dice)
            z[..., 0] += claims
            found_here = criteria.statistics_of(z / _spread(rows, dice), parts)
            ended.append((found_here > allowed).any(axis=0))
        found.append([ended[0].mean(), 1 - ended[1].mean()])
    return np.asarray(np.mean(found, axis=0))


def _forged(gain: Floats, dice: np.random.Generator) -> Floats:
    """What each ticket's claim is raised by: a fifth of them, by lot among those with a gain."""
    order = np.argsort(dice.random((WORLDS, len(gain))) + (gain <= 0), axis=1)
    return np.where(np.argsort(order, axis=1) < math.ceil(sampling.SHARE * len(gain)), gain, 0.0)


def _noise(rows: Sequence[criteria.Again], dice: np.random.Generator) -> Floats:
    """Differences of another machine in true standard deviations; NaN where no score is known."""
    known = np.isfinite([criteria._tested(row) for row in rows])
    z = dice.standard_normal((WORLDS, len(rows), len(criteria.SETS)))
    return np.where(known, z, np.nan)


def _spread(rows: Sequence[criteria.Again], dice: np.random.Generator) -> Floats:
    """Estimated over true floors: one estimate a rung and set, none of the least floor."""
    free = FLOOR_DRAWS - 1
    rungs = list({row.rung: None for row in rows})
    shape = WORLDS, len(rungs), len(criteria.SETS)
    spread = np.sqrt(dice.chisquare(free, shape) / free)
    spread[:, [at for at, rung in enumerate(rungs) if not rung]] = 1.0
    return np.asarray(spread[:, [rungs.index(row.rung) for row in rows]])


def _gain(record: Record, density: float) -> float:
    """Half of what separates a rung's tickets from ERK's (of the nearest rung that has them), in
    the floor's unit."""
    means = {}
    for kind in ("ticket", "erk"):
        of = [cell for cell in record.cells if (cell.kind, cell.schedule) == (kind, 1)]
        rung = min({cell.density for cell in of}, key=lambda at: abs(math.log(at / density)))
        mine = [cell for cell in of if cell.density == rung]
        values = [score_of(record, c, "test") for c in mine]
        means[kind] = float(np.mean(values)) * criteria._unit(record, mine[0], "test")
    return max(0.0, means["ticket"] - means["erk"]) / 2


def records(paths: Sequence[Path]) -> Iterator[tuple[Path, Record, Reference]]:
    """Final records whose task has floors."""
    for path in paths or sorted((shipped("leaderboard") / "records").glob("*/*.json")):
        record = read_record(path)
        reference = load_reference(load_task(record.task.name))
        if reference is not None and reference.noise is not None:
            yield path, record, reference


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both shares for each record."""
    parser = argparse.ArgumentParser(prog="python -m tests.level2", description=__doc__)
    parser.add_argument("record", type=Path, nargs="*", help="[all of the leaderboard's]")
    options = parser.parse_args(arguments)
    dice = np.random.default_rng(0)
    for path, record, reference in records(options.record):
        refused, passed = simulate(record, reference, dice)
        name = f"{record.task.name} {record.method.name}"
        print(f"{name}: honest refused {refused:.2%}, forged passed {passed:.2%} ({path.name})")


if __name__ == "__main__":
    main()
