"""Citations of the benchmark, an entry, or a task with its data: `lthbench cite`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lthbench.errors import UsageError
from lthbench.leaderboard.board import entries
from lthbench.leaderboard.board.entries import Entry
from lthbench.leaderboard.citation import formats, works
from lthbench.leaderboard.citation.works import DATA, Author, Work
from lthbench.protocol.task import load_task

__all__ = ["FORMATS", "cite", "of_benchmark", "of_data", "of_entry", "of_task"]

FORMATS = ("bibtex", "cff", "text")
LEVELS = ("reported", "artefacts checked", "retrained", "reproduced")


def cite(
    entry: str | None = None,
    task: str | None = None,
    data: bool = False,
    format: str = "bibtex",
) -> str:
    """Return the citation of an entry, of a task or all data sets, or by default of the benchmark.

    Args:
        entry: An entry of the board.
        task: Name of a task, cited together with its data.
        data: Whether to cite all data sets.
        format: One of bibtex, cff or text.

    Raises:
        UsageError: If the format is unknown, or there is more than one thing to cite.
        RecordError: If the entry does not exist.
        TaskError: If the task does not exist.
    """
    _known(format)
    named = [f"--{name}" for name, value in (("entry", entry), ("task", task)) if value is not None]
    named += ["--data"] if data else []
    if len(named) > 1:
        raise UsageError(f"{' and '.join(named)}: name one of them, and cite the other after it")
    if entry is not None:
        return of_entry(entries.find(entries.load(), entry), format)
    if task is not None:
        return of_task(task, format)
    return of_data(format) if data else of_benchmark(format)


def of_benchmark(format: str = "bibtex") -> str:
    """Return the citation of the benchmark itself; for CFF, the file CITATION.cff unchanged."""
    return works.citation_file() if format == "cff" else _shown([works.benchmark()], format)


def of_task(name: str, format: str = "bibtex") -> str:
    """Return the citation of a task: its protocol, the benchmark, and the origin of its data.

    Raises:
        TaskError: If the task does not exist.
    """
    task = load_task(name)
    benchmark = works.benchmark()
    protocol = Work(
        key=f"lthbench-{task.name}",
        kind="software",
        authors=benchmark.authors,
        title=f"{task.name}, version {task.version}: {task.title}",
        version=benchmark.version,
        digests=(("protocol", task.digest),),
        note="A task of lthbench",
    )
    return _shown([protocol, benchmark, *DATA[task.data.source]], format)


def of_data(format: str = "bibtex") -> str:
    """Return the citation of every data set."""
    found = [work for source in DATA.values() for work in source]
    if format == "cff":  # such a file describes software: the benchmark, which cites the data
        return _shown([works.benchmark(), *found], format)
    return _shown(found, format)


def of_entry(entry: Entry, format: str = "bibtex") -> str:
    """Return the citation of an entry: the method's authors, the measurement, the ledger state."""
    record = entry.record
    described = record.method.described
    named = described.get("authors", "").strip()
    who = named or f"The authors of {record.method.name}"
    code = described.get("code", "").strip()
    linked = re.fullmatch(r"https?://[!#-;=?-Z_a-z~%]+", code) is not None
    told = [
        f"Entry {entry.id} of the leaderboard of lthbench, {_standing(entry)}",
        f"method {record.method.name}" + _in_brackets(described.get("version", "")),
        *([described["paper"]] if described.get("paper") else []),
        *(["authors as the method's source names them, unchecked"] if named else []),
        *([f"code: {code}"] if code and not linked else []),
        f"task {record.task.name}, version {record.task.version}",
    ]
    work = Work(
        key=f"lthbench-{entry.id}",
        kind="data",
        authors=(Author(who),),
        title=f"{record.method.name} on {record.task.name}",
        where=f"lthbench {record.environment.get('lthbench', '')}".strip(),
        version=entry.digest[:8],
        url=code if linked else "",
        digests=(("record", entry.digest), ("method's source", record.method.digest)),
        note="; ".join(told),
    )
    return _shown([work, works.benchmark()], format)


def _in_brackets(version: str) -> str:
    return f" ({version})" if version else ""


def _standing(entry: Entry) -> str:
    """Return the state in the ledger, with its line, since a record has no date."""
    lines = {line["act"]: line for line in entry.lines}
    if "accept" not in lines:
        return "not accepted yet"
    told = f"accepted at line {lines['accept']['n']} of the ledger, level {entry.level} "
    told += LEVELS[entry.level]
    if entry.state == "retracted":
        return f"RETRACTED at line {lines['retract']['n']} of the ledger: {lines['retract']['why']}"
    if entry.state == "superseded":
        told += f", superseded by {entry.of}"
    if entry.challenges:
        told += f", challenged {len(entry.challenges)} times"
    return told


def _shown(found: Sequence[Work], format: str) -> str:
    _known(format)
    if format == "bibtex":
        return formats.bibtex(found)
    if format == "text":
        return formats.text(found)
    first, *others = found
    return formats.cff(first, f"Please cite {first.title}, and what it refers to.", others)


def _known(format: str) -> None:
    if format not in FORMATS:
        raise UsageError(f"--format {format[:40]!r}: is none of {', '.join(FORMATS)}")
