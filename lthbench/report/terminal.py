"""Tables in a terminal."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from dataclasses import replace

from lthbench.protocol.constants import CONTROLS
from lthbench.records.schema import Record
from lthbench.report.answers import Answer, answers
from lthbench.report.remarks import LISTED, Remark, remarks
from lthbench.report.table import Table, grid, stacked
from lthbench.report.tables import _scored
from lthbench.report.terms import title

WIDTH = 100  # columns of a terminal for which tables are laid out


def terminal(record: Record, width: int = WIDTH) -> str:
    """Return what `lthbench evaluate` prints, in characters that every terminal code page has."""
    good, dense, controls, cost = answers(record)
    # Another control would not fit beside the others; its gap is in the table of gaps.
    first, *others = _scored(record, [kind for kind in CONTROLS if kind != "reinit-signs"])
    lines = [title(record), ""]
    lines += [_line(answer, width) for answer in (good, dense, controls)]
    lines += ["", _text(first, width), ""]
    lines += [_text(table, width) + "\n" for table in others]
    lines += [_line(cost, width)]
    lines += [_hung(remark.name, remark.text, width) for remark in shortened(remarks(record))]
    return "\n".join(lines).translate(TERMINAL) + "\n"


TERMINAL = str.maketrans({"−": "-", "…": "...", "\u00a0": " ", "≈": "~"})
WIDER = str.maketrans({"≥": ">=", "≤": "<="})  # replaced before wrapping
UNBREAKABLE = re.compile(r"(?<=\d) %")
HANG = 18
PADDING = 2  # added by tabulate to a column's head


def _line(answer: Answer, width: int) -> str:
    figure = f"{answer.name} {answer.value} {answer.spread}".strip()
    return _hung(answer.question, "; ".join((figure, *answer.notes)), width)


def _hung(name: str, text: str, width: int) -> str:
    return wrapped(text, max(width, HANG + 20), f"{name:<{HANG}}", " " * HANG)


def wrapped(text: str, width: int, first: str = "", others: str = "") -> str:
    """Wrap text to a width, keeping numbers with their percent signs."""
    return textwrap.fill(
        UNBREAKABLE.sub("\u00a0%", text),
        width,
        initial_indent=first,
        subsequent_indent=others,
        break_on_hyphens=False,
    )


def shortened(found: Sequence[Remark]) -> list[Remark]:
    """Shorten remarks to a readable number of failures."""
    failed = [remark for remark in found if remark.name == "Failed"]
    kept = [remark for remark in found if remark.name != "Failed"] + failed[:LISTED]
    if len(failed) > LISTED:
        more = f"{len(failed) - LISTED} more; report.html lists them all"
        kept.append(Remark("", more, warns=True))
    return kept


def _text(table: Table, width: int) -> str:
    """Format caption, grid and note; a wide grid continues below, repeating its first column."""
    rows = tuple(tuple(text.translate(WIDER) for text in row) for row in table.rows)
    table = replace(table, rows=rows, note=table.note.translate(WIDER))
    parts = [wrapped(table.caption, width)]
    parts += [grid(_of(table, columns), head=stacked) for columns in _fitting(table, width)]
    parts += [wrapped(table.note, width)] if table.note else []
    return "\n".join(parts)


def _fitting(table: Table, width: int) -> list[list[int]]:
    """Return groups of columns to show side by side; each group starts with the first column."""
    widths = []
    for column, head in enumerate(table.head):
        heads = [len(line) + PADDING for line in stacked(head).split("\n")]
        widths.append(max(*heads, *(len(row[column]) for row in table.rows)))
    groups, used = [[0]], widths[0]
    for column in range(1, len(widths)):
        if used + 2 + widths[column] > width and len(groups[-1]) > 1:
            groups.append([0])
            used = widths[0]
        groups[-1].append(column)
        used += 2 + widths[column]
    return groups


def _of(table: Table, columns: Sequence[int]) -> Table:
    rows = tuple(tuple(row[column] for column in columns) for row in table.rows)
    return replace(table, head=tuple(table.head[column] for column in columns), rows=rows)
