"""Tables for the site's templates: cells with links and with sort keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lthbench.records.intervals import Interval
from lthbench.report.formats import NA, estimate, interval, number

NOTHING = Markup("")


@dataclass(frozen=True)
class Column:
    """A column's header.

    Attributes:
        kind: How scripts sort it: "n" numbers, "t" text, "" not at all.
        first: Initial sort direction, where it differs from the default of the kind.
        task: The task it belongs to, for scripts that filter by task.
    """

    key: str
    label: str
    kind: str = "n"
    css: str = ""
    first: str = ""
    task: str = ""


@dataclass(frozen=True)
class GridCell:
    """Text, possibly a link; `key` is the sort key, `extra` follows the text."""

    text: str
    href: str = ""
    key: float | str | None = None
    css: str = ""
    extra: Markup = NOTHING


@dataclass(frozen=True)
class GridRow:
    """Cells, and attributes of the row that scripts filter by."""

    cells: tuple[GridCell, ...]
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Grid:
    """A table that scripts may sort and filter.

    Attributes:
        heading: Index of the column whose cells are row headers.
        silent: Whether the caption is only for readers who cannot see the heading above.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[GridRow, ...]
    note: str = ""
    heading: int = 0
    sorts: bool = True
    silent: bool = False
    css: str = ""


def missing(text: str = NA) -> GridCell:
    """Return a cell without a figure; sorted last in either direction."""
    return GridCell(text, css="na")


def figure(value: float | None, digits: int) -> GridCell:
    """Return a cell with one number."""
    if value is None:
        return missing()
    return GridCell(number(value, digits), key=_key(value))


def cost(value: float | None) -> GridCell:
    """Return a cell with a search cost, in dense trainings; tiny costs are not shown as zero."""
    if value is None:
        return missing()
    if 0 < value < 0.005:
        return GridCell("<0.01", key=_key(value))
    return figure(value, 2 if 0 < value < 9.95 else 1 if value else 0)


def found(
    value: Interval | None,
    digits: int,
    scale: float = 100,
    *,
    signed: bool = False,
    brackets: bool = False,
) -> GridCell:
    """Return a cell with a mean and its interval."""
    if value is None:
        return missing()
    text = estimate(value, digits, scale, signed=signed, brackets=brackets)
    return GridCell(text, key=_key(scale * value.mean))


def bounded(value: Interval | None, digits: int, extra: Markup) -> GridCell:
    """Return a cell with a mean and its interval in brackets, followed by `extra`."""
    if value is None:
        return missing()
    spread = interval(value, digits)
    told = Markup(' <span class="ci">{}</span>').format(spread) if spread else NOTHING
    return GridCell(number(value.mean, digits), key=_key(value.mean), extra=told + extra)


def whisker(value: Interval | None, ends: tuple[float, float]) -> Markup:
    """Draw a dot with its interval on the column's common axis; purely visual."""
    if value is None or ends[1] <= ends[0]:
        return NOTHING

    def place(x: float) -> float:
        return 100 * min(1.0, max(0.0, (x - ends[0]) / (ends[1] - ends[0])))

    low = place(value.mean if value.low is None else value.low)
    high = place(value.mean if value.high is None else value.high)
    return Markup('<i class="w" style="--a:{:.1f};--b:{:.1f};--m:{:.1f}"></i>').format(
        low, high - low, place(value.mean)
    )


def axis(values: Sequence[Interval | None]) -> tuple[float, float]:
    """Return the common axis of a column of intervals: from the 5th percentile of lower ends.

    It ends at the highest upper end. A few outliers far below would compress the rest; they are
    drawn at the edge.
    """
    lows = sorted(v.mean if v.low is None else v.low for v in values if v is not None)
    highs = [v.mean if v.high is None else v.high for v in values if v is not None]
    if not lows:
        return 0.0, 0.0
    return lows[len(lows) // 20], max(highs)


def _key(value: float) -> float:
    return float(f"{value:.6g}")
