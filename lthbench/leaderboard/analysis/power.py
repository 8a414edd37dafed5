"""Statistical power of records: how many pairs of methods are separable, at how many seeds.

A parametric bootstrap (protocol, section 10.3). The unit is the seed: on each task a method's
values are its mean in the records plus a residual, and the residuals of all methods on one seed
form one Gaussian vector with the covariance observed in the records, since methods are paired by
seed. Data for n seeds are n such vectors per task, and go through the test of the boards: step-down
max-T over sign flips of (task, seed) units at .05. The estimated means are taken as true, so pairs
that only noise separates count slightly too much.

With n units there are 2^(n-1) distinct flips, so below eight units almost nothing can reach .05 by
sign flips. There, Holm's step-down over paired t statistics (Welch-Satterthwaite over several
tasks) is used, which is valid under any covariance. A max-T whose null is bootstrapped from the few
seeds themselves is not: with ten equal methods it finds a difference in 11 % of trials at three
seeds, and in 6 to 10 % at five, because residuals of so few seeds span too few dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lthbench import seeds as streams
from lthbench.errors import RecordError, UsageError
from lthbench.leaderboard.board import entries, ranks
from lthbench.leaderboard.board.entries import State
from lthbench.leaderboard.board.standings import Standing, published, standings
from lthbench.protocol.task import load_suite, load_task
from lthbench.records import intervals
from lthbench.records.schema import Record, read_record
from lthbench.records.scores import Scores
from lthbench.report import formats, terminal
from lthbench.report.table import Table, grid, stacked

FloatArray = NDArray[np.float64]
SEEDS = (3, 5, 10)  # numbers of seeds considered
DIFFERENCES = (0.05, 0.1, 0.2)  # of retention
WANTED = 0.8  # probability of detecting one
LEAST_FLIPPED = 8  # units from which sign flips are used
SIMULATED, LEAST = 200, 20  # draws of a whole board, and the minimum with many pairs
ALL_PAIRS = 4_500  # of all draws together, above the minimum
FLIPS = 1_999  # per draw, where not all are enumerated
DRAWN = 1_000  # draws for estimating the seeds that a difference requires
MOST = 100  # largest number of seeds tried
MANY = 40  # methods above which nothing is reported, since pairs grow quadratically
TINY = float(np.finfo(np.float64).tiny)


@dataclass(frozen=True)
class Run:
    """One method's headline on one task.

    Attributes:
        what: "retention", or "above erk", which is ticket - erk in points.
        values: One value per seed, by seed.
        own: Number of published seeds of the task.
    """

    task: str
    method: str
    what: str
    values: Mapping[int, float]
    own: int


@dataclass(frozen=True)
class Power:
    """What one task, or a suite's tasks together, can resolve.

    Attributes:
        name: Name of the task or the suite.
        what: The compared quantity: "retention" or "above erk".
        tasks: Tasks that count.
        methods: Methods with values on each of them.
        seeds: Seeds in the records that these methods share, for each task.
        pairs: Number of pairs of methods.
        apart: Pairs that the records themselves separate.
        expected: Pairs separated on average, by the number of seeds of each task.
        own: The same at each task's number of published seeds.
        needed: By difference of retention, the seeds of each task at which the average pair
            is detected with probability .8; None: more than 100. Empty for other headlines.
    """

    name: str
    what: str
    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    pairs: int
    apart: int
    expected: Mapping[int, float]
    own: float
    needed: Mapping[float, int | None]


def power(name: str, runs: Sequence[Run]) -> Power | None:
    """Estimate what the methods' values on one or several tasks can resolve.

    Args:
        name: Name of the task or the suite, which also names the random stream.
        runs: One run for each task and method, all of one headline; methods missing from a task are
            left out.

    Returns:
        The power; None with fewer than two or more than 40 methods, or with fewer than three seeds
        in common.
    """
    tasks = tuple(dict.fromkeys(run.task for run in runs))
    there = {(run.task, run.method): run for run in runs}
    methods = tuple(
        method
        for method in dict.fromkeys(run.method for run in runs)
        if all((task, method) in there for task in tasks)
    )
    if not 2 <= len(methods) <= MANY:
        return None
    known = [_values([there[task, method] for method in methods]) for task in tasks]
    if min(values.shape[1] for values in known) < intervals.MIN_SEEDS:
        return None
    own = [there[task, methods[0]].own for task in tasks]
    worlds = [World.of(values) for values in known]
    what = runs[0].what
    return Power(
        name=name,
        what=what,
        tasks=tasks,
        methods=methods,
        seeds=tuple(values.shape[1] for values in known),
        pairs=len(methods) * (len(methods) - 1) // 2,
        apart=int(apart(known).sum()),
        expected={n: _expected(name, worlds, [n] * len(tasks)) for n in SEEDS},
        own=_expected(name, worlds, own),
        needed={d: needed(name, worlds, d) for d in DIFFERENCES} if what == "retention" else {},
    )


def _values(runs: Sequence[Run]) -> FloatArray:
    """Return values (methods, seeds) on the seeds that all have."""
    shared = sorted(set.intersection(*(set(run.values) for run in runs)))
    return np.array([[run.values[seed] for seed in shared] for run in runs], dtype=np.float64)


@dataclass(frozen=True)
class World:
    """One task as estimated from the records.

    Holds means (methods,) and residuals (seeds, methods) divided by the root of seeds - 1, whose
    products are the covariance.
    """

    means: FloatArray
    residuals: FloatArray

    @classmethod
    def of(cls, values: FloatArray) -> World:
        """Estimate a world from values (methods, seeds)."""
        means = values.mean(axis=1)
        return cls(means, (values - means[:, None]).T / np.sqrt(values.shape[1] - 1))

    def draw(self, generator: np.random.Generator, draws: int, count: int) -> FloatArray:
        """Draw residuals (draws, methods, count) of `count` new seeds."""
        normal = generator.standard_normal((draws, count, len(self.residuals)))
        return np.swapaxes(normal @ self.residuals, 1, 2)


# The test


def apart(tasks: Sequence[FloatArray]) -> NDArray[np.bool_]:
    """Test which pairs of methods differ at .05, adjusted for all pairs, in order of triu_indices.

    Args:
        tasks: Values (methods, seeds) of each task, for the same methods.
    """
    sizes = tuple(values.shape[1] for values in tasks)
    if sum(sizes) >= LEAST_FLIPPED:
        p = ranks.step_down(np.concatenate(tasks, axis=1), sizes, _flips(sum(sizes)))
    else:
        p = _holm(_two_sided(*_paired(tasks)))
    return np.asarray(p <= ranks.ALPHA)


@lru_cache(maxsize=4)
def _flips(units: int) -> FloatArray:
    """Return the same flips for every draw, as for all pairs of a board."""
    return ranks.signs(units, FLIPS)


def _paired(tasks: Sequence[FloatArray]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return mean difference, variance and degrees of freedom, (…, pairs), of the means over tasks.

    Args:
        tasks: Values (…, methods, seeds).
    """
    first, second = np.triu_indices(tasks[0].shape[-2], 1)
    mean, variance, spread = np.zeros(()), np.zeros(()), np.zeros(())
    for values in tasks:
        count = values.shape[-1]
        means = values.mean(axis=-1)
        centred = values - means[..., None]
        products = centred @ np.swapaxes(centred, -1, -2) / (count - 1)
        own = np.diagonal(products, axis1=-2, axis2=-1)
        squares = own[..., first] + own[..., second] - 2 * products[..., first, second]
        error = np.maximum(squares, 0.0) / count / len(tasks) ** 2
        mean = mean + (means[..., first] - means[..., second]) / len(tasks)
        variance, spread = variance + error, spread + error**2 / (count - 1)
    variance = np.maximum(variance, TINY)
    return mean, variance, variance**2 / np.maximum(spread, TINY)


def _two_sided(mean: FloatArray, variance: FloatArray, freedom: FloatArray) -> FloatArray:
    """Return the two-sided p of a t statistic.

    Where nothing varies, freedom is 0 / 0, and 1 is used instead.
    """
    from scipy import special

    t = np.abs(mean) / np.sqrt(variance)
    return np.asarray(2 * special.stdtr(np.maximum(freedom, 1.0), -t), dtype=np.float64)


def _holm(p: FloatArray) -> FloatArray:
    """Adjust the p of each pair by Holm's step-down (1979)."""
    order = np.argsort(p)
    found = np.empty_like(p)
    found[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    return np.minimum(found, 1.0)


# The bootstrap


def _expected(name: str, worlds: Sequence[World], counts: Sequence[int]) -> float:
    """Return how many pairs are separated on average, with `counts` seeds of each task."""
    generator = streams.generator(0, "power", name, *counts)
    methods = len(worlds[0].means)
    draws = min(SIMULATED, max(LEAST, ALL_PAIRS // (methods * (methods - 1) // 2)))
    drawn = [world.draw(generator, draws, n) for world, n in zip(worlds, counts, strict=True)]
    found = [
        apart([w.means[:, None] + d[at] for w, d in zip(worlds, drawn, strict=True)]).sum()
        for at in range(draws)
    ]
    return float(np.mean(found))


def needed(name: str, worlds: Sequence[World], difference: float) -> int | None:
    """Return the fewest seeds of each task at which a difference is detected with probability .8.

    One pair differs by this amount in the mean over tasks, and no other pair does; the result is
    averaged over all pairs, since their spreads differ. A difference is detected if it exceeds the
    value that the largest statistic of all pairs exceeds in 5 % of draws without any difference.
    None: more than 100.
    """
    low, high = intervals.MIN_SEEDS, MOST
    if _found(name, worlds, high, difference) < WANTED:
        return None
    while low < high:
        middle = (low + high) // 2
        if _found(name, worlds, middle, difference) < WANTED:
            low = middle + 1
        else:
            high = middle
    return high


def _found(name: str, worlds: Sequence[World], count: int, difference: float) -> float:
    """Return the probability of detecting one pair's difference with `count` seeds per task."""
    generator = streams.generator(0, "power", name, "needed", count)
    drawn = [world.draw(generator, DRAWN, count) for world in worlds]
    mean, variance, freedom = _paired(drawn)
    if count * len(worlds) < LEAST_FLIPPED:  # Holm's first step
        p = _two_sided(mean + difference, variance, freedom)
        return float(np.mean(p * p.shape[1] <= ranks.ALPHA))
    limit = np.quantile((mean**2 / variance).max(axis=1), 1 - ranks.ALPHA)
    return float(np.mean((mean + difference) ** 2 / variance > limit))


# Records


def of_suite(
    suite: str, baselines: Sequence[str] = (), folders: Sequence[Path] = ()
) -> tuple[Power, ...]:
    """Estimate the power of each task of a suite, and then of all together.

    Args:
        suite: Name of the suite.
        baselines: Methods by name; all trained ones except references by default.
        folders: Folders of records or of evaluations (final or not); the leaderboard by default.

    Raises:
        UsageError: If a method has no record.
        RecordError: If the records do not belong together.
    """
    tasks = load_suite(suite).tasks
    runs = _of_folders(folders, tasks, baselines) if folders else _of_board(suite)
    known = {run.method for run in runs}
    if lost := [name for name in baselines if name not in known]:
        raise UsageError(f"--baselines {lost[0]}: no record of it on a task of {suite}")
    chosen = [run for run in runs if not baselines or run.method in baselines]
    return powers(suite, tasks, chosen)


def powers(suite: str, tasks: Sequence[str], runs: Sequence[Run]) -> tuple[Power, ...]:
    """Estimate the power of each task, and, with several retention tasks, of these together."""
    by_task = {task: [run for run in runs if run.task == task] for task in tasks}
    found = [(task, power(task, mine)) for task, mine in by_task.items() if mine]
    told = [each for _, each in found if each]
    counted = [task for task, each in found if each and each.what == "retention"]
    if len(counted) > 1:
        together = power(suite, [run for task in counted for run in by_task[task]])
        told += [together] if together else []
    return tuple(told)


def of_standings(found: Sequence[Standing], suite: str) -> tuple[Power, ...]:
    """Estimate the power of a suite's accepted records that have all published seeds."""
    return powers(suite, load_suite(suite).tasks, _of_rows(found, suite, ("accepted",)))


def _of_board(suite: str) -> list[Run]:
    if not load_suite(suite).ranked:
        raise UsageError(f"{suite} is on no board; name records with --records DIR")
    return _of_rows(standings(entries.load(), suite), suite, ("accepted", "listed"))


def _of_rows(found: Sequence[Standing], suite: str, states: Sequence[State]) -> list[Run]:
    """Return runs of the widest board's non-reference entries under the board's protocol."""
    rows = [
        row
        for standing in found
        if (standing.suite, standing.board) == (suite, "open")
        for row in standing.rows
        if row.division != "reference" and not row.contender.id.endswith(".old")
    ]
    several = [row.contender.name for row in rows]
    runs = []
    for row in rows:
        name = row.contender.name if several.count(row.contender.name) == 1 else row.contender.id
        for entry in row.contender.entries.values():
            record = entry.record
            seeds = [seed for seed in record.seeds if seed in record.task.published]
            run = _run(record, name, seeds, published(record))
            if run and len(seeds) == run.own and entry.state in states:
                runs.append(run)
    return runs


def _of_folders(
    folders: Sequence[Path], tasks: Sequence[str], baselines: Sequence[str]
) -> list[Run]:
    """Return runs of every record in the folders, of a leaderboard or of evaluations."""
    runs: dict[tuple[str, str], tuple[Run, Path]] = {}
    for path in [path for folder in folders for path in _files(folder)]:
        record = read_record(path)
        name, task = record.method.name, record.task.name
        if task not in tasks or (baselines and name not in baselines):
            continue
        if record.task.digest != load_task(task).digest:
            raise RecordError(f"{path}: of another protocol than {task} has now; evaluate again")
        if not baselines and record.scores.division == "reference":
            continue
        run = _run(record, name, record.seeds, record.scores)
        if run is None:
            continue
        if (task, name) in runs:
            other = runs[task, name][1]
            raise RecordError(f"{path}: {name} on {task} is {other} already; name one of the two")
        runs[task, name] = run, path
    return [run for run, _ in runs.values()]


def _files(folder: Path) -> list[Path]:
    """Return a folder's records: `record.json` of evaluations, or a board's `TASK/NAME--….json`."""
    found = sorted({*folder.rglob("record.json"), *folder.glob("*/*--*.json")})
    if not found:
        raise UsageError(f"--records {folder}: no record in it")
    return found


def _run(record: Record, name: str, seeds: Sequence[int], scores: Scores | None) -> Run | None:
    """Return a record's headline by seed; None without one, or for untrained tickets."""
    told = scores.headline if scores else None
    if told is None or told.what == "accuracy":
        return None
    by_seed = dict(zip(seeds, told.found.values, strict=True))
    return Run(record.task.name, name, told.what, by_seed, record.task.seeds)


# Output


def table(found: Iterable[Power], caption: str) -> Table:
    """Build a table with one row per task, and one for all together."""
    head = (
        *("of", "methods", "seeds", "pairs apart", "with own seeds"),
        *(f"with {n}" for n in SEEDS),
        *(f"seeds for {d:g}" for d in DIFFERENCES),
    )
    return Table(caption, head, tuple(map(_row, found)), _note(), left=("of",))


def _row(each: Power) -> tuple[str, ...]:
    low, high = min(each.seeds), max(each.seeds)
    counts = [each.own, *each.expected.values()]
    return (
        each.name,
        str(len(each.methods)),
        str(low) if low == high else f"{low} to {high}",
        f"{each.apart} of {each.pairs}",
        *(f"{100 * count / each.pairs:.0f} %" for count in counts),
        *(_seeds(each.needed[d]) if each.needed else formats.NA for d in DIFFERENCES),
    )


def _seeds(count: int | None) -> str:
    return f"> {MOST}" if count is None else str(count)


def _note() -> str:
    return (
        f"Pairs apart: by step-down max-T over sign flips at {ranks.ALPHA:g} (of fewer than "
        f"{LEAST_FLIPPED} units by Holm over paired t), in the records, and on average in data "
        "drawn with the records' means and covariance between methods. Seeds for a difference: of "
        f"retention, found with probability {WANTED:g}, each task with so many."
    )


def text(found: Sequence[Power], suite: str) -> str:
    """Return the text that the command line prints."""
    if not found:
        return (
            f"{suite}: fewer than two methods with {intervals.MIN_SEEDS} seeds in common on a task"
        )
    made = table(found, "")
    named = ", ".join(dict.fromkeys(method for each in found for method in each.methods))
    lines = (
        terminal.wrapped(made.note, terminal.WIDTH),
        terminal.wrapped(f"Methods: {named}.", terminal.WIDTH),
    )
    return "\n".join([f"What suite {suite} can tell", "", grid(made, head=stacked), "", *lines])


def as_json(found: Sequence[Power]) -> str:
    """Return every figure as one line of JSON."""
    return json.dumps([asdict(each) for each in found], sort_keys=True)
