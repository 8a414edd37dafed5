"""The best entries of a task at each density, and whether that is certain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lthbench.leaderboard.board.entries import Entry
from lthbench.leaderboard.site.labels import RANKED_LEVEL, many
from lthbench.records import intervals
from lthbench.records.intervals import Interval
from lthbench.records.schema import Record
from lthbench.records.scores import Estimate, Rung, UntrainedRung
from lthbench.report.formats import probability
from lthbench.report.terms import is_untrained

Scored = tuple[Entry, Estimate]
LEAST_TESTED: Final = 8  # seeds: fewer cannot separate one entry from several in the exact test
MOST_TESTED: Final = 16  # seeds up to which all flips are enumerated
ALPHA: Final = intervals.ALPHA
DIVISIONS: Final = {
    "init": ("init",),
    "early": ("init", "rewind"),
    "open": ("init", "rewind", "open"),
}


@dataclass(frozen=True)
class Best:
    """The best entries of a rung, and what sets them apart.

    Attributes:
        entries: Those with the highest mean; several in case of a tie.
        found: The score of the first.
        second: The next best, and the paired difference from it over the seeds that both have.
        certain: "yes", "no", or "open" where undecidable.
        why: The same as a sentence.
    """

    density: float
    entries: tuple[Entry, ...]
    found: Estimate
    second: Entry | None
    difference: Interval | None
    certain: str
    why: str


def eligible(entries: Sequence[Entry], board: str) -> list[Entry]:
    """Return entries of a board's divisions: the verified ones, or all if none is verified."""
    if board == "untrained":
        found = [e for e in entries if is_untrained(e.record)]
    else:
        found = [
            e
            for e in entries
            if e.record.scores.division in DIVISIONS[board] and not is_untrained(e.record)
        ]
    return [e for e in found if e.level >= RANKED_LEVEL] or found


def best(entries: Sequence[Entry]) -> tuple[Best, ...]:
    """Return the best at each density that has a score, densest first."""
    rungs: dict[float, list[Scored]] = {}
    for entry in entries:
        for rung in rungs_of(entry.record):
            if rung.ticket is not None:
                rungs.setdefault(rung.density, []).append((entry, rung.ticket))
    return tuple(_best(density, rungs[density]) for density in sorted(rungs, reverse=True))


def rungs_of(record: Record) -> Sequence[Rung | UntrainedRung]:
    """Return the rungs of the ladder on which an entry is judged."""
    return (record.scores.untrained or record.scores).rungs


def _best(density: float, scored: list[Scored]) -> Best:
    ordered = sorted(scored, key=lambda pair: (-pair[1].mean, pair[0].id))
    top = ordered[0]
    alike = [e for e, found in ordered if found.mean >= top[1].mean - intervals.TIE]
    others = ordered[len(alike) :]
    second = others[0] if others else None
    difference = _paired(top, second) if second else None
    certain, why = _certainty(top, len(alike), others)
    return Best(
        density, tuple(alike), top[1], second[0] if second else None, difference, certain, why
    )


def _common(a: Scored, b: Scored) -> tuple[list[float], list[float]]:
    """Return scores of two entries over the seeds that both have."""
    first, second = (dict(zip(e.record.seeds, found.values, strict=True)) for e, found in (a, b))
    both = [seed for seed in first if seed in second]
    return [first[s] for s in both], [second[s] for s in both]


def paired(first: Sequence[float], second: Sequence[float]) -> Interval:
    """Return the mean difference over seeds, without bounds where all are equal."""
    differences = [one - other for one, other in zip(first, second, strict=True)]
    return intervals.drop_if_alike(intervals.paired_interval(first, second), [differences])


def _paired(a: Scored, b: Scored) -> Interval | None:
    first, second = _common(a, b)
    return paired(first, second) if first else None


def _certainty(top: Scored, alike: int, others: Sequence[Scored]) -> tuple[str, str]:
    if alike > 1:
        return "no", f"{alike} entries are alike here"
    if not others:
        return "open", "the only entry"
    pairs = [_common(top, other) for other in others]
    if min(len(first) for first, _ in pairs) < LEAST_TESTED:
        return _by_intervals(top, others, max(len(first) for first, _ in pairs))
    p = _holm([_two_sided(first, second) for first, second in pairs])
    open_to = sum(value > ALPHA for value in p)
    if not open_to:
        return "yes", f"p {probability(max(p))} at most, against each of the others"
    return "no", f"{many(open_to, 'entry', 'entries')} may be as good (p above {ALPHA:g})"


def _by_intervals(top: Scored, others: Sequence[Scored], seeds: int) -> tuple[str, str]:
    """Decide, with too few seeds for a test, whether intervals are disjoint."""
    few = f"{many(seeds, 'seed')} are too few for a test"
    low = top[1].low
    if low is None:
        return "open", few
    ends = [found.mean if found.high is None else found.high for _, found in others]
    reach = sum(end >= low for end in ends)
    if reach:
        said = "other interval overlaps" if reach == 1 else "other intervals overlap"
        return "no", f"{reach} {said} its own; {few}"
    return "open", f"its interval lies above all others; {few}"


def _two_sided(first: Sequence[float], second: Sequence[float]) -> float:
    if len(first) > MOST_TESTED:
        first, second = first[:MOST_TESTED], second[:MOST_TESTED]
    return min(1.0, 2 * min(intervals.sign_flip(first, second), intervals.sign_flip(second, first)))


def _holm(p: Sequence[float]) -> list[float]:
    """Adjust p values for multiplicity (Holm 1979), preserving their order."""
    order = sorted(range(len(p)), key=lambda place: p[place])
    adjusted, least = [0.0] * len(p), 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = least
    return adjusted


def scored_by(entries: Sequence[Entry]) -> str:
    """Return the score of a task's trained entries: retention, or its substitute there."""
    kinds = {told.what for e in entries if (told := e.record.scores.headline)}
    return next((what for what in HEADS if what in kinds), "above erk")


HEADS = {"retention": "retention", "above erk": "− erk, points"}


def score_of(entry: Entry, what: str) -> Estimate | None:
    """Return a trained entry's headline with its values; None without one of this kind."""
    told = entry.record.scores.headline
    return told.found if told and told.what == what else None


def nearest(found: Sequence[Best], density: float) -> Best | None:
    """Return the rung nearest to a density on a log scale."""
    from math import log

    return min(found, key=lambda best: abs(log(best.density / density)), default=None)
