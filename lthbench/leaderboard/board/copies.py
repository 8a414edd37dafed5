"""Entries whose tickets an earlier entry of their task already has, in whole or in part.

Only masks are compared, seed by seed and rung by rung: equality by digests, near-equality by
sketches. Equal masks at some rungs are legitimate: one-shot pruning and IMP share a first rung.
Beyond half of them, they count as the same tickets, whoever made them. Protocol, section 12.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lthbench.leaderboard.board.entries import Entry
from lthbench.records.intervals import FloatArray
from lthbench.records.schema import Record
from lthbench.report.formats import percent, plain
from lthbench.tickets.sketch import PARTS, jaccard, unpacked

NEAR = 0.9  # of the possible overlap above chance

Place: TypeAlias = tuple[int, float]  # seed, density
Tickets: TypeAlias = Mapping[Place, tuple[str, str | None]]  # the masks' digest and sketch


@dataclass(frozen=True)
class Likeness:
    """What an entry's tickets share with an earlier one's.

    Attributes:
        id: Id of the earlier entry.
        cells: Number of tickets at the same seed and rung in both.
        equal: How many of these have equal masks.
        near: How many of these have masks that differ only slightly.
        rungs: Densities of equal or near masks, densest first.
        overlap: Mean overlap, 0 by chance and 1 for equal masks, where known; None without any.
    """

    id: str
    cells: int
    equal: int
    near: int
    rungs: tuple[float, ...]
    overlap: float | None

    @property
    def same(self) -> bool:
        """Whether these are the earlier entry's tickets."""
        return 2 * (self.equal + self.near) > self.cells

    @property
    def text(self) -> str:
        """A one-sentence description."""
        rungs = ", ".join(percent(density) for density in self.rungs)
        near = f" and {self.near} nearly" if self.near else ""
        told = f"{self.equal} of {self.cells} masks are equal{near}, at {rungs} % density"
        if self.overlap is not None:
            told += (
                f"; over all rungs they share {self.overlap:.2f} of what they could beyond chance"
            )
        what = "same tickets as" if self.same else "in part the masks of"
        return f"{what} {plain(self.id)}: {told}"


def likenesses(listed: Iterable[Entry]) -> dict[str, tuple[Likeness, ...]]:
    """Return, by digest, what each entry shares with earlier ones, largest share first.

    Entries that share nothing are left out. Retracted entries do not count as earlier ones, nor do
    entries superseded by the same method.
    """
    tasks: dict[str, list[tuple[Entry, Tickets]]] = {}
    for entry in sorted(listed, key=order):
        if entry.state != "retracted":
            known = tasks.setdefault(entry.record.task.digest, [])
            known.append((entry, tickets(entry.record)))
    found = {}
    for known in tasks.values():
        earlier = _alike([mine for _, mine in known])
        for (entry, mine), places in zip(known, earlier, strict=True):
            others = [known[place] for place in places if _counts(known[place][0], entry)]
            shared = [likeness(other.id, mine, theirs) for other, theirs in others]
            # The tickets belong to the first entry that has them.
            shared.sort(key=lambda one: 0 if one.same else one.cells - one.equal - one.near + 1)
            if shared and entry.state != "superseded":
                found[entry.digest] = tuple(shared)
    return found


def _alike(known: Sequence[Tickets]) -> Iterator[Sequence[int]]:
    """Yield, for each entry, the earlier ones with an equal or near mask."""
    places = sorted({place for held in known for place in held})
    column = {place: n for n, place in enumerate(places)}
    codes: dict[str, int] = {}
    masks = np.full((len(known), len(places)), -1)
    sketches = np.zeros((len(known), len(places), PARTS // 8), dtype=np.uint8)
    drawn = np.zeros((len(known), len(places)), dtype=np.bool_)
    for n, held in enumerate(known):
        for place, (digest, _) in held.items():
            masks[n, column[place]] = codes.setdefault(digest, len(codes))
        told = {column[place]: sketch for place, (_, sketch) in held.items() if sketch}
        if told:
            drawn[n, list(told)] = True
            sketches[n, list(told)] = unpacked(list(told.values()))
    chance = _chance(np.array([density for _, density in places]))
    least = chance + NEAR * (1 - chance)
    for n in range(len(known)):
        alike = (masks[:n] == masks[n]) & (masks[n] >= 0)
        if drawn[n].any():
            near = jaccard(sketches[:n], sketches[n]) >= least
            alike |= near & drawn[:n] & drawn[n]
        yield np.flatnonzero(alike.any(axis=1)).tolist()


def likeness(
    id: str, mine: Tickets, theirs: Tickets, known: Mapping[Place, float] | None = None
) -> Likeness:
    """Return what two entries share.

    Args:
        id: Id of the other entry.
        mine: Tickets of this entry.
        theirs: Tickets of the other entry.
        known: Jaccard indices where the masks are available; otherwise sketches estimate them.
    """
    both = sorted(mine.keys() & theirs.keys(), key=lambda place: (-place[1], place[0]))
    indices = _estimated(mine, theirs, both) if known is None else known
    known_at = [at for at in both if at in indices]
    chance = _chance(np.array([density for _, density in known_at]))
    index = np.array([indices[at] for at in known_at])
    overlaps = dict(zip(known_at, ((index - chance) / (1 - chance)).tolist(), strict=True))
    equal = [at for at in both if mine[at][0] == theirs[at][0]]
    near = [at for at in both if overlaps.get(at, 0.0) >= NEAR and at not in equal]
    rungs = tuple(dict.fromkeys(at[1] for at in both if at in equal or at in near))
    mean = sum(overlaps.values()) / len(overlaps) if overlaps else None
    return Likeness(id, len(both), len(equal), len(near), rungs, mean)


def tickets(record: Record) -> Tickets:
    """Return the masks of a record's tickets, without full masks, which select nothing."""
    return {
        (cell.seed, cell.density): (cell.masks, cell.sketch)
        for cell in record.cells
        if cell.kind == "ticket" and cell.schedule == 1 and cell.masks and cell.density < 1
    }


def order(entry: Entry) -> tuple[float, str, str]:
    """Return the sort key of an entry in the ledger's order; unaccepted entries come last."""
    lines = [line["n"] for line in entry.lines if line["act"] == "accept"]
    return (min(lines) if lines else float("inf")), entry.id, entry.record.task.name


def _counts(earlier: Entry, entry: Entry) -> bool:
    own = earlier.record.method.name == entry.record.method.name
    return not (own and earlier.state == "superseded")


def _estimated(mine: Tickets, theirs: Tickets, places: Sequence[Place]) -> dict[Place, float]:
    """Estimate Jaccard indices from sketches, where both have them."""
    known = [at for at in places if mine[at][1] and theirs[at][1]]
    if not known:
        return {}
    ours, others = (unpacked([held[at][1] or "" for at in known]) for held in (mine, theirs))
    return dict(zip(known, jaccard(ours, others).tolist(), strict=True))


def _chance(density: FloatArray) -> FloatArray:
    """Return the expected Jaccard index of random masks at a density."""
    return density / (2 - density)
