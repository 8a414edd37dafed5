"""Tables in Markdown."""

from __future__ import annotations

from lthbench.records.schema import Record
from lthbench.report.answers import answers
from lthbench.report.remarks import remarks
from lthbench.report.table import Table, grid
from lthbench.report.tables import tables
from lthbench.report.terms import title


def markdown(record: Record) -> str:
    """Return the whole record as Markdown, with tables that GitHub and pandoc read."""
    parts = [f"## {md(title(record))}"]
    lines = [
        f"- **{answer.question}:** {md(f'{answer.name} {answer.value} {answer.spread}'.strip())}"
        + "".join(f"; {md(note)}" for note in answer.notes)
        for answer in answers(record)
    ]
    parts.append("\n".join(lines))
    for table in tables(record):
        parts += blocks(table)
    parts.append("\n".join(f"- {r.name}: {md(r.text)}" for r in remarks(record)))
    return "\n\n".join(parts) + "\n"


def md(text: str) -> str:
    """Escape text so that Markdown shows it verbatim."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_[]|~#$":
        escaped = escaped.replace(mark, f"\\{mark}")
    return escaped


def blocks(table: Table) -> list[str]:
    """Return caption, grid and note."""
    note = [md(table.note)] if table.note else []
    return [f"**{md(table.caption)}**", grid(table, "pipe", md), *note]
