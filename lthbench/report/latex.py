"""Tables in LaTeX."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping

from lthbench.io import visible_text
from lthbench.records.schema import Record
from lthbench.report.answers import answers
from lthbench.report.remarks import remarks
from lthbench.report.table import Escape, Table, grid, stacked
from lthbench.report.tables import tables
from lthbench.report.terminal import shortened
from lthbench.report.terms import title

LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    "−": "$-$", "\u00a0": "~", "±": r"$\pm$", "–": "--", "…": r"\ldots{}",
    "≥": r"$\geq$", "≤": r"$\leq$", "≈": r"$\approx$",
}  # fmt: skip


COMMENT = {
    "−": "-", "\u00a0": " ", "±": "+-", "–": "-", "…": "...", "≥": ">=", "≤": "<=", "≈": "~",
}  # fmt: skip


OVERLAY = 1  # combining class of strokes: without its stroke, ≠ would become =


def latex(record: Record) -> str:
    """Return an appendix's tables: one `table` of plain `tabular`s, without packages."""
    comment = f"% {only_ascii(title(record))}; method {record.method.digest[:12]}"
    made = floating(_caption(record), tables(record), label=_label(record), head=_tex_head)
    return f"{comment}\n{made}\n"


def floating(
    caption: str, shown: Iterable[Table], *, label: str = "", head: Escape | None = None
) -> str:
    """Return one `table` of plain `tabular`s, with a caption and perhaps a label."""
    parts = [r"\begin{table}[p]", r"\centering", r"\scriptsize", r"\setlength{\tabcolsep}{3pt}"]
    parts.append(rf"\caption{{{tex(caption)}}}")
    parts += [rf"\label{{tab:{label}}}"] if label else []
    for table in shown:
        parts += [r"\par\medskip", tex(table.caption) + r".\par\smallskip"]
        parts.append(grid(table, "latex_raw", tex, head))
        parts += [r"\par\smallskip " + tex(table.note)] if table.note else []
    return "\n".join([*parts, r"\end{table}"])


def _caption(record: Record) -> str:
    sentences = [title(record) + "."]
    for answer in answers(record):
        figure = f"{answer.name} {answer.value} {answer.spread}".strip()
        sentences.append(f"{answer.question}: {'; '.join((figure, *answer.notes))}.")
    kept = [r for r in shortened(remarks(record)) if r.warns or r.name == "Seeds"]
    sentences += [f"{r.name}: {r.text}." for r in kept]
    return " ".join(sentences)


def _label(record: Record) -> str:
    """Return a name valid in a LaTeX label: letters, digits and hyphens."""
    name = f"{record.method.name}-{record.task.name}"
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name)


def _tex_head(head: str) -> str:
    lines = stacked(head).split("\n")
    return r"\shortstack[r]{" + r"\\".join(tex(line) for line in lines) + "}"


def tex(text: str) -> str:
    """Escape text for a plain LaTeX font, so that it stays inert even when normalised."""
    return _in_ascii(text, LATEX)


def only_ascii(text: str) -> str:
    """Convert the text of a comment line to ASCII."""
    return _in_ascii(text, COMMENT)


def _in_ascii(text: str, written: Mapping[str, str]) -> str:
    """Convert text to ASCII, using `written` for a character or for its components."""
    return "".join(_letter(c, written) for c in unicodedata.normalize("NFC", text))


def _letter(character: str, written: Mapping[str, str]) -> str:
    """Return a character's plain form without accents, or its number if it has none."""
    if character in written:
        return written[character]
    if character.isspace():
        return " "
    parts = unicodedata.normalize("NFKD", character)
    bare = "".join(c for c in parts if unicodedata.combining(c) <= OVERLAY)
    if not (bare.isascii() and bare.isprintable() and bare):
        bare = visible_text.number(character)
    return "".join(written.get(c, c) for c in bare)
