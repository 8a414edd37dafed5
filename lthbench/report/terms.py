"""The terms for a record in text: its set, its board, its controls."""

from __future__ import annotations

from collections.abc import Sequence

from lthbench.records import intervals
from lthbench.records.schema import Record
from lthbench.report.formats import plain

CONTROLLED = {
    "alternate": "on every second rung, from the sparsest up",
    "one rung": "on the sparsest rung but one alone",
}


BOARDS = {
    "init": "at initialisation",
    "rewind": "early weights",
    "open": "open",
    "reference": "reference: shown, never ranked",
}


SHOWN = {"test": "test split", "held_out": "held-out part"}


def listing(numbers: Sequence[int]) -> str:
    """Format seeds as a range (0 to 4) or a list (3, 7)."""
    consecutive = list(numbers) == list(range(numbers[0], numbers[0] + len(numbers)))
    if consecutive and len(numbers) > 2:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


def title(record: Record) -> str:
    """Return the method and the task."""
    version = f"version {record.task.version}"
    return f"{plain(record.method.name)} on {plain(record.task.name)} ({version})"


def is_untrained(record: Record) -> bool:
    """Return whether tickets are scored without training."""
    return record.scores.untrained is not None


def set_of(record: Record) -> str:
    """Return the name of the set whose scores are shown."""
    return SHOWN[record.shown]


def matching_available(record: Record) -> str:
    """Return why a matching density is unavailable; "" if it is available."""
    if len(record.seeds) < intervals.MIN_SEEDS:
        return f"needs {intervals.MIN_SEEDS} seeds"
    if record.scores.dense is None:
        return "a dense run failed"
    return "" if record.reference is not None else "no frozen reference for this protocol"
