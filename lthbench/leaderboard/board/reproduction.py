"""What level 3 of a verification tests: the search itself, on fresh seeds and on published ones.

Nothing is searched here. `verification.reproduce` searches and judges by these rules, and the
ledger's writer applies the rules to a report again (protocol, section 12).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lthbench.io.paths import canonical_json, digest
from lthbench.records import intervals
from lthbench.records.reference import Reference
from lthbench.records.schema import Record

FRESH, REPEATED = 3, 2  # seeds
FIRST, SPAN = 10**6, 10**9  # fresh seeds avoid the published ones and those of their controls
ERRORS = 3.0  # standard errors of a difference, using the reference's own spread
CENT = 1.001  # of a claimed cost: tolerance for rounding
NAMES = {"retention": "retention", "above erk": "points above erk"}  # of trained tickets' headlines


@dataclass(frozen=True)
class Repeated:
    """A published seed that was searched again.

    Attributes:
        cost: Of the new search, in dense trainings.
        equal: Whether every rung keeps exactly the weights of the published ticket.
        own: Mean share of the kept weights, over rungs, that this seed's published tickets also
            keep.
        others: The largest such share for another seed.
        score: Of the new tickets, in the unit of the headline.
    """

    seed: int
    cost: float
    equal: bool
    own: float
    others: float
    score: float


@dataclass(frozen=True)
class Reproduced:
    """The outcome: each seed's score as published, on fresh seeds, and searched again.

    Attributes:
        spread: Standard deviation over seeds, according to the reference.
        unmetered: Reports of searches that computed more than they were charged for.
    """

    ok: bool
    what: str
    optimism: float | None
    spread: float | None
    published: tuple[float, ...]
    fresh: tuple[float, ...]
    seeds: tuple[int, ...]
    repeated: tuple[Repeated, ...]
    unmetered: tuple[str, ...] = ()


def fresh_seeds(bundle: str, beacon: str, count: int = FRESH) -> tuple[int, ...]:
    """Return random seeds, derived from the sha256 of bundle, beacon and index."""
    lots = (digest(canonical_json([bundle, beacon, "seed", n])) for n in range(count))
    return tuple(FIRST + int(lot, 16) % SPAN for lot in lots)


def repeated_seeds(seeds: Sequence[int], bundle: str, beacon: str) -> tuple[int, ...]:
    """Return the published seeds with the smallest draw hashes."""
    ranked = sorted(seeds, key=lambda s: digest(canonical_json([bundle, beacon, "again", s])))
    return tuple(sorted(ranked[:REPEATED]))


def score_of(record: Record, published: Record) -> tuple[list[float], str] | None:
    """Return one score per seed, and the name of the score.

    The score is retention or its substitute; for untrained tickets, the accuracy at the rung that
    the published record shows.
    """
    if (claimed := published.scores.untrained) and (told := record.scores.untrained):
        values = {rung.density: rung.ticket.values for rung in told.rungs}[claimed.headline]
        return list(values), f"accuracy at density {claimed.headline:.4g}"
    found = record.scores.headline
    return None if found is None else (list(found.found.values), NAMES[found.what])


def spread_of(record: Record, reference: Reference | None) -> float | None:
    """Return how much scores differ between seeds, according to the reference's IMP and ERK.

    The claimant's own spread is not used, since it can be inflated by giving up on unknown seeds.
    Untrained tickets vary as random masks at theta_0 do, and with the size of the test split. None
    without a reference.
    """
    if reference is None:
        return None
    values = reference.values["test"]
    if told := record.scores.untrained:
        size = min(sizes["test"] for sizes in record.sizes.values())
        error = intervals.binomial_se(told.best.ticket.mean, size)
        return max(error, statistics.stdev(told.best.random.values if told.best.random else ()))
    points = max(statistics.stdev(values.loss_imp), statistics.stdev(values.loss_random))
    found = record.scores.headline
    whole = statistics.mean(values.loss_random)
    return points / whole if found is not None and found.what == "retention" else points


def judge(
    record: Record,
    reference: Reference | None,
    fresh: Sequence[float],
    seeds: Sequence[int],
    repeated: Sequence[Repeated],
) -> Reproduced:
    """Reject claims that fail on other seeds, do not recur on the same seeds, or understate cost.

    A repeated search of a published seed must end in the published tickets. On another class of
    machine it may end in others, which then resemble those of their own seed more than those of any
    other seed, and score as well.
    """
    claimed, spread = score_of(record, record), spread_of(record, reference)
    assert claimed is not None
    published, what = claimed
    bound = ERRORS * (spread or 0.0)
    optimism = statistics.mean(published) - statistics.mean(fresh)
    allowed = bound * math.sqrt(1 / len(published) + 1 / len(fresh)) + 1e-12
    costs = {search.seed: search.cost for search in record.searches}
    by_seed = dict(zip(record.seeds, published, strict=True))
    lost = [by_seed[one.seed] - one.score for one in repeated]
    reasons = [
        f"seed {one.seed} costs {one.cost:.2f} dense trainings, not {costs[one.seed]:.2f}"
        for one in repeated
        if one.cost > CENT * costs[one.seed]
    ]
    reasons += [
        f"the tickets of seed {one.seed} are those of seed {one.seed} no more than another's"
        for one in repeated
        if not one.equal and one.own <= one.others
    ]
    if repeated and statistics.mean(lost) > bound * math.sqrt(2 / len(repeated)) + 1e-12:
        reasons.append(f"published seeds searched again score {statistics.mean(lost):.4f} less")
    if optimism > allowed:
        reasons.append("fresh seeds score less than chance allows")
    told = (
        f"optimism {optimism:+.4f}: mean {what} {statistics.mean(published):.4f} of "
        f"{len(published)} published seeds, {statistics.mean(fresh):.4f} of {len(fresh)} fresh "
        f"ones (at most {allowed:+.4f}); {sum(one.equal for one in repeated)} of {len(repeated)} "
        "published seeds searched again end in the same tickets, bit for bit; search cost "
        f"{statistics.mean(costs.values()):.2f} published"
    )
    whole = "; ".join([*reasons, told])
    scores_of = tuple(published), tuple(fresh), tuple(seeds), tuple(repeated)
    return Reproduced(not reasons, whole, optimism, spread, *scores_of)


def misfit(record: Record, reference: Reference | None, report: Mapping[str, Any]) -> str | None:
    """Return why a report on a search does not follow from its entry; None if it does."""
    told, claimed = report["reproduced"], score_of(record, record)
    if claimed is None or list(told["published"]) != claimed[0]:
        return "its published scores are not the record's"
    drawn = report["bundle"], report["beacon"]
    repeated = [Repeated(**row) for row in told["repeated"]]
    again = tuple(one.seed for one in repeated)
    if tuple(told["seeds"]) != fresh_seeds(*drawn) or again != repeated_seeds(record.seeds, *drawn):
        return "its seeds are not those that bundle and beacon draw"
    fresh = [float(score) for score in told["fresh"]]
    figures = [*fresh, *(v for one in repeated for v in (one.cost, one.own, one.others, one.score))]
    if len(fresh) != FRESH or not all(map(math.isfinite, figures)):
        return f"it has no score of {FRESH} fresh seeds"
    found = judge(record, reference, fresh, told["seeds"], repeated)
    return None if found.ok else f"its own scores are refused: {found.what}"
