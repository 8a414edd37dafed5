"""Numbers as text, rounded according to their precision."""

from __future__ import annotations

from lthbench.io import visible_text
from lthbench.records import intervals
from lthbench.records.intervals import Interval
from lthbench.records.schema import Record
from lthbench.records.scores import Estimate, Rung

NA = "n/a"
LINES = str.maketrans("\n\r\t", "   ")


def plain(text: str, limit: int = 200) -> str:
    """Put untrusted text on one line, making hidden or disguised characters visible."""
    shown = " ".join(visible_text.visible(text.translate(LINES)).split())
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """Format a number with fixed decimals, a real minus, and no negative zero."""
    text = f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
    if not text.strip("+-0."):
        return text.lstrip("+-")
    return text.replace("-", "−")


def percent(density: float) -> str:
    """Format a density as in tables: 51.2 %, 8.59 %."""
    value = 100 * density
    return f"{value:.0f}" if value >= 99.95 else f"{value:.{1 if value >= 9.995 else 2}f}"


def probability(p: float | None) -> str:
    """Format a p value as in papers: .031, <.001."""
    if p is None:
        return NA
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def estimate(
    found: Interval | None,
    digits: int,
    scale: float = 100,
    *,
    signed: bool = False,
    brackets: bool = False,
) -> str:
    """Format a mean with its interval; two seeds as both values; one or equal values as one."""
    if found is None:
        return NA
    if found.low is None or found.high is None:
        values = found.values if isinstance(found, Estimate) else (found.mean,)
        if len(values) >= intervals.MIN_SEEDS and intervals.alike(values):
            return f"{number(scale * values[0], digits, signed=signed)} (all {len(values)})"
        return " / ".join(number(scale * value, digits, signed=signed) for value in values)
    mean = number(scale * found.mean, digits, signed=signed)
    if brackets:
        return f"{mean} {interval(found, digits, scale, signed=signed)}"
    return f"{mean} ±{number(scale * (found.high - found.low) / 2, digits)}"


def interval(found: Interval, digits: int, scale: float = 1, *, signed: bool = False) -> str:
    """Format only the interval, in brackets; empty with too few seeds for one."""
    if found.low is None or found.high is None:
        return ""
    low, high = (number(scale * end, digits, signed=signed) for end in (found.low, found.high))
    return f"[{low}, {high}]"


def ranks_left(rank: tuple[int, int]) -> str:
    """Format a rank as the interval of possible ranks, even if it contains only one."""
    return f"{rank[0]}–{rank[1]}"


def is_area(record: Record) -> bool:
    """Return whether a run's score is its accuracy averaged over log step, not accuracy at T."""
    return record.task.kind == "area"


def measure(record: Record) -> str:
    """Return the name of a run's score."""
    return "area" if is_area(record) else "accuracy"


def decimals(record: Record) -> int:
    """Return the decimals of a percentage: one for sets of under 1,000 examples."""
    smallest = min(sets[record.shown] for sets in record.sizes.values())
    return 2 if smallest >= 1000 else 1


def score(record: Record, found: Interval | None) -> str:
    """Format a rung's score: percent with its interval."""
    return estimate(found, decimals(record))


def difference(record: Record, found: Interval | None) -> str:
    """Format a paired difference: points with its interval."""
    return estimate(found, decimals(record), signed=True)


def gap(record: Record, rung: Rung, control: str) -> str:
    """Format ticket minus control, paired; both differences for two seeds."""
    found, ticket, other = rung.gap(control), rung.ticket, rung.of(control)
    if found is None or ticket is None or other is None:
        return NA
    values = tuple(a - b for a, b in zip(ticket.values, other.values, strict=True))
    return difference(record, Estimate(found.mean, found.low, found.high, found.n, values))


def cost_text(mean: float) -> str:
    """Format a search cost in dense trainings; tiny costs are not shown as zero."""
    return "<0.01" if 0 < mean < 0.005 else number(mean, _cost_digits(mean))


def _cost_digits(mean: float) -> int:
    return 1 if mean >= 9.95 or mean == 0 else 2


def ratio(found: Interval) -> str:
    """Format a difference of log2 steps as a ratio of steps, with its interval."""
    low, high = (None if end is None else 2.0**end for end in (found.low, found.high))
    mean = 2.0**found.mean
    return f"{number(mean, 2)} {interval(Interval(mean, low, high, found.n), 2)}".rstrip()
