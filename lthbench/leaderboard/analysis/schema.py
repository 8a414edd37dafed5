"""The evidence of two entries on a task: the measurements, and all that follows from them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from lthbench import seeds
from lthbench.leaderboard.analysis import verdicts
from lthbench.leaderboard.analysis.overlap_nulls import Floats, over_other_seeds
from lthbench.leaderboard.analysis.verdicts import Estimate, Of, Text, Verdict
from lthbench.protocol.task import Strict
from lthbench.records import intervals, metrics
from lthbench.records.schema import Hex, Short

ALL_PAIRINGS = 7  # seeds up to which every pairing is enumerated
DRAWN_PAIRINGS = 9_999
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,80}$")]
Cell = Annotated[float, Field(ge=-1e9, le=1.000001)] | None  # an excess; None: full or empty masks
Row = tuple[Cell, ...]
Table = tuple[Row, ...]


class Excess(Strict):
    """The excess overlap over each null; None where it has no value.

    Attributes:
        chance: Over the hypergeometric null.
        other_seeds: Over the overlap of A's masks of one seed with B's of another.
        same_start: Over the hypergeometric null within ten strata of |theta_0|.
        matched: As `other_seeds`, with hidden units brought into the best order in every pair.
    """

    chance: Estimate | None
    other_seeds: Estimate | None
    same_start: Estimate | None
    matched: Estimate | None


class LayerRow(Strict):
    """One layer, means over seeds; descriptive.

    Attributes:
        ratio: Kept by both, relative to the chance expectation.
        z: Over chance, all seeds together.
    """

    name: Short
    size: int
    density_a: float
    density_b: float
    ratio: float | None
    chance: float | None
    other_seeds: float | None
    same_start: float | None
    z: float | None


class Rung(Strict):
    """One density.

    Attributes:
        table: The excess over chance of A's masks of each seed (rows) and B's (columns).
        matched_table: The same with the hidden units in the best order; None: not matched.
        same_start: Over that null, one value per seed.
        profile: Total variation between the two shares of kept weights by layer.
        verdict: The rule applied to the pair on this rung alone; not adjusted across rungs.
    """

    density: Annotated[float, Field(gt=0, le=1)]
    seeds: tuple[int, ...]
    table: Table
    matched_table: Table | None
    same_start: Row
    excess: Excess
    profile: Estimate | None
    layers: tuple[LayerRow, ...]
    verdict: Verdict


class Ladder(Strict):
    """The mean over the rungs of all shared seeds, weighted by log density."""

    densities: tuple[float, ...]
    excess: Excess
    profile: Estimate | None


class Side(Strict):
    """One of the two entries, and the values that its own verdicts are based on.

    Attributes:
        id: Of the entry; otherwise the method and the first 8 digits of its record's digest.
        record: The digest of its record.
        untrained: Differences by seed, as the rules take them.
        shuffled: Differences by seed, as the rules take them.
        reinit: Differences by seed, as the rules take them.
    """

    id: Id
    method: Short
    record: Hex
    division: Literal["init", "rewind", "open", "reference"] | None
    margin: Annotated[float, Field(ge=0, le=1)] | None
    untrained: Estimate | None
    shuffled: Estimate | None
    reinit: Estimate | None


class Missing(Strict):
    """Evidence that tickets and records cannot provide."""

    what: Short
    why: Text


class Saved(Strict):
    """The evidence of two entries on one task.

    Attributes:
        rules: The version of the rules that the verdicts follow.
        seeds: Seeds in common.
        matching: Which hidden units were brought into the best order; "" for none.
        verdicts: On the pair first, then on a, then on b.
    """

    schema_version: Literal[1]
    rules: int
    task: Short
    task_digest: Hex
    a: Side
    b: Side
    seeds: tuple[int, ...]
    matching: Text
    rungs: tuple[Rung, ...]
    ladder: Ladder
    verdicts: tuple[Verdict, ...]
    not_measured: tuple[Missing, ...]

    @property
    def file(self) -> Path:
        """Path of the file under leaderboard/evidence."""
        return Path(self.task) / f"{self.a.id}--{self.b.id}.json"


# What follows from the measurements


def by_chance_of_pairing(table: Floats) -> float | None:
    """Return the share of pairings of A's seeds with B's that overlap as much as equal seeds do.

    Exact for up to 7 seeds; otherwise from 9,999 random pairings plus the observed one.
    """
    n = len(table)
    if n < 2 or not np.isfinite(table).all():
        return None
    rows = np.arange(n)
    if n <= ALL_PAIRINGS:
        pairings = np.array(list(permutations(range(n))))
        least = 0
    else:
        dice = seeds.generator(0, "evidence", "pairings", n)
        pairings, least = dice.permuted(np.tile(rows, (DRAWN_PAIRINGS, 1)), axis=1), 1
    overlap = table[rows, pairings].mean(axis=1)
    reached = int((overlap >= np.diag(table).mean() - intervals.TIE).sum())
    return (reached + least) / (len(pairings) + least)


def excess_of(
    tables: Sequence[Floats],
    matched: Sequence[Floats] | None,
    same_start: Sequence[Floats],
    weights: Floats,
) -> Excess:
    """Combine the figures of rungs of the same seeds; a single rung has weight 1."""

    def mean(values: Sequence[Floats]) -> Floats:
        return np.asarray(weights @ np.array(values), dtype=np.float64)

    def against_others(of: Sequence[Floats]) -> Estimate | None:
        p = by_chance_of_pairing(np.tensordot(weights, np.array(of), axes=1))
        return _estimate(mean([over_other_seeds(table) for table in of]), p)

    return Excess(
        chance=_estimate(mean([np.diag(table) for table in tables])),
        other_seeds=against_others(tables),
        same_start=_estimate(mean(same_start)),
        matched=against_others(matched) if matched is not None else None,
    )


def _estimate(values: Floats, p: float | None = None) -> Estimate | None:
    return verdicts.estimate(values.tolist(), p)


def rung_of(
    density: float,
    of_seeds: tuple[int, ...],
    table: Table,
    matched: Table | None,
    same_start: Row,
    profile: Estimate | None,
    layers: tuple[LayerRow, ...],
) -> Rung:
    """Build a rung from its measurements."""
    found = excess_of(
        [_floats(table)],
        None if matched is None else [_floats(matched)],
        [_floats(same_start)],
        np.ones(1),
    )
    return Rung(
        density=density,
        seeds=of_seeds,
        table=table,
        matched_table=matched,
        same_start=same_start,
        excess=found,
        profile=profile,
        layers=layers,
        verdict=verdicts.same_subnetwork(found.other_seeds, found.same_start),
    )


def build(
    task: str,
    task_digest: str,
    sides: tuple[Side, Side],
    of_seeds: tuple[int, ...],
    matching: str,
    rungs: Sequence[Rung],
    not_measured: Sequence[Missing],
) -> Saved:
    """Build a file from its rungs; the ladder mean and the verdicts follow."""
    ladder = _ladder([rung for rung in rungs if rung.seeds == of_seeds and _whole(rung)])
    pair = verdicts.same_subnetwork(ladder.excess.other_seeds, ladder.excess.same_start)
    named: tuple[tuple[Side, Of], ...] = ((sides[0], "a"), (sides[1], "b"))
    own = (verdict for side, of in named for verdict in _verdicts(side, of))
    return Saved(
        schema_version=1,
        rules=verdicts.RULES_VERSION,
        task=task,
        task_digest=task_digest,
        a=sides[0],
        b=sides[1],
        seeds=of_seeds,
        matching=matching,
        rungs=tuple(rungs),
        ladder=ladder,
        verdicts=(pair, *own),
        not_measured=tuple(not_measured),
    )


def _whole(rung: Rung) -> bool:
    """Return whether a rung has every averaged figure; full and empty masks have none."""
    return rung.excess.other_seeds is not None and rung.excess.same_start is not None


def _ladder(rungs: Sequence[Rung]) -> Ladder:
    if not rungs:
        none = Excess(chance=None, other_seeds=None, same_start=None, matched=None)
        return Ladder(densities=(), excess=none, profile=None)
    densities = tuple(rung.density for rung in rungs)
    weights = metrics.log_density_weights(densities)
    matched = [rung.matched_table for rung in rungs if rung.matched_table is not None]
    found = excess_of(
        [_floats(rung.table) for rung in rungs],
        [_floats(table) for table in matched] if len(matched) == len(rungs) else None,
        [_floats(rung.same_start) for rung in rungs],
        weights,
    )
    profiles = [rung.profile.values for rung in rungs if rung.profile]
    whole = len(profiles) == len(rungs)
    profile = _estimate(weights @ np.array(profiles)) if whole else None
    return Ladder(densities=densities, excess=found, profile=profile)


def _verdicts(side: Side, of: Of) -> tuple[Verdict, ...]:
    return (
        verdicts.already_there(side.untrained, side.margin, of),
        verdicts.identity_matters(side.shuffled, side.reinit, side.margin, of),
        verdicts.tangent(None, side.margin, of),
    )


def _floats(values: Table | Row) -> Floats:
    """Convert to an array; None becomes NaN."""
    return np.array(values, dtype=np.float64)


def listed(values: Floats) -> Row:
    """Convert to JSON values; NaN becomes None."""
    return tuple(None if math.isnan(value) else float(value) for value in values)
