"""A table: caption, columns, rows and a note; as a grid of text by `tabulate`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Escape = Callable[[str], str]


@dataclass(frozen=True)
class Table:
    """A caption, column heads, rows of text, and a note on the figures.

    Attributes:
        left: Heads of the columns that are aligned to the left.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    left: tuple[str, ...] = ()


def grid(table: Table, form: str = "simple", cell: Escape = str, head: Escape | None = None) -> str:
    """Format heads and rows in a form of `tabulate`, after escaping cells and heads."""
    from tabulate import tabulate

    return tabulate(
        [[cell(text) for text in row] for row in table.rows],
        [(head or cell)(text) for text in table.head],
        tablefmt=form,
        disable_numparse=True,
        colalign=["left" if name in table.left else "right" for name in table.head],
    )


def stacked(head: str) -> str:
    """Split a column's head into the two narrowest lines."""
    words = head.split(" ")
    if len(head) <= 8 or len(words) == 1:
        return head
    cuts = [(" ".join(words[:i]), " ".join(words[i:])) for i in range(1, len(words))]
    return "\n".join(min(cuts, key=lambda lines: max(map(len, lines))))
