"""Works as BibTeX, CFF and text. Names are untrusted text, and are escaped so as to be inert."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Sequence
from urllib.parse import quote

from lthbench.leaderboard.citation.works import Author, Work
from lthbench.report.formats import plain
from lthbench.report.latex import LATEX

LIMIT = 1600  # maximum characters of one field
# BibTeX counts even escaped braces, so they must not occur at all.
BIBTEX = {**LATEX, "{": r"\textbraceleft{}", "}": r"\textbraceright{}", '"': "''"}
ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u",
    "\u0307": ".", "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d",
    "\u0327": "c", "\u0328": "k",
}  # fmt: skip
LETTERS = {
    "ß": r"{\ss}", "æ": r"{\ae}", "Æ": r"{\AE}", "œ": r"{\oe}", "Œ": r"{\OE}", "ø": r"{\o}",
    "Ø": r"{\O}", "ł": r"{\l}", "Ł": r"{\L}", "ı": r"{\i}", "đ": r"{\dj}", "Đ": r"{\DJ}",
}  # fmt: skip
# Work types: the entry types of plain BibTeX, and those of CFF.
BIBTEX_KINDS = {
    "article": ("article", "journal"), "conference": ("inproceedings", "booktitle"),
    "report": ("techreport", "institution"), "data": ("misc", "howpublished"),
    "software": ("misc", "howpublished"),
}  # fmt: skip
CFF_KINDS = {
    "article": "article", "conference": "conference-paper", "report": "report", "data": "data",
    "software": "software",
}  # fmt: skip


# BibTeX


def bibtex(works: Sequence[Work]) -> str:
    """Format one entry per work, in UTF-8 where LaTeX has no command for a letter."""
    return "\n".join(_bibtex(work) for work in works)


def _bibtex(work: Work) -> str:
    kind, where = BIBTEX_KINDS[work.kind]
    if work.arxiv and work.kind == "report":
        kind, where = "misc", "howpublished"
    fields = {
        "author": " and ".join(map(_bibtex_author, work.authors)),
        "title": f"{{{tex(work.title)}}}",  # otherwise its capitals are lost
        where: tex(work.where),
        "year": "" if work.year is None else str(work.year),
        "volume": tex(work.volume),
        "number": tex(work.number),
        "pages": "" if work.pages is None else f"{work.pages[0]}--{work.pages[1]}",
        "doi": address(work.doi),
        "eprint": tex(work.arxiv),
        "archiveprefix": "arXiv" if work.arxiv else "",
        "url": address(work.url),
        "version": tex(work.version),
        "note": tex(_sentences(work)),
    }
    lines = [f"  {name} = {{{value}}}," for name, value in fields.items() if value]
    return "\n".join([f"@{kind}{{{key(work.key)},", *lines, "}"]) + "\n"


def _bibtex_author(author: Author) -> str:
    """Format a person as "Family, Given", and a group in braces so that its name stays intact."""
    if author.given.strip():
        return f"{tex(author.name)}, {tex(author.given)}"
    return f"{{{tex(author.name)}}}"


def tex(text: str) -> str:
    """Escape one line of text so that BibTeX and LaTeX show it verbatim."""
    return "".join(_letter(c) for c in unicodedata.normalize("NFC", plain(text, LIMIT)))


def _letter(character: str) -> str:
    if character in BIBTEX:
        return BIBTEX[character]
    if character in LETTERS:
        return LETTERS[character]
    base, *marks = list(unicodedata.normalize("NFD", character))
    if len(marks) == 1 and base.isascii() and base.isalpha() and marks[0] in ACCENTS:
        return f"{{\\{ACCENTS[marks[0]]}{{{base}}}}}"
    parts = unicodedata.normalize("NFKC", character)
    if any(part in BIBTEX for part in parts):  # a full-width brace, which normalises to a brace
        return "".join(BIBTEX.get(part, part) for part in parts)
    return character


def address(text: str) -> str:
    """Escape a DOI or address for BibTeX, which takes it verbatim: active characters become %XX."""
    return quote(plain(text, LIMIT), safe="!#$&'()*+,-./:;=?@[]_~%")


def key(name: str) -> str:
    """Return a BibTeX key: letters, digits and single hyphens."""
    kept = "".join(c if c.isascii() and c.isalnum() else " " for c in name)
    return "-".join(kept.split()) or "work"


# CFF


def cff(work: Work, message: str, references: Sequence[Work] = ()) -> str:
    """Return a whole CITATION.cff about one work, which by itself has no journal or year."""
    lines = [
        "cff-version: 1.2.0",
        f"message: {quoted(message)}",
        *_cff_fields(work, "dataset" if work.kind == "data" else "software"),
        *([f"abstract: {quoted(work.note)}"] if work.note else []),
        *(["references:"] if references else []),
    ]
    for other in references:
        told = [*_cff_fields(other, CFF_KINDS[other.kind]), *_cff_place(other)]
        lines += [f"  {' ' if at else '-'} {line}" for at, line in enumerate(told)]
    return "\n".join(lines) + "\n"


def _cff_fields(work: Work, kind: str) -> Iterator[str]:
    yield f"type: {kind}"
    yield f"title: {quoted(work.title)}"
    yield "authors:"
    for author in work.authors:
        if author.given.strip():
            yield f"  - family-names: {quoted(author.name)}"
            yield f"    given-names: {quoted(author.given)}"
        else:
            yield f"  - name: {quoted(author.name)}"
    for name, value in (("version", work.version), ("doi", work.doi), ("url", work.url)):
        if value:
            yield f"{name}: {quoted(value)}"
    found = [("preprint", f"arXiv:{work.arxiv}")] if work.arxiv else []
    found += [(f"of the {name}", f"sha256:{value}") for name, value in work.digests]
    if found:
        yield "identifiers:"
    for name, value in found:
        yield "  - type: other"
        yield f"    value: {quoted(value)}"
        yield f"    description: {quoted(name)}"


def _cff_place(work: Work) -> Iterator[str]:
    """Yield where and when another's work appeared."""
    if work.year is not None:
        yield f"year: {work.year}"
    if work.kind == "article":
        yield f"journal: {quoted(work.where)}"
    elif work.kind == "conference":
        yield "conference:"
        yield f"  name: {quoted(work.where)}"
    elif work.where:
        yield "institution:" if work.kind == "report" else "publisher:"
        yield f"  name: {quoted(work.where)}"
    if work.volume:
        yield f"volume: {work.volume}"
    if work.number:
        yield f"issue: {quoted(work.number)}"
    if work.pages:
        yield f"start: {work.pages[0]}"
        yield f"end: {work.pages[1]}"
    if work.note:
        yield f"notes: {quoted(work.note)}"


def quoted(text: str) -> str:
    """Return a YAML string: JSON's, once all characters that YAML forbids are removed."""
    return json.dumps(plain(text, LIMIT), ensure_ascii=False)


# Text


def text(works: Sequence[Work]) -> str:
    """Format one paragraph per work."""
    return "\n\n".join(_text(work) for work in works) + "\n"


def _text(work: Work) -> str:
    names = [f"{author.given} {author.name}".strip() for author in work.authors]
    who = ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]
    where = work.where
    if work.volume:
        where += f" {work.volume}" + (f"({work.number})" if work.number else "")
    if work.pages:
        where += f", pages {work.pages[0]} to {work.pages[1]}"
    parts = [
        who,
        work.title + (f", version {work.version}" if work.version else ""),
        ", ".join(part for part in (where, str(work.year or "")) if part),
        f"doi:{work.doi}" if work.doi else "",
        f"arXiv:{work.arxiv}" if work.arxiv else "",
        work.url,
        _sentences(work),
    ]
    return " ".join(f"{plain(part, LIMIT).rstrip('.')}." for part in parts if part)


def _sentences(work: Work) -> str:
    """Return the note, and the digests that identify the work."""
    told = [f"sha256 of its {name}: {value}" for name, value in work.digests]
    return " ".join(f"{part.rstrip('.')}." for part in (work.note, *told) if part)
