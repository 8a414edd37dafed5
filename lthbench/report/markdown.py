"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable

from lthbench.records.schema import Record
from lthbench.report.answers import answers
from lthbench.report.remarks import remarks
from lthbench.report.table import Table
from lthbench.report.tables import tables
from lthbench.report.terms import title

Escape = Callable[[str], str]


def markdown(record: Record) -> str:
    """Return the whole record as Markdown, with tables that GitHub and pandoc read."""
    blocks = [f"## {md(title(record))}"]
    lines = [
        f"- **{answer.question}:** {md(f'{answer.name} {answer.value} {answer.spread}'.strip())}"
        + "".join(f"; {md(note)}" for note in answer.notes)
        for answer in answers(record)
    ]
    blocks.append("\n".join(lines))
    for table in tables(record):
        blocks.append(f"**{md(table.caption)}**")
        blocks.append(formatted(table, "pipe", md, md))
        blocks += [md(table.note)] if table.note else []
    blocks.append("\n".join(f"- {r.name}: {md(r.text)}" for r in remarks(record)))
    return "\n\n".join(blocks) + "\n"


def md(text: str) -> str:
    """Escape text so that Markdown shows it verbatim."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_[]|~#$":
        escaped = escaped.replace(mark, f"\\{mark}")
    return escaped


def formatted(table: Table, form: str, cell: Escape, head: Escape) -> str:
    """Format a table with `tabulate`, escaping its cells and heads."""
    from tabulate import tabulate

    return tabulate(
        [[cell(text) for text in row] for row in table.rows],
        [head(text) for text in table.head],
        tablefmt=form,
        disable_numparse=True,
        colalign=["right"] * len(table.head),
    )
