"""Every page of the site, by its path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from lthbench.io.paths import digest, shipped
from lthbench.leaderboard.board.copies import likenesses
from lthbench.leaderboard.board.entries import Board, Entry
from lthbench.leaderboard.board.standings import Standing
from lthbench.leaderboard.citation import cite
from lthbench.leaderboard.site.labels import BOARDS, lines
from lthbench.leaderboard.site.pages import about, compare, index
from lthbench.leaderboard.site.pages import entries as entries_page
from lthbench.leaderboard.site.pages import entry as entry_page
from lthbench.leaderboard.site.pages import evidence as evidence_page
from lthbench.leaderboard.site.pages import task as task_page
from lthbench.leaderboard.site.pages.protocol import Protocol
from lthbench.leaderboard.site.render import TEMPLATES, Page, render
from lthbench.protocol.task import load_suite, load_task
from lthbench.report import html
from lthbench.report.formats import plain

BRAND = "lthbench leaderboard"


@dataclass(frozen=True)
class Contents:
    """The content of the site.

    Attributes:
        tasks: Every task's entries, including retracted and superseded ones; also empty tasks.
    """

    folder: Path
    board: Board
    tasks: Mapping[str, Sequence[Entry]]
    protocols: Mapping[str, Protocol]
    standings: Sequence[Standing]


def entry_path(task: str, name: str) -> str:
    """Return the path of an entry's page."""
    return f"entries/{task}/{name}.html"


def record_path(task: str, name: str) -> str:
    """Return the path of the copy of an entry's record."""
    return f"api/v1/records/{task}/{name}.json"


def all_of(contents: Contents) -> Iterator[tuple[str, bytes]]:
    """Yield path and content of every file except the machine-readable ones."""
    evidence = evidence_page.load(contents.folder, contents.board.entries)
    yield from _assets()
    yield "index.html", _index(contents)
    for suite in dict.fromkeys(s.suite for s in contents.standings if s.rows):
        yield f"boards/{suite}.html", _suite(contents, suite)
    yield "entries.html", _entries(contents)
    yield from _entry_pages(contents)
    for name in contents.tasks:
        yield f"tasks/{name}.html", _task(contents, name)
        if len(comparable(contents, name)) > 1:
            overlaps = evidence_page.overlaps(evidence, name)
            yield f"compare/{name}.html", _compare(contents, name, overlaps)
    yield "compare.html", _compare_index(contents)
    yield "about.html", _about()
    yield "evidence.html", _evidence(evidence)
    for found in evidence:
        yield evidence_page.path(found), _pair(found)


def comparable(contents: Contents, name: str) -> list[Entry]:
    """Return the entries of a task that can be compared with each other."""
    return task_page.current(contents.tasks[name], contents.protocols.get(name))


def _assets() -> Iterator[tuple[str, bytes]]:
    for name in ("site.js", "compare.js", "icon.svg"):
        yield f"assets/{name}", (TEMPLATES / name).read_bytes()
    styles = (html.TEMPLATES / "shared.css", TEMPLATES / "site.css")
    yield "assets/site.css", b"\n".join(path.read_bytes() for path in styles)
    for name, data in html.scripts().items():
        yield f"assets/{name}", data


def _index(contents: Contents) -> bytes:
    values = index.index(contents.standings, contents.tasks, contents.protocols)
    page = Page(
        "index.html",
        "Lottery tickets: the lthbench leaderboard",
        "Methods that find lottery tickets, ranked by intervals: retention, search cost, and how "
        "far each entry was verified.",
    )
    return render("index.html.j2", page, **values)


def _suite(contents: Contents, name: str) -> bytes:
    mine = [s for s in contents.standings if s.suite == name]
    suite = load_suite(name)
    page = Page(
        f"boards/{name}.html",
        f"Suite {name}: {BRAND}",
        f"Every board of suite {name}: {', '.join(BOARDS[s.board][0].lower() for s in mine)}.",
    )
    rows = [row for s in mine for row in s.rows]
    return render(
        "suite.html.j2",
        page,
        name=name,
        title=suite.title,
        tasks=list(suite.tasks),
        left_out=sorted(mine[0].left_out.items()),
        boards=index.suite(mine),
        filters=index.filters(rows, suite.tasks),
    )


def _entries(contents: Contents) -> bytes:
    entries = contents.board.entries
    page = Page("entries.html", f"Every entry: {BRAND}", f"All {len(entries)} entries.")
    divisions = {e.record.scores.division for e in entries}
    return render(
        "entries.html.j2",
        page,
        entries=entries_page.entry_grid(entries, ""),
        filters=index.offered(
            {e.record.task.name for e in entries}, divisions, {e.level for e in entries}
        ),
    )


def _entry_pages(contents: Contents) -> Iterator[tuple[str, bytes]]:
    alike = likenesses(contents.board.entries)
    baselines = {path.stem: digest(path.read_bytes()) for path in shipped("baselines").glob("*.py")}
    for name, entries in contents.tasks.items():
        sizes = _sizes(contents.protocols, name) if entries else {}
        for entry in entries:
            shared = [(one.text, one.same) for one in alike.get(entry.digest, ())]
            baseline = baselines.get(entry.id.rpartition("--")[0], "")
            cited = {form: lines(cite.of_entry(entry, form)) for form in ("bibtex", "cff")}
            values = entry_page.page(entry, baseline, sizes, cited, shared)
            path = entry_path(name, entry.id)
            compare = len(entries) > 1 and entry.state in ("accepted", "listed")
            yield path, _entry(path, entry, values, compare=compare)


def _sizes(protocols: Mapping[str, Protocol], task: str) -> Mapping[str, int]:
    """Return the sizes of a task's prunable tensors; none where the task is unknown."""
    from lthbench.networks.families import shapes

    if task not in protocols:
        return {}
    network = load_task(task).network
    return {name: prod(shape) for name, shape in shapes(network, network.depth).items()}


def _entry(path: str, entry: Entry, values: Mapping[str, Any], *, compare: bool) -> bytes:
    page = Page(
        path,
        f"{values['method']} on {values['task']} ({entry.digest[:8]}): {BRAND}",
        f"{values['answers'][0].name} {values['answers'][0].value}: the lottery-ticket method "
        f"{values['method']} on {values['task']}, every cell, curve and control.",
        charts=True,
    )
    return render("entry.html.j2", page, **values, compare=compare)


def _task(contents: Contents, name: str) -> bytes:
    protocol = contents.protocols.get(name)
    reference = contents.board.references.get(name)
    values = task_page.page(name, protocol, contents.tasks[name], reference)
    page = Page(
        f"tasks/{name}.html",
        f"{name}: {BRAND}",
        f"Who is best on {values['title'] or name} at each density, at what cost, and by what "
        "protocol.",
        charts=bool(values["figures"]),
    )
    return render("task.html.j2", page, **values)


def _compare(contents: Contents, name: str, overlaps: Mapping[str, Any]) -> bytes:
    page = Page(
        f"compare/{name}.html",
        f"Two entries on {name}: {BRAND}",
        f"Paired differences of any two entries on {name}.",
        compares=True,
    )
    values = compare.page(name, comparable(contents, name), overlaps)
    return render("compare.html.j2", page, **values)


def _compare_index(contents: Contents) -> bytes:
    page = Page("compare.html", f"Compare two entries: {BRAND}", "Paired differences, by task.")
    told = []
    for name in contents.tasks:
        protocol = contents.protocols.get(name)
        count = len(comparable(contents, name))
        if count > 1:
            told.append((plain(name), protocol.title if protocol else "", count))
    return render("compare_index.html.j2", page, tasks=told)


def _about() -> bytes:
    page = Page(
        "about.html",
        f"Rules: {BRAND}",
        "What is measured, what each level of verification promises, how to submit and to cite.",
    )
    return render("about.html.j2", page, **about.page())


def _evidence(found: Sequence[evidence_page.Saved]) -> bytes:
    page = Page(
        "evidence.html",
        f"Evidence: {BRAND}",
        "Do training and mask search find the same subnetworks? Named rules, and what the tickets "
        "say.",
    )
    return render("evidence.html.j2", page, **evidence_page.page(found))


def _pair(found: evidence_page.Saved) -> bytes:
    page = Page(
        evidence_page.path(found),
        f"{found.a.id} and {found.b.id}: {BRAND}",
        f"Overlap of the tickets of {found.a.method} and {found.b.method} on {found.task}.",
        charts=True,
    )
    return render("pair.html.j2", page, **evidence_page.pair(found))
