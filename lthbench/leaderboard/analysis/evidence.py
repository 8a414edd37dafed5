"""What two methods' tickets say about the conjecture that they find the same subnetworks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from lthbench.errors import RecordError, UsageError
from lthbench.leaderboard.analysis import files
from lthbench.leaderboard.analysis.files import load
from lthbench.leaderboard.analysis.render import Evidence
from lthbench.leaderboard.analysis.schema import Saved
from lthbench.leaderboard.analysis.verdicts import RULES_VERSION, Rule, rules

__all__ = ["RULES_VERSION", "Evidence", "Rule", "Saved", "evidence", "load", "rules"]


def evidence(
    a: str | Path, b: str | Path, *, save: bool = False, home: Path | None = None
) -> Evidence:
    """Overlaps, nulls and verdicts of two methods on every task that both have tickets of.

    Args:
        a, b: each an entry of the board, the file of a bundle, or an evaluation's folder.
        save: keep it for the site, under `home` or leaderboard/evidence; of entries alone.

    Raises:
        RecordError: if one is none of these, its tickets are not those of its record, or the two
            have no task in common.
        UsageError: with save, for what is no entry of the board.
    """
    from lthbench.leaderboard.analysis import measure, sources
    from lthbench.leaderboard.board import entries

    board = cache(entries.load)
    first, second = (sources.tickets(str(name), board) for name in (a, b))
    pairs, left_out = measure.pairs(first, second)
    if not pairs:
        raise RecordError(f"{a}, {b}: {left_out or 'no task in common'}; nothing to compare")
    if save:
        _only_entries([side for pair in pairs for side in pair])
    found = tuple(measure.of_pair(*pair) for pair in pairs)
    written = tuple(files.write(one, home or files.folder()) for one in found) if save else ()
    return Evidence(found, left_out, written)


def _only_entries(sides: Sequence[object]) -> None:
    from lthbench.leaderboard.analysis.sources import Tickets

    for side in sides:
        assert isinstance(side, Tickets)
        if not side.entry:
            raise UsageError(
                f"--save: {side.id} is no entry of the board; accept its record first, "
                "or leave --save out"
            )
