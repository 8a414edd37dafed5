"""The site as files: whole, linked, escaped, written again only where something changed."""

from __future__ import annotations

import json
import re
import shutil
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from html.parser import HTMLParser
from http.client import HTTPConnection
from importlib.metadata import version
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lthbench.errors import RecordError, ResourceError, UsageError
from lthbench.io.paths import canonical_json, digest, write_whole
from lthbench.leaderboard.analysis import evidence
from lthbench.leaderboard.board import entries as board_entries
from lthbench.leaderboard.board import ledger as ledgers
from lthbench.leaderboard.board.standings import standings
from lthbench.leaderboard.site import best_per_density, charts, serve
from lthbench.leaderboard.site import build as making
from lthbench.leaderboard.site.build import build
from lthbench.leaderboard.site.pages import api
from lthbench.leaderboard.site.pages import compare as comparison
from lthbench.leaderboard.site.pages import plan as site_pages
from lthbench.leaderboard.site.pages.entry import page as page_of_entry
from lthbench.leaderboard.site.pages.protocol import protocols
from lthbench.leaderboard.site.render import POLICY, text_rows
from lthbench.protocol.task import load_task
from lthbench.records import intervals
from lthbench.records.schema import build as build_record
from lthbench.records.scores import Estimate, Headline
from lthbench.report.formats import decimals
from tests.boards import Method, board_record, entry_of, reference_of
from tests.sites import TASKS, add, few_draws, site_board

pytestmark = pytest.mark.usefixtures("small_lite")

Attributes = dict[str, str | None]


class Reading(HTMLParser):
    """What a test asks of a page: its elements with their attributes, its ids, its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, Attributes]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def all(self, tag: str) -> list[Attributes]:
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def ids(self) -> list[str]:
        return [a["id"] for _, a in self.elements if a.get("id")]  # type: ignore[misc]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return site_board(tmp_path_factory.mktemp("board"))


@pytest.fixture(scope="module", autouse=True)
def _few_draws() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        few_draws(patch)
        yield


@pytest.fixture(scope="module")
def site(board: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site that no test changes."""
    out = tmp_path_factory.mktemp("built") / "site"
    build(out, board)
    return out


@pytest.fixture
def copies(board: Path, site: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A board and its site that a test may change."""
    return shutil.copytree(board, tmp_path / "board"), shutil.copytree(site, tmp_path / "site")


@cache
def pages(site: Path) -> tuple[tuple[Path, Reading], ...]:
    """Every page of a site that no test changes."""
    found = sorted(site.rglob("*.html"))
    return tuple((path, Reading(path.read_text("utf-8"))) for path in found)


def contents(site: Path) -> dict[str, str]:
    """The digest of every file of a site, but for what a build keeps for itself."""
    files = (path for path in site.rglob("*") if path.is_file())
    names = {path.relative_to(site).as_posix(): path for path in files}
    return {n: digest(p.read_bytes()) for n, p in names.items() if not n.startswith(".")}


# What is there


def test_every_entry_has_its_page_and_its_record(board: Path, site: Path) -> None:
    for path in board.glob("records/*/*.json"):
        place = f"{path.parent.name}/{path.stem}"
        assert (site / f"entries/{place}.html").is_file()
        copy = site / f"api/v1/records/{place}.json"
        assert copy.read_bytes() == path.read_bytes()
    listed = json.loads((site / "api/v1/index.json").read_bytes())["entries"]
    assert len(listed) == len([*board.glob("records/*/*.json")])


def test_every_link_leads_somewhere_in_the_site(site: Path) -> None:
    """No link to another host, none to a file or a place in it that is not there."""
    ids = {path: set(reading.ids) for path, reading in pages(site)}
    for path, reading in pages(site):
        for tag, attributes in reading.elements:
            for target in filter(None, (attributes.get("href"), attributes.get("src"))):
                parts = urlsplit(target)
                assert not parts.scheme and not parts.netloc, f"{path}: {tag} {target}"
                found = (path.parent / unquote(parts.path)).resolve() if parts.path else path
                assert found.is_file(), f"{path}: {target}"
                if parts.fragment and found.suffix == ".html":
                    assert parts.fragment in ids[found], f"{path}: {target}"


def test_no_file_asks_for_another_host(site: Path) -> None:
    """Nothing that a browser fetches by itself names a host."""
    for path in [*site.rglob("*.html"), *site.rglob("*.css")]:
        text = path.read_text("utf-8")
        assert not re.search(
            r"""(?:src|srcset|poster|data|action)\s*=\s*["']?\s*(?:https?:)?//""", text
        )
        assert not re.search(r"url\(|@import", text)


def test_the_policy_stands_in_every_page(site: Path) -> None:
    assert POLICY == (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'"
    )
    for path, reading in pages(site):
        metas = {m.get("http-equiv"): m.get("content") for m in reading.all("meta")}
        assert metas["Content-Security-Policy"] == POLICY, path
        scripts = reading.all("script")
        assert all(s.get("src") or s.get("type") == "application/json" for s in scripts), path
        assert all("defer" in s for s in scripts if s.get("src")), path
        assert not [a for _, e in reading.elements for a in e if a.startswith("on")], path


def test_every_page_has_a_title_of_its_own_and_ids_once(site: Path) -> None:
    titles = []
    for path, reading in pages(site):
        text = path.read_text("utf-8")
        titles.append(re.findall(r"<title>([^<]+)</title>", text))
        assert len(reading.ids) == len(set(reading.ids)), path
        assert [name for name, _ in reading.elements].count("h1") == 1, path
    assert len({title for (title,) in titles}) == len(titles)


def test_every_page_names_the_version_of_the_program(site: Path) -> None:
    said = f", version {version('lthbench')}. Nothing here"
    for path, reading in pages(site):
        assert said in "".join(reading.text), path


def test_names_of_what_costs_nothing_stand_clear_of_the_axis(site: Path) -> None:
    text = (site / "tasks/lenet300-mnist.html").read_text("utf-8")
    (block,) = re.findall(r'id="figure-pareto">(.*?)</script>', text, re.DOTALL)
    figure = json.loads(block)
    points = [trace for trace in figure["traces"] if "textposition" in trace]
    most = max(cost for trace in points for cost in trace["x"])
    low, high = figure["layout"]["xaxis"]["range"]
    assert -0.1 * most < low < 0 and most < high < 1.1 * most
    placed = [pair for t in points for pair in zip(t["x"], t["textposition"], strict=True)]
    assert placed and all((where == "top right") == (x < charts.EDGE * most) for x, where in placed)
    assert [charts._beside(place) for place in (0.0, 0.5, 1.0)] == [
        *("top right", "top center", "top left"),
    ]


def test_what_submit_takes_is_a_clone_of_a_fork(site: Path) -> None:
    about = (site / "about.html").read_text("utf-8")
    assert "a clone of your fork" in about and "Authors are unchecked" in about


def test_every_table_is_one_for_those_who_cannot_see_it(site: Path) -> None:
    """Captions, scopes, a region that the keyboard reaches; no chart without a table."""
    for path, reading in pages(site):
        names = [name for name, _ in reading.elements]
        assert names.count("caption") == names.count("table"), path
        assert all(th.get("scope") in ("col", "row") for th in reading.all("th")), path
        regions = [d for d in reading.all("div") if "scroll" in (d.get("class") or "")]
        assert len(regions) == names.count("table"), path
        assert all(d["tabindex"] == "0" and d["role"] and d["aria-label"] for d in regions), path
        if any("data-figure" in attributes for _, attributes in reading.elements):
            assert "table" in names, path


def test_plotly_is_loaded_where_there_are_charts_alone(site: Path) -> None:
    for path, reading in pages(site):
        charts = any("data-figure" in attributes for _, attributes in reading.elements)
        loaded = any("plotly" in (s.get("src") or "") for s in reading.all("script"))
        assert charts == loaded, path


def test_the_first_table_is_the_ranking_of_the_main_board(site: Path) -> None:
    reading = Reading((site / "index.html").read_text("utf-8"))
    assert reading.all("table")[0]["id"] == "lite-early"
    assert "First place is open" in "".join(reading.text) or "is first" in "".join(reading.text)


def test_the_first_page_tells_what_the_board_can_tell(site: Path) -> None:
    """A row a task and one for all, in numbers; they are those of `lthbench dev power`."""
    _, _, told = (site / "index.html").read_text("utf-8").partition('id="power"')
    assert "What suite lite can tell" in told.split("</section>")[0]
    rows = [row.split("<td>")[0] for row in told.split("</section>")[0].split("<tr><th scope=")[2:]]
    assert [row.partition(">")[2].partition("<")[0] for row in rows] == [*TASKS, "lite"]


# Entries


def entry_page(site: Path, state: str) -> tuple[dict[str, Any], str]:
    """The listing and the page of the first entry in a state."""
    listed = json.loads((site / "api/v1/index.json").read_bytes())["entries"]
    found = next(entry for entry in listed if entry["state"] == state)
    return found, (site / found["page"]).read_text("utf-8")


def test_a_retracted_entry_keeps_its_page_and_stands_on_no_board(site: Path) -> None:
    found, text = entry_page(site, "retracted")
    assert "Retracted." in text and "&lt;b&gt;Its seeds were picked&lt;/b&gt;" in text
    assert found["id"] not in (site / "index.html").read_text("utf-8")
    task = (site / f"tasks/{found['task']}.html").read_text("utf-8")
    assert f"{found['id']}</a>: retracted" in task
    assert "gone" in (site / "entries.html").read_text("utf-8")


def test_a_superseded_entry_names_what_took_its_place(site: Path) -> None:
    found, text = entry_page(site, "superseded")
    assert "Superseded." in text
    assert f'<a href="{found["superseded_by"]}.html">' in text


def rows_of(page: Path, text: str) -> list[str]:
    """The table rows of a page that hold a text."""
    rows = re.findall(r"<tr.*?</tr>", page.read_text("utf-8"), re.S)
    return [row for row in rows if text in row]


def test_what_is_not_accepted_is_not_called_reported(site: Path) -> None:
    """It is sorted and filtered as level 0 all the same."""
    found, text = entry_page(site, "listed")
    (row,) = rows_of(site / "entries.html", found["id"])
    assert 'data-level="0"' in row and re.search(r'data-v="0">not accepted</td>', row)
    assert "0 reported" not in row and "0 reported" not in text
    (row,) = rows_of(site / "index.html", found["id"])[:1]
    assert 'data-level="0"' in row and re.search(r'data-v="0">not accepted</td>', row)
    assert "0 reported" in (site / "entries.html").read_text("utf-8")


def test_acceptance_alone_changes_the_boards(copies: tuple[Path, Path]) -> None:
    """At level 0 no rank, score or level of a row is another."""
    board, site = copies
    found, _ = entry_page(site, "listed")
    about = (found["sha256"], found["task"], found["method"])
    ledger = ledgers.read(board / "ledger.jsonl")
    ledgers.write(board / "ledger.jsonl", ledgers.append(ledger, "accept", *about, nonce="0" * 64))
    build(site, board)
    for page in ("index.html", "boards/lite.html", "entries.html"):
        told = rows_of(site / page, found["id"])
        assert told and not any("not accepted" in row for row in told), page


def test_a_checked_bundle_at_no_address_is_said_to_be_so(tmp_path: Path) -> None:
    """In the row of an entry of level 1 or above; of level 0 nothing was checked."""
    board = tmp_path / "board"
    write_whole(
        board / "reference" / f"{TASKS[0]}.json",
        canonical_json(reference_of(TASKS[0]).model_dump(mode="json")),
    )
    ledger = ledgers.Ledger()
    kinds = {"high": ((), 1), "public": (("https://example.org/b.zip",), 1), "low": ((), 0)}
    for number, (name, (urls, level)) in enumerate(kinds.items(), 60):
        bundle = {"sha256": f"{number:064x}", "size": 1000, "urls": urls}
        method = Method(name, "init", False, 0.6, 2.0, level)
        raw = add(board, board_record(TASKS[0], number, method=method, bundle=bundle))
        ledger = ledgers.append(ledger, "accept", raw, TASKS[0], name, nonce=f"{number:064x}")
        if level:
            ledger = ledgers.append(
                ledger, "level", raw, TASKS[0], name, level=1, beacon="", report={}
            )
    ledgers.write(board / "ledger.jsonl", ledger)
    build(tmp_path / "site", board)
    for page in ("index.html", "entries.html"):
        for name in kinds:
            told = rows_of(tmp_path / "site" / page, f'data-method="{name}"')
            assert told, page
            assert all(("bundle not public" in row) == (name == "high") for row in told), page


def test_a_challenge_is_told_at_the_top(site: Path) -> None:
    listed = json.loads((site / "api/v1/index.json").read_bytes())["entries"]
    (found,) = [entry for entry in listed if entry["challenges"]]
    text = (site / found["page"]).read_text("utf-8")
    assert text.index("Challenged.") < text.index("<h1>")
    assert "cells do not agree" in text and "z 7.25" in text


def test_what_was_trained_again_is_told_cell_by_cell(board: Path, site: Path) -> None:
    lines = ledgers.read(board / "ledger.jsonl").lines
    (line,) = [x for x in lines if x["act"] == "level" and x["report"]]
    page = f"entries/{line['task']}/{line['method']}--{line['entry'][:8]}.html"
    text = (site / page).read_text("utf-8")
    assert "3 reproduced; &lt;b&gt;8 cells&lt;/b&gt; trained again; statistic 0.1" in text
    assert "Trained again: 1 cells drawn by lot" in text
    for figure in ("&lt;i&gt;ticket", "−0.42", "1.25", "bit for bit"):
        assert figure in text


def test_an_entry_tells_how_to_repeat_check_and_cite_it(site: Path) -> None:
    found, text = entry_page(site, "accepted")
    shown = "".join(Reading(text).text)
    assert f"lthbench verify {found['id']} --level 2" in shown
    command = "lthbench evaluate method.py --final --task"
    assert command in shown and "--set rate=0.2" in shown
    assert "@" in shown and "cff-version" in shown
    assert shown.count(f"Entry {found['id']} of the leaderboard") == 2


def test_hostile_text_stays_text(site: Path) -> None:
    """Nothing of it becomes an element, an attribute, a line or a direction of its own."""
    for path in site.rglob("*.html"):
        text = path.read_text("utf-8")
        assert "document.title='taken'</script>" not in text, path
        assert not re.search(r"[\u202a-\u202e\u2066-\u2069\u2028\u2029\x00\x1b\ufffe]", text), path
        reading = Reading(text)
        assert not reading.all("img"), path
        for block in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text):
            assert "<" not in block, path
            json.loads(block)
    (page,) = (site / "entries").rglob("*Hostile*.html")
    shown = page.read_text("utf-8")
    assert "{{ 7 * 7 }}" in shown
    assert shown.count("&lt;/script&gt;") >= 3


def test_evidence_is_told_with_its_rules(board: Path, site: Path) -> None:
    (saved,) = board.glob("evidence/*/*.json")
    table = json.loads(saved.read_bytes())
    text = (site / "evidence.html").read_text("utf-8")
    shown = "".join(Reading(text).text)
    for rule in evidence.rules():
        assert rule.name in shown and rule.text in shown
        assert all(f"{value:g}" in shown for value in rule.thresholds.values())
    assert "supported" in shown and table["a"]["id"] in shown
    page = (site / f"evidence/{saved.parent.name}/{saved.stem}.html").read_text("utf-8")
    assert "&lt;i&gt;neck" in page and "Not measured: stability" in page
    compare = (site / f"compare/{saved.parent.name}.html").read_text("utf-8")
    assert "same subnetwork: supported" in compare


def test_evidence_of_no_entry_is_refused(copies: tuple[Path, Path]) -> None:
    board, site = copies
    (saved,) = board.glob("evidence/*/*.json")
    table = json.loads(saved.read_bytes())
    table["a"]["id"] = "aaa--00000000"
    saved.unlink()
    moved = saved.with_name(f"aaa--00000000--{table['b']['id']}.json")
    moved.write_bytes(canonical_json(table))
    with pytest.raises(RecordError, match="aaa--00000000 is no entry of the board"):
        build(site, board)


# The interface


def test_the_standings_are_those_of_the_command_line(board: Path, site: Path) -> None:
    """The site's boards say what `lthbench leaderboard` says."""
    whole = standings(board_entries.load(board))
    told = api.Standings.model_validate_json((site / "api/v1/standings.json").read_bytes())
    assert len(told.boards) == len(whole)
    for mine, theirs in zip(told.boards, whole, strict=True):
        assert (mine.suite, mine.board, mine.tasks) == (theirs.suite, theirs.board, [*theirs.tasks])
        for a, b in zip(mine.rows, theirs.rows, strict=True):
            assert (a.contender, a.rank, a.why_unranked, a.cost) == (
                *(b.contender.id, b.rank, b.why_unranked, b.cost),
            )
            assert a.score == (b.score and api.Estimate(**vars(b.score)))
    assert any(row.rank for row in told.boards[0].rows)


def test_the_interface_fits_its_schemas(board: Path, site: Path) -> None:
    index = api.Index.model_validate_json((site / "api/v1/index.json").read_bytes())
    assert index.ledger == ledgers.read(board / "ledger.jsonl").head
    for entry in index.entries:
        assert digest((site / entry.record).read_bytes()) == entry.sha256
        assert (site / entry.page).is_file()
    for path in index.schemas.values():
        assert "properties" in json.loads((site / path).read_bytes())


def test_a_task_shows_every_key_of_its_protocol(site: Path) -> None:
    for name in TASKS:
        shown = "".join(Reading((site / f"tasks/{name}.html").read_text("utf-8")).text)
        task = load_task(name)
        assert task.digest in shown
        table = task.canonical()
        for section in ("data", "network", "recipe", "score", "search"):
            for key in table[section]:
                assert key in shown, f"{name}: {section}.{key}"


# Building again


def test_nothing_changed_writes_nothing(copies: tuple[Path, Path]) -> None:
    board, site = copies
    before = {path: path.stat().st_mtime_ns for path in site.rglob("*.html")}
    done = build(site, board)
    assert (done.written, done.removed) == (0, 0)
    assert {path: path.stat().st_mtime_ns for path in site.rglob("*.html")} == before


@pytest.mark.slow
def test_one_record_more_changes_no_other_entrys_page(copies: tuple[Path, Path]) -> None:
    board, site = copies
    before = contents(site)
    method = Method("newcomer", "init", False, 0.6, 2.0, 2)
    add(board, board_record(TASKS[0], 50, method=method))
    done = build(site, board)
    after = contents(site)
    changed = {name for name in after if after[name] != before.get(name)}
    assert done.written == len(changed)
    new = {name for name in changed if name.startswith(("entries/", "api/v1/records/"))}
    assert len(new) == 2 and all("newcomer" in name for name in new)
    same = {name for name in changed if name.startswith(("tasks/", "compare/"))}
    assert same == {f"tasks/{TASKS[0]}.html", f"compare/{TASKS[0]}.html"}
    anew = site.parent / "anew"
    build(anew, board)
    assert contents(anew) == after


def test_a_copy_names_its_original_on_its_page_and_on_the_board(copies: tuple[Path, Path]) -> None:
    """Which lies in another record; a common rung is told and counts for nothing."""
    board, site = copies
    first = next(e for e in board_entries.load(board).entries if e.state == "accepted")
    own = {(c.seed, c.density): c.masks for c in first.record.cells if c.kind == "ticket"}
    sparsest = min(first.record.task.ladder)
    names = ("copy", "partly")
    for name in names:
        method = Method(name, "init", False, 0.6, 2.0, 0)
        other = board_record(first.record.task.name, 50, method=method)
        cells = [
            c.model_copy(update={"masks": own[c.seed, c.density]})
            if c.kind == "ticket" and (name == "copy" or c.density == sparsest)
            else c
            for c in other.cells
        ]
        add(board, other.model_copy(update={"cells": tuple(cells)}))
    build(site, board)
    copied, partly = (next((site / "entries").rglob(f"{n}--*.html")).read_text() for n in names)
    assert f"same tickets as {first.id}" in copied
    assert f"in part the masks of {first.id}" in partly and "same tickets" not in partly
    told = api.Standings.model_validate_json((site / "api/v1/standings.json").read_bytes())
    why = {row.contender.partition("--")[0]: row.why_unranked for row in told.boards[0].rows}
    assert why["copy"] == f"same tickets as {first.id}" and "same" not in why["partly"]


def test_a_record_that_went_takes_its_pages_along(copies: tuple[Path, Path]) -> None:
    board, site = copies
    (page,) = (site / "entries").rglob("*Hostile*.html")
    (record,) = board.rglob("*Hostile*.json")
    record.unlink()
    assert build(site, board).removed == 2
    assert not page.exists()


def test_a_page_that_was_changed_by_hand_is_made_again(copies: tuple[Path, Path]) -> None:
    board, site = copies
    before = contents(site)
    (site / "about.html").write_text("mine")
    next((site / "entries").rglob("*.html")).unlink()
    assert build(site, board).written == 2
    assert contents(site) == before


def test_an_edited_record_leaves_the_old_site(copies: tuple[Path, Path]) -> None:
    board, site = copies
    before = contents(site)
    path = next(board.glob("records/*/*.json"))
    path.write_bytes(path.read_bytes().replace(b'"correct"', b'"korrect"', 1))
    with pytest.raises(RecordError):
        build(site, board)
    assert contents(site) == before
    assert not [*site.glob(".tmp-*")]


def test_a_build_that_is_stopped_leaves_the_old_site(
    copies: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    board, site = copies
    before = contents(site)
    add(board, board_record(TASKS[0], 51, method=Method("late", "init", False, 0.6, 2.0, 2)))

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(making, "_files", stopped)
        build(site, board)
    assert contents(site) == before
    assert build(site, board).written > 2


@pytest.mark.slow
def test_a_build_stopped_while_it_writes_is_completed_by_the_next(
    copies: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file is the old one or the new one, and none is forgotten that is then stale."""
    board, site = copies
    before = contents(site)
    late = add(board, board_record(TASKS[0], 51, method=Method("late", "init", False, 0.6, 2.0, 2)))
    wrote: list[Path] = []

    def write(path: Path, data: bytes) -> None:
        if len(wrote) == 4:
            raise KeyboardInterrupt
        wrote.append(path)
        write_whole(path, data)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(making, "write_whole", write)
        build(site, board)
    between = contents(site)
    assert between != before
    build(site, board)
    after = contents(site)
    assert {
        name for name in between if between[name] not in (before.get(name), after[name])
    } == set()
    next(board.glob(f"records/*/late--{late[:8]}.json")).unlink()
    build(site, board)
    assert contents(site) == before


@pytest.mark.parametrize("there", ["a file", "other things"])
def test_it_does_not_write_over_what_is_not_its_own(
    there: str, board: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    if there == "a file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "index.html").write_text("mine")
    with pytest.raises(UsageError, match="out: "):
        build(out, board)
    assert (out if there == "a file" else out / "index.html").read_text() == "mine"


def test_two_builds_of_one_folder_exclude_each_other(copies: tuple[Path, Path]) -> None:
    board, site = copies
    with making._lock(site), pytest.raises(ResourceError, match="another build"):
        build(site, board)


def test_an_empty_board_and_an_unverified_one_say_so(tmp_path: Path) -> None:
    board = tmp_path / "board"
    (board / "records").mkdir(parents=True)
    build(tmp_path / "site", board)
    assert "No entry yet" in (tmp_path / "site/index.html").read_text("utf-8")
    record = board_record(TASKS[0])
    raw = add(board, record)
    reference = board / "reference" / f"{TASKS[0]}.json"
    write_whole(reference, canonical_json(reference_of(TASKS[0]).model_dump(mode="json")))
    build(tmp_path / "site", board)
    for page in ("index.html", f"tasks/{TASKS[0]}.html"):
        assert "No entry is verified yet" in (tmp_path / "site" / page).read_text("utf-8")
    about = (raw, TASKS[0], record.method.name)
    ledger = ledgers.append(ledgers.Ledger(), "accept", *about, nonce="0" * 64)
    ledger = ledgers.append(ledger, "level", *about, level=2, beacon=ledger.head, report={})
    ledgers.write(board / "ledger.jsonl", ledger)
    build(tmp_path / "site", board)
    index = (tmp_path / "site/index.html").read_text("utf-8")
    best, rest = index.partition('id="by-task"')[2].split("</table>", 1)
    assert 'id="power"' not in index  # one entry tells no pair
    assert "tasks/mlp-digits.html" not in best  # on no board: nobody is best there
    assert "In no ranked suite" in rest
    assert "tasks/mlp-digits.html" in rest
    assert "No method is verified on every task yet: listed, not ranked." in index
    assert "Entries verified: 1 of 1." in index


@given(st.lists(st.lists(st.text(), min_size=1, max_size=3), max_size=3))
def test_rows_of_text_are_text(rows: list[list[str]]) -> None:
    """What a browser reads in the cells is what was given, but for how it ends its lines."""
    reading = Reading(f"<table><tbody>{text_rows(rows)}</tbody></table>")
    tags = [name for name, _ in reading.elements if name not in ("table", "tbody", "tr")]
    assert tags == [("td" if place else "th") for row in rows for place in range(len(row))]
    assert "".join(reading.text).replace("\n", "") == "".join(map("".join, rows)).replace("\n", "")


# Who is best


def scored(values: Sequence[float]) -> Any:
    return Estimate(**vars(intervals.t_interval(values)), values=tuple(values))


class Stub:
    """As much of an entry as the rungs read."""

    def __init__(self, name: str, values: Sequence[float]) -> None:
        self.id, self.level = name, 2
        self.record = self
        self.seeds = tuple(range(len(values)))
        self.task = self
        self.kind = "accuracy"
        self.scores = self
        self.untrained = None
        self.density, self.ticket = 0.05, scored(values)
        self.rungs, self.division = [self], "init"


def best_of(*rows: Sequence[float]) -> best_per_density.Best:
    stubs: list[Any] = [Stub(f"e{place}", row) for place, row in enumerate(rows)]
    (found,) = best_per_density.best(stubs)
    return found


def test_five_seeds_are_never_certain() -> None:
    found = best_of([0.9, 0.91, 0.9, 0.91, 0.9], [0.5, 0.51, 0.5, 0.51, 0.5])
    assert (found.certain, found.entries[0].id) == ("open", "e0")
    assert "too few for a test" in found.why
    assert best_of([0.9, 0.8, 0.9, 0.8, 0.9], [0.85, 0.8, 0.9, 0.85, 0.8]).certain == "no"


def test_eight_seeds_are_tested_and_adjusted() -> None:
    high = [0.9 + 0.001 * i for i in range(8)]
    low = [[0.5 + 0.001 * i for i in range(8)] for _ in range(6)]
    assert best_of(high, *low).certain == "yes"  # Holm: 6 * 2 / 2**8 = .047
    assert best_of(high, *low, low[0]).certain == "no"  # 7 * 2 / 2**8 = .055


def test_those_that_are_alike_are_all_named() -> None:
    found = best_of([0.9] * 5, [0.9] * 5, [0.8] * 5)
    assert {entry.id for entry in found.entries} == {"e0", "e1"}
    assert found.certain == "no" and found.second is not None and found.second.id == "e2"


def compared(*rows: Sequence[float]) -> list[str]:
    """What the table of pairs tells of two entries, given the retention of each seed from 0 on."""
    stubs: list[Any] = []
    for place, row in enumerate(rows):
        stub = Stub(f"e{place}", row)
        stub.name = "x"  # type: ignore[attr-defined]
        stub.headline = Headline("retention", scored(row))  # type: ignore[attr-defined]
        stubs.append(stub)
    grid = comparison._pairs([(stubs[0], stubs[1])], {s.id: s.id for s in stubs}, "retention")
    return [cell.text for cell in grid.rows[0].cells[2:]]


def test_pairs_that_differ_alike_have_no_interval_and_no_verdict() -> None:
    """0.3 - 0.2 and 0.9 - 0.8 are one difference, whatever the floats say."""
    assert compared([0.3, 0.9, 0.5], [0.2, 0.8, 0.4]) == ["3", "+0.100", "n/a: all 3 are alike"]
    assert compared([0.3, 0.9], [0.2, 0.7]) == ["2", "+0.150", "n/a: too few seeds"]
    seeds, text, apart = compared([0.5, 0.6, 0.7, 0.9], [0.1, 0.21, 0.3])
    assert (seeds, text[:8], apart) == ("3", "+0.397 [", "yes")


@pytest.mark.parametrize("name", ["lenet300-mnist", "mlp-modadd59"])
def test_a_task_without_retention_is_told_in_points_and_never_says_the_word(name: str) -> None:
    """Where random pruning loses too little: on its page, its comparison, and in the lists."""
    strong = reference_of(name)
    values = strong.values["test"].model_copy(update={"loss_random": (0.5, 0.7, 0.6)})
    weak = strong.model_copy(update={"values": {**strong.values, "test": values}})
    frozen = weak.frozen("test").model_dump(mode="json")
    records = [
        build_record({**board_record(name, number).model_dump(mode="json"), "reference": frozen})
        for number in (0, 1, 2)
    ]
    entries = [entry_of(record, number) for number, record in enumerate(records, 1)]
    board = board_entries.Board(tuple(entries), ledgers.Ledger(), {name: weak})
    contents = site_pages.Contents(Path(), board, {name: entries}, protocols(), standings(board))
    made = [
        site_pages._task(contents, name),
        site_pages._compare(contents, name, {}),
        site_pages._entries(contents),
        *(repr(page_of_entry(entry, "", {}, {})).encode() for entry in entries),
    ]
    assert all(b"etention" not in page for page in made)
    above = records[0].aggregates["above_erk"]
    figure = f"+{above['mean']:.{decimals(records[0])}f}"
    assert "− erk, points" in made[0].decode() and figure in made[0].decode()
    assert "points above erk" in made[1].decode()
    assert f"+{above['mean']:.1f} ±" in made[2].decode()


def test_the_best_is_ahead_by_a_value_where_all_are_alike() -> None:
    found = best_of([0.9, 0.8, 0.7], [0.8, 0.7, 0.6]).difference
    assert found is not None and (found.low, found.high, found.n) == (None, None, 3)
    found = best_of([0.9, 0.8, 0.7], [0.8, 0.7, 0.61]).difference
    assert found is not None and found.low is not None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_adjusted_p_values_keep_their_order_and_never_fall(p: list[float]) -> None:
    adjusted = best_per_density._holm(p)
    assert all(a >= b for a, b in zip(adjusted, p, strict=True))
    assert sorted(adjusted) == [adjusted[i] for i in sorted(range(len(p)), key=lambda i: p[i])]
    assert max(adjusted) <= 1


# Serving


@pytest.fixture
def served(site: Path) -> Iterator[int]:
    with serve.listening(site, 0) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def asked(port: int, path: str) -> tuple[int, dict[str, str]]:
    connection = HTTPConnection(serve.HERE, port, timeout=30)
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders())


def test_pages_are_served_with_their_policy(served: int) -> None:
    status, headers = asked(served, "/")
    assert status == 200
    assert headers["Content-Security-Policy"].startswith(POLICY)
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Content-type"] == "text/html"
    assert asked(served, "/assets/site.js")[1]["Content-type"] == "text/javascript"


@pytest.mark.parametrize(
    "path",
    ["/.build.json", "/%2ebuild.json", "/../board/ledger.jsonl", "/%2e%2e/x", "/api/", "/nothing"],
)
def test_nothing_else_is_served(served: int, path: str) -> None:
    assert asked(served, path)[0] == 404


@pytest.mark.parametrize(
    "path",
    ["/%00", "/api%00.html", "/tasks/%00/", "/.%00", "/?x=%00", "/%ed%a0%80", "/x%ed%b0%80y"],
)
def test_what_can_be_no_path_is_a_bad_request(
    path: str, served: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """A NUL or half a surrogate, but in a query; the terminal shows nothing of it."""
    assert asked(served, path)[0] == (200 if "?" in path else 400)
    assert asked(served, "/")[0] == 200
    assert capfd.readouterr().err == ""


def connected(port: int) -> socket.socket:
    return socket.create_connection((serve.HERE, port), timeout=20)


def ended(connection: socket.socket) -> bytes:
    """What comes until the other side ends it."""
    parts = []
    while part := connection.recv(4096):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\n"])
def test_an_idle_connection_is_ended(
    sent: bytes, served: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve.Handler, "timeout", 0.1)
    with connected(served) as connection:
        connection.sendall(sent)
        assert ended(connection) == b""


def test_no_connection_may_be_idle_for_ever() -> None:
    assert 0 < serve.Handler.timeout <= 60


def test_so_many_connections_at_once_and_no_more(served: int) -> None:
    """One more is told so at once; when one ends there is room again, whatever became of it."""
    for _ in range(2):
        with ExitStack() as stack:
            many = [stack.enter_context(connected(served)) for _ in range(serve.CONNECTIONS)]
            assert serve.CONNECTIONS == 64
            with connected(served) as one_more:
                assert ended(one_more).startswith(b"HTTP/1.0 503 ")
            for connection in many[:2]:
                connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
                assert ended(connection).startswith(b"HTTP/1.0 200 ")
            assert until_ok(served)
        assert until_ok(served)


def until_ok(port: int) -> bool:
    """A server's thread ends a moment after its connection."""
    for _ in range(200):
        if asked(port, "/")[0] == 200:
            return True
        time.sleep(0.02)
    return False


def test_a_browser_that_hangs_up_is_no_error(
    served: int, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before the end of a page, by a reset: nothing of it is printed."""
    linger = struct.pack("ii", 1, 0)
    for _ in range(5):
        with connected(served) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.sendall(b"GET /assets/site.js HTTP/1.0\r\n\r\nGET /")
            connection.recv(1)
        assert until_ok(served)
    assert capfd.readouterr().err == ""


def test_a_thread_that_cannot_begin_holds_no_place(
    served: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(serve.ThreadingHTTPServer, "process_request", failing)
        for _ in range(serve.CONNECTIONS + 1):
            with connected(served) as connection:
                assert ended(connection) == b""
    assert "can't start new thread" in capfd.readouterr().err
    assert asked(served, "/")[0] == 200


def failing(*_: object) -> None:
    raise RuntimeError("can't start new thread")


def test_a_port_in_use_is_one_line(served: int, site: Path) -> None:
    with pytest.raises(ResourceError, match=f"--port {served}: in use; choose another"):
        serve.serve(site, served, print)
    with pytest.raises(UsageError, match="65535"):
        serve.listening(site, 70000)


def test_a_folder_without_a_site_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no site; run `lthbench leaderboard build"):
        serve.serve(tmp_path, 0, print)


def test_ctrl_c_ends_it_quietly(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(serve.Server, "serve_forever", interrupted)
    serve.serve(site, 0, told.append)
    assert len(told) == 1 and told[0].startswith("http://127.0.0.1:")
