"""Tables in LaTeX."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping

from lthbench.io import visible_text
from lthbench.records.schema import Record
from lthbench.report.answers import answers
from lthbench.report.markdown import formatted
from lthbench.report.remarks import remarks
from lthbench.report.tables import tables
from lthbench.report.terminal import shortened, stacked
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
    parts = [
        f"% {only_ascii(title(record))}; method {record.method.digest[:12]}",
        r"\begin{table}[p]",
        r"\centering",
        r"\scriptsize",
        r"\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{tex(_caption(record))}}}",
        rf"\label{{tab:{_label(record)}}}",
    ]
    for table in tables(record):
        parts += [r"\par\medskip", tex(table.caption) + r".\par\smallskip"]
        parts.append(formatted(table, "latex_raw", tex, _tex_head))
        parts += [r"\par\smallskip " + tex(table.note)] if table.note else []
    return "\n".join([*parts, r"\end{table}"]) + "\n"


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
