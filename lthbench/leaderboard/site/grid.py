"""Tables as the site's templates lay them out: cells with links, and with values to sort by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lthbench.records.intervals import Interval
from lthbench.report.formats import NA, estimate, interval, number

NOTHING = Markup("")


@dataclass(frozen=True)
class Column:
    """A column's head.

    Attributes:
        kind: what scripts sort it by: "n" numbers, "t" text, "" not at all.
        first: the direction of the first sorting, where it is not that of its kind.
        task: the task it belongs to, for scripts that leave one task alone.
    """

    key: str
    label: str
    kind: str = "n"
    css: str = ""
    first: str = ""
    task: str = ""


@dataclass(frozen=True)
class GridCell:
    """Text, perhaps a link; `key` is what it is sorted by, `extra` stands after the text."""

    text: str
    href: str = ""
    key: float | str | None = None
    css: str = ""
    extra: Markup = NOTHING


@dataclass(frozen=True)
class GridRow:
    """Cells, and facts of the row that scripts filter by."""

    cells: tuple[GridCell, ...]
    facts: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Grid:
    """A table that scripts may sort and filter.

    Attributes:
        heading: the place of the column whose cells are the rows' heads.
        silent: whether the caption is for those alone who cannot see the heading above.
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


Found = Mapping[str, Any] | None


def missing(text: str = NA) -> GridCell:
    """A cell without a figure; sorted last whichever way."""
    return GridCell(text, css="na")


def figure(value: float | None, digits: int, **more: Any) -> GridCell:
    """A cell of one number."""
    if value is None:
        return missing()
    return GridCell(number(value, digits), key=_key(value), **more)


def cost(value: float | None) -> GridCell:
    """A cell of a search cost, in dense trainings; what is hardly any is no zero."""
    if value is None:
        return missing()
    if 0 < value < 0.005:
        return GridCell("<0.01", key=_key(value))
    return figure(value, 2 if 0 < value < 9.95 else 1 if value else 0)


def found(value: Found, digits: int, scale: float = 100, **more: Any) -> GridCell:
    """A cell of a mean with its interval, as a record's aggregates hold it."""
    signed = bool(more.pop("signed", False))
    brackets = bool(more.pop("brackets", False))
    if value is None:
        return missing()
    text = estimate(value, digits, scale, signed=signed, brackets=brackets)
    return GridCell(text, key=_key(scale * value["mean"]), **more)


def bounded(value: Interval | None, digits: int, **more: Any) -> GridCell:
    """A cell of a mean with its interval in brackets."""
    if value is None:
        return missing()
    spread = interval(vars(value), digits)
    told = Markup(' <span class="ci">{}</span>').format(spread) if spread else NOTHING
    extra = told + more.pop("extra", NOTHING)
    return GridCell(number(value.mean, digits), key=_key(value.mean), extra=extra, **more)


def whisker(value: Interval | None, ends: tuple[float, float]) -> Markup:
    """A dot with its interval on the common axis of a column, for the eye alone."""
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
    """The common axis of a column of intervals: from the 5th of their lower ends to the highest.

    A few that are far below all others would press the rest together; they stand at the edge.
    """
    lows = sorted(v.mean if v.low is None else v.low for v in values if v is not None)
    highs = [v.mean if v.high is None else v.high for v in values if v is not None]
    if not lows:
        return 0.0, 0.0
    return lows[len(lows) // 20], max(highs)


def _key(value: float) -> float:
    return float(f"{value:.6g}")
