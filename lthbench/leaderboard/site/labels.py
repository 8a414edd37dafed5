"""The site's terms for levels, divisions and boards, following the protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lthbench.leaderboard.board.entries import Entry
from lthbench.leaderboard.board.render import NOT_ACCEPTED, accepted
from lthbench.report.formats import plain


@dataclass(frozen=True)
class Level:
    """One level of verification: its word, what it proves, and what it leaves open."""

    number: int
    word: str
    proves: str
    open: str


LEVELS: Final = (
    Level(
        0,
        "reported",
        "The record is well-formed and is its source's: digests hold, and every score follows "
        "from the counts of correct answers in it.",
        "Whether anything was trained at all.",
    ),
    Level(
        1,
        "artefacts checked",
        "The tickets are there, with the counts, origins and weights that the record claims; "
        "controls are those that the seed draws; no accepted entry has the same tickets.",
        "Whether they score what the record says.",
    ),
    Level(
        2,
        "retrained",
        "Cells that nobody could foresee were trained again from seed and masks: whole curves "
        "agree within the noise floor, in both directions.",
        "Whether the search finds these tickets, and at what cost.",
    ),
    Level(
        3,
        "reproduced",
        "The search was run again from its source in a sandbox, on fresh seeds and on published "
        "ones: as good, no dearer, and the same tickets.",
        "Seeds and tasks that nobody ran.",
    ),
)
NO_LEVEL: Final = (
    "Who the authors are, whose idea it is, what a method works out between its calls (the meter "
    "counts calls), or how it does elsewhere."
)
RANKED_LEVEL: Final = 2

BOARDS: Final = {
    "early": ("Early weights", "tickets that start from the initial or the first steps' weights"),
    "init": ("At initialisation", "tickets that start from the initial weights alone"),
    "open": ("Open", "tickets of any origin, with weights of their own too"),
    "untrained": (
        "Untrained",
        "tickets scored as they stand, no weight trained; never ranked with trained ones",
    ),
}
DIVISIONS: Final = {
    "init": "at initialisation",
    "rewind": "early weights",
    "open": "open",
    "reference": "reference",
}
STATES: Final = {
    "accepted": "accepted",
    "listed": "listed, not yet in the ledger",
    "superseded": "superseded",
    "retracted": "retracted",
}


def level(number: int) -> str:
    """Format a level as in every row: 2 retrained."""
    return f"{number} {LEVELS[number].word}"


def level_of(found: Sequence[Entry]) -> str:
    """Return the lowest level of a row's entries; those not in the ledger rank below any level."""
    return level(min(entry.level for entry in found)) if accepted(found) else NOT_ACCEPTED


def many(count: int, one: str, more: str = "") -> str:
    """Format a count: 1 entry, 12 entries."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def lines(text: str) -> str:
    """Format multi-line text, partly untrusted: hidden characters in a line are made visible."""
    kept = (line.rstrip() for line in text.split("\n"))
    shown = (line[: len(line) - len(line.lstrip(" "))] + plain(line, 4000) for line in kept)
    return "\n".join(shown).rstrip("\n")
