"""How to cite the benchmark, an entry, or a task with its data: `lthbench cite`."""

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
    """How to cite an entry, a task with its data, all data sets, or by default the benchmark.

    Args:
        format: bibtex, cff or text.

    Raises:
        UsageError: for an unknown format, or more than one thing to cite.
        RecordError, TaskError: for an entry or a task that is not there.
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
    """How to cite the benchmark itself; in CFF the file CITATION.cff as it is."""
    return works.citation_file() if format == "cff" else _shown([works.benchmark()], format)


def of_task(name: str, format: str = "bibtex") -> str:
    """How to cite a task: its protocol, the benchmark, and where its data come from.

    Raises:
        TaskError: for a task that is not there.
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
    """How to cite every data set."""
    found = [work for source in DATA.values() for work in source]
    if format == "cff":  # a file of its own is about software: the benchmark, which refers to them
        return _shown([works.benchmark(), *found], format)
    return _shown(found, format)


def of_entry(entry: Entry, format: str = "bibtex") -> str:
    """How to cite an entry: who made the method, what was measured, and what the ledger says."""
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
    """What the ledger says, with its line: a record has no date."""
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
