"""What two methods' tickets say about the conjecture that both find the same subnetworks."""

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
    """Compute overlaps, nulls and verdicts on every task for which both methods have tickets.

    Args:
        a: An entry of the board, the file of a bundle, or an evaluation's folder.
        b: The other method, in any of the same forms.
        save: Whether to keep the result for the site; only possible for entries.
        home: Where to save; leaderboard/evidence by default.

    Raises:
        RecordError: If an argument is none of these, its tickets are not those of its record, or
            the two have no task in common.
        UsageError: If `save` is set for something that is not an entry of the board.
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
