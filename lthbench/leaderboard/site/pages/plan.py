"""Every page of the site except the entries' own: its inputs, and how it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lthbench.io.paths import canonical_json, digest
from lthbench.leaderboard.board.entries import Board, Entry
from lthbench.leaderboard.board.standings import Standing
from lthbench.leaderboard.site.labels import BOARDS
from lthbench.leaderboard.site.pages import about, compare, index
from lthbench.leaderboard.site.pages import entries as entries_page
from lthbench.leaderboard.site.pages import evidence as evidence_page
from lthbench.leaderboard.site.pages import task as task_page
from lthbench.leaderboard.site.pages.protocol import Protocol
from lthbench.leaderboard.site.render import TEMPLATES, Page, render
from lthbench.protocol.task import load_suite
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


@dataclass(frozen=True)
class Planned:
    """A file: its path in the site, its inputs, and how it is made."""

    path: str
    inputs: Any
    make: Callable[[], bytes]


def entry_path(task: str, name: str) -> str:
    """Return the path of an entry's page."""
    return f"entries/{task}/{name}.html"


def record_path(task: str, name: str) -> str:
    """Return the path of the copy of an entry's record."""
    return f"api/v1/records/{task}/{name}.json"


def all_of(contents: Contents) -> Iterator[Planned]:
    """Yield every file except the entries' own and the machine-readable ones."""
    said = {name: _say(found) for name, found in contents.tasks.items()}
    ranks = _ranks(contents.standings)
    evidence = evidence_page.load(contents.folder, contents.board.entries)
    yield from _assets()
    yield Planned("index.html", [said, ranks], partial(_index, contents))
    for suite in dict.fromkeys(s.suite for s in contents.standings if s.rows):
        mine = [row for row in ranks if row[0] == suite]
        yield Planned(f"boards/{suite}.html", mine, partial(_suite, contents, suite))
    yield Planned("entries.html", said, partial(_entries, contents))
    for name in contents.tasks:
        reference = contents.board.references.get(name)
        inputs = [said[name], reference.digest if reference else ""]
        yield Planned(f"tasks/{name}.html", inputs, partial(_task, contents, name))
        if len(comparable(contents, name)) > 1:
            overlaps = evidence_page.overlaps(evidence, name)
            make = partial(_compare, contents, name, overlaps)
            yield Planned(f"compare/{name}.html", [said[name], overlaps], make)
    counts = [[name, len(comparable(contents, name))] for name in contents.tasks]
    yield Planned("compare.html", counts, partial(_compare_index, contents))
    yield Planned("about.html", [], _about)
    listed = [found.model_dump(mode="json") for found in evidence]
    yield Planned("evidence.html", listed, partial(_evidence, evidence))
    for found in evidence:
        path = evidence_page.path(found)
        yield Planned(path, found.model_dump(mode="json"), partial(_pair, found))


def comparable(contents: Contents, name: str) -> list[Entry]:
    """Return the entries of a task that can be compared with each other."""
    return task_page.current(contents.tasks[name], contents.protocols.get(name))


def _say(entries: Sequence[Entry]) -> str:
    """Return the digest of entries, including their state in the ledger."""
    told = [[e.file, e.digest, e.level, e.state, e.of, len(e.challenges)] for e in entries]
    return digest(canonical_json(told))


def _ranks(standings: Sequence[Standing]) -> list[Any]:
    """Return those parts of a page of boards that depend on other entries."""
    return [
        [
            *(s.suite, s.board, list(s.tasks), list(s.notes)),
            [
                *([r.contender.id, list(r.rank or ()), r.why_unranked, r.level] for r in s.rows),
                [[[e.id, e.level, e.state] for e in r.contender.entries.values()] for r in s.rows],
            ],
            sorted([a, b, p] for (a, b), p in s.p.items())
            if len(index.ranked(s)) <= index.MATRIX
            else [],
        ]
        for s in standings
    ]


def _assets() -> Iterator[Planned]:
    for name in ("site.css", "site.js", "compare.js", "icon.svg"):
        yield Planned(f"assets/{name}", [], (TEMPLATES / name).read_bytes)
    yield Planned("assets/plotly.min.js", [_plotly_version()], _plotly)


def _plotly_version() -> str:
    from importlib.metadata import version

    return version("plotly")


def _plotly() -> bytes:
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script.encode()


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
