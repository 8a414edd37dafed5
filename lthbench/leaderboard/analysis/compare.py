"""Paired comparison of two methods, seed by seed: `lthbench compare A B`.

The harness chooses seeds and streams, so what two records share is compared in pairs. Records of
different protocol versions are never compared. Definitions: protocol, section 10.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from lthbench.errors import RecordError
from lthbench.leaderboard.analysis.comparison import Comparison, OnTask, Rung
from lthbench.leaderboard.analysis.inputs import Masks, Side, side
from lthbench.leaderboard.board import entries, ranks
from lthbench.records import intervals, runs
from lthbench.records.intervals import Interval
from lthbench.records.schema import Cell, Record
from lthbench.report import formats, terms
from lthbench.report.formats import NA, plain

__all__ = ["Comparison", "Side", "compare", "of", "side"]

TESTED_FROM = 8  # units
NO_MASKS = "masks not at hand (set LTHBENCH_BUNDLES)"


def compare(a: str, b: str) -> Comparison:
    """Compare two methods on the tasks and seeds that both have.

    Args:
        a: An entry or method of the board, the file of a record or bundle, or an evaluation's
            folder.
        b: The other method, in any of the same forms.

    Raises:
        RecordError: If an argument is none of these, if the two have nothing in common, or if their
            protocol versions differ.
    """
    board = cache(entries.load)
    return of(side(a, board), side(b, board))


def of(first: Side, second: Side) -> Comparison:
    """Compare two sides that have already been read; raises as `compare` does."""
    shared = [name for name in first.records if name in second.records]
    if not shared:
        raise RecordError(
            f"{first.name} is of {', '.join(first.records)}, {second.name} of "
            f"{', '.join(second.records)}: no task that both have; name two of one task"
        )
    told = tuple(_on_task(name, first, second) for name in sorted(shared))
    names = sorted(first.records.keys() ^ second.records.keys())
    alone = {name: first.name if name in first.records else second.name for name in names}
    difference, p = _suite(told)
    return Comparison(first.name, second.name, told, difference, p, alone)


def _on_task(name: str, a: Side, b: Side) -> OnTask:
    first, second = a.records[name], b.records[name]
    if first.task.digest != second.task.digest:
        raise RecordError(
            f"{name}: {a.name} is of version {first.task.version} ({first.task.digest[:8]}), "
            f"{b.name} of version {second.task.version} ({second.task.digest[:8]}); two protocols "
            "are never compared: evaluate one of them again"
        )
    seeds = tuple(seed for seed in first.seeds if seed in second.seeds)
    if not seeds or first.shown != second.shown:
        raise RecordError(
            f"{name}: {a.name} has seeds {terms.listing(first.seeds)} on the {first.shown} set, "
            f"{b.name} {terms.listing(second.seeds)} on the {second.shown} set; compare two "
            "development runs or two final ones"
        )
    both = terms.is_untrained(first), terms.is_untrained(second)
    warnings = [*_warnings(first, second)]
    if both[0] != both[1]:
        only = a.name if both[0] else b.name
        warnings.append(f"the tickets of {only} are untrained: compared as trained afterwards")
    kind = "untrained" if all(both) else "ticket"
    masks = [chosen[name] for chosen in (a.masks, b.masks) if name in chosen]
    rungs, why = _rungs(first, second, seeds, kind, masks)
    what, values = _headline(first, second, seeds, both)
    differences = tuple(x - y for x, y in zip(*values, strict=True)) if values else ()
    three = (values[0], values[1], differences) if values else None
    return OnTask(
        task=name,
        seeds=seeds,
        shown=first.shown,
        measure="accuracy" if kind == "untrained" else formats.measure(first),
        rungs=rungs,
        what=what,
        headline=(_t(three[0]), _t(three[1]), _t(three[2])) if three else None,
        values=differences,
        counts=what == "retention",
        p=_p([values[0]], [values[1]]) if values else None,
        matching=(first.scores.matching, second.scores.matching),
        cost=(first.scores.mean_cost, second.scores.mean_cost),
        division=(first.scores.division, second.scores.division),
        overlap=why,
        warnings=tuple(warnings),
    )


def _warnings(a: Record, b: Record) -> list[str]:
    """List what differs besides the methods."""
    found = []
    digests = [record.reference.digest if record.reference else "" for record in (a, b)]
    if digests[0] != digests[1]:
        one, other = (digest[:8] or "none" for digest in digests)
        found.append(f"scored against different references ({one}, {other}): no headline compared")
    for key in ("lthbench", "torch", "device", "engine"):
        one, other = (_ran_with(record, key) for record in (a, b))
        if one != other:
            found.append(f"{key}: {one} and {other}")
    if a.method.digest == b.method.digest and a.method.options != b.method.options:
        keys = sorted({*a.method.options, *b.method.options})
        told = [
            f"{plain(key, 30)} {_option(a, key)} and {_option(b, key)}"
            for key in keys
            if a.method.options.get(key) != b.method.options.get(key)
        ]
        found.append(f"one source with other options: {', '.join(told)}")
    return found


def _ran_with(record: Record, key: str) -> str:
    """Return a record's environment under a key, per seed where the seeds differ."""
    told = {record.environment_of(seed).get(key, NA) for seed in record.seeds}
    return ", ".join(plain(value, 40) for value in sorted(told))


def _option(record: Record, key: str) -> str:
    return plain(str(record.method.options.get(key, "unset")), 30)


def _rungs(
    a: Record, b: Record, seeds: Sequence[int], kind: str, masks: Sequence[Masks]
) -> tuple[tuple[Rung, ...], str]:
    """Return the rungs that both ladders have, and why overlaps are not reported."""
    cells = [
        {(c.seed, c.density): c for c in record.cells if (c.kind, c.schedule) == (kind, 1)}
        for record in (a, b)
    ]
    rungs = []
    for density in a.task.ladder:
        if density not in b.task.ladder:
            continue
        values = [
            [_score(record, found.get((seed, density))) for seed in seeds]
            for record, found in zip((a, b), cells, strict=True)
        ]
        differences = tuple(x - y for x, y in zip(*values, strict=True))
        held = [s for s in seeds if all(_has(found.get((s, density))) for found in cells)]
        overlap = _overlap(masks, held, density) if len(masks) == 2 else None
        means = [sum(row) / len(row) for row in values]
        rungs.append(Rung(density, means[0], means[1], _t(differences), differences, overlap))
    return tuple(rungs), "" if len(masks) == 2 else NO_MASKS


def _has(cell: Cell | None) -> bool:
    return cell is not None and cell.status != "missing" and cell.masks is not None


def _score(record: Record, cell: Cell | None) -> float:
    return record.task.chance if cell is None else runs.score_of(record, cell)


def _overlap(masks: Sequence[Masks], seeds: Sequence[int], density: float) -> Interval | None:
    """Return the pooled excess over chance, one value per seed; None if there is none to report."""
    from lthbench.tickets.overlap import overlap

    found = [overlap(*(read(seed, density) for read in masks)).pooled.excess for seed in seeds]
    told = [value for value in found if value is not None]
    return intervals.t_interval(told) if told else None


def _headline(
    a: Record, b: Record, seeds: Sequence[int], untrained: tuple[bool, bool]
) -> tuple[str, tuple[list[float], list[float]] | None]:
    """Return the leading quantity, one value per seed of each; None where either has none."""
    if untrained[0] != untrained[1]:
        return "", None
    found = [record.scores.headline for record in (a, b)]
    kinds = {told.what for told in found if told}
    differ = a.reference != b.reference and not untrained[0]
    what: str = kinds.pop() if len(kinds) == 1 else ""
    if differ or not what or found[0] is None or found[1] is None:
        return what, None
    one, other = (
        dict(zip(record.seeds, told.found.values, strict=True))
        for record, told in zip((a, b), found, strict=True)
        if told
    )
    return what, ([one[seed] for seed in seeds], [other[seed] for seed in seeds])


def _p(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> float | None:
    """Return the two-sided sign-flip p; None with too few units, or where a task has one seed."""
    units, fewest = sum(map(len, a)), min(map(len, a))
    return ranks.sign_flips(a, b) if units >= TESTED_FROM and fewest > 1 else None


def _t(values: Sequence[float]) -> Interval:
    """Return the t interval over seeds, without bounds where all values are equal."""
    return intervals.drop_if_alike(intervals.t_interval(values), [values])


def _suite(told: Sequence[OnTask]) -> tuple[Interval | None, float | None]:
    """Return the difference of mean retention over the shared rankable tasks, and its p."""
    values = [task.values for task in told if task.headline and task.counts]
    if len(values) < 2:
        return None, None
    nothing = [[0.0] * len(row) for row in values]
    return intervals.suite_interval(values), _p(values, nothing)
