"""board.forms: what a visitor reads in a terminal, in Markdown, in LaTeX and as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from lthbench.errors import TaskError, UsageError
from lthbench.leaderboard.board import entries, forms, render
from lthbench.leaderboard.board.entries import Board, Entry
from lthbench.leaderboard.board.standings import standings
from lthbench.records.schema import BundleEntry
from lthbench.report.formats import ranks_left
from lthbench.report.terminal import WIDTH
from tests import commands
from tests.boards import LITE, Method, board_of, board_record, entry_of

pytestmark = pytest.mark.usefixtures("small_lite")

FORMS = ("terminal", "markdown", "latex")
ROOT = Path(__file__).resolve().parents[2]


@cache
def lite(number: int, level: int = 2, method: Method | None = None) -> tuple[Entry, ...]:
    return tuple(
        entry_of(board_record(task, number, method=method), 10 * number + at, level)
        for at, task in enumerate(LITE)
    )


@cache
def board() -> Board:
    """Three that are ranked, one of level 0, one incomplete, a reference, and untrained tickets."""
    reference = Method("imp_lrr", "reference", False, 5.0, 23.0, 2)
    return board_of(
        [*lite(0), *lite(1), *lite(2, 3), *lite(5, 0), *lite(6)[:2], *lite(30, 2, reference),
         *lite(3)]
    )  # fmt: skip


def shown(form: str = "terminal", of: Board | None = None, suite: str | None = None) -> str:
    return forms.show(suite, form, of or board())


def block(said: str, heading: str) -> str:
    """The text from a heading to the next one."""
    _, found, rest = said.partition(heading)
    assert found, f"{heading} is not in\n{said}"
    return rest.partition("\nBoard ")[0]


def test_the_first_board_says_who_is_first_with_which_score() -> None:
    """Suite, board and verdict stand before any table, and any explanation after all of them."""
    said = shown()
    lines = said.splitlines()
    assert lines[0].startswith("Suite lite: ")
    assert lines[2] == f"Score: mean retention over {LITE[0]}, {LITE[1]} and {LITE[2]}."
    assert lines[4] == "Board early weights: 3 ranked, 3 not"
    assert "first" in lines[5].lower()
    assert said.index("Rank: the places") > said.rindex("Board ")
    assert max(map(len, said.splitlines())) <= WIDTH + 8


@pytest.mark.parametrize("form", FORMS)
def test_every_row_has_its_rank_score_cost_and_level(form: str) -> None:
    early = next(s for s in standings(board(), "lite") if s.board == "early")
    said = shown(form)
    for row in early.rows[:3]:
        assert row.rank and row.score and row.score.low is not None
        low, high = row.rank
        rank = f"{low}{'-' if form == 'terminal' else '–'}{high}"
        rank = rank.replace("–", "--") if form == "latex" else rank
        name = row.contender.name
        name = name.replace("_", r"\_") if form != "terminal" else name
        (line,) = re.findall(rf"^\W*{rank} .*{re.escape(name)}.*$", said, re.M)[:1]
        assert f"{row.score.mean:.2f}" in line.replace("−", "-").replace("$-$", "-")
        assert f"{row.level} {render.LEVELS[row.level]}" in line


def test_why_a_row_is_not_ranked_is_told() -> None:
    said = block(shown(), "Board early weights")
    listed = said[said.index("Listed, not ranked") :]
    assert re.search(r"sign_only-0005 +level 0 .* 0 reported", listed)
    assert re.search(r"tangent-0006 +2 of 3 tasks +- ", listed)
    assert re.search(r"imp_lrr +a reference: final weights", listed)


def test_untrained_tickets_are_told_in_accuracy() -> None:
    said = block(shown(), "Board untrained tickets: 1 ranked")
    assert "accuracy, %" in said and "is alone here" in said
    assert re.search(r"force-0003 +[\d.]+ \[", said)


def test_what_the_ledger_does_not_tell_of_is_not_accepted() -> None:
    """A record alone has no level; that of a row is the least of its records'."""
    first, *others = lite(5, 0)
    listed = replace(first, state="listed", lines=())
    said = shown(of=board_of([listed, *others, *lite(1)]))
    (row,) = re.findall(r"^sign_only-0005 .*$", said, re.M)[:1]
    assert row.count("not accepted") == 2 and "0 reported" not in row and "level 0" not in row
    records = {line.split()[1]: line for line in said.splitlines() if line.startswith(LITE)}
    assert records[listed.id].rstrip().endswith("not accepted")
    told = [records[e.id].rstrip() for e in others if e.id in records]
    assert told and all(line.endswith("0 reported") for line in told)
    assert "not accepted: a record is there" in " ".join(said.split())
    assert json.loads(shown("json", board_of([listed])))[0]["rows"][0]["level"] == 0


def test_a_checked_bundle_at_no_public_address_is_named() -> None:
    """Of level 1 or above alone: what nobody checked is said to be so already."""
    low, *_ = lite(5, 0)
    high, other, _ = lite(1)
    nowhere = BundleEntry(sha256="a" * 64, size=1000, urls=())
    public = BundleEntry(sha256="b" * 64, size=1000, urls=("https://example.org/b.zip",))

    def with_bundle(entry: Entry, bundle: BundleEntry) -> Entry:
        return replace(entry, record=entry.record.model_copy(update={"bundle": bundle}))

    found = [with_bundle(low, nowhere), with_bundle(high, nowhere), with_bundle(other, public)]
    said = " ".join(shown(of=board_of(found)).split())
    assert f"Bundle at no public address: {high.id}. " in said
    assert "no public address" not in shown()


def test_boards_with_the_same_rows_are_not_printed_again() -> None:
    said = shown(of=board_of([*lite(0), *lite(1)]))
    assert said.count("Ranked:") == 1
    assert "The same contenders as on the board early weights, and the same ranks." in said


def test_every_record_is_listed_with_the_name_that_commands_take() -> None:
    said = shown()
    records = said[said.index("Records of suite lite") :]
    for entry in board().entries:
        assert f" {entry.id} " in records
    assert "untrained" in said


def test_long_lists_are_cut_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "LISTED", 4)
    said = " ".join(shown().split())
    assert f"{len(board().entries) - 4} records more: --json lists them all." in said


def test_nobody_ranked_is_said_plainly_and_all_are_listed() -> None:
    said = shown(of=board_of(lite(1, 0)))
    assert "Nobody is ranked yet: that takes level 2, every ranked task, and all" in said
    assert "Board early weights: 0 ranked, 1 not" in said
    assert all(entry.id in said for entry in lite(1, 0))


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_board_says_how_to_add_an_entry(form: str) -> None:
    said = shown(form, board_of([]))
    assert "The leaderboard has no entries yet" in said
    assert "Suite paper has no entries yet" in shown(form, board_of([]), "paper")
    if form != "latex":
        assert "lthbench submit" in said
    assert json.loads(shown("json", board_of([]))) == []


def test_a_board_without_rows_of_its_own_says_so() -> None:
    """Tickets of a later step: nothing at initialisation."""
    said = shown(of=board_of(lite(2)))
    assert "No entries yet." in block(said, "Board at initialisation: 0 ranked")


def test_options_that_differ_are_a_column() -> None:
    *same, last = lite(1)
    other = entry_of(board_record(LITE[2], options={"rate": 0.2, "depth": 3}), 99)
    assert last.record.task.name == LITE[2]
    said = shown(of=board_of([*same, other]))
    assert "depth=3" in said and "options" in said
    assert "options" not in shown(of=board_of(lite(1)))


def test_json_has_every_figure_and_the_p_values() -> None:
    found = json.loads(shown("json"))
    told = {standing["board"]: standing for standing in found}
    assert list(told) == ["early", "init", "open", "untrained"]
    rows = {row["contender"]: row for row in told["early"]["rows"]}
    early = standings(board(), "lite")[0]
    for row in early.rows:
        table = rows[row.contender.id]
        assert table["rank"] == (None if row.rank is None else list(row.rank))
        assert table["level_name"] == render.LEVELS[row.level]
        assert set(table["tasks"]) == set(row.tasks)
        for task, on in row.tasks.items():
            assert table["tasks"][task]["values"] == list(on.values)
            assert table["tasks"][task]["digest"] == on.entry.digest
    assert {(p["a"], p["b"]): p["p"] for p in told["early"]["p"]} == {
        (a, b): early.p[a, b]
        for at, a in enumerate(r.contender.id for r in early.rows[:3])
        for b in [r.contender.id for r in early.rows[:3]][at + 1 :]
    }


@pytest.mark.parametrize("form", FORMS)
def test_text_of_strangers_does_nothing(form: str) -> None:
    """Options are free text: they stay on their line, and their marks are written out."""
    hostile = "</script>\u202e\n\x1b[31m|&%$#_{}~^\\`\uff3c\uff5b\ufe6a\u3164"
    *same, _ = lite(1)
    other = entry_of(board_record(LITE[2], options={hostile: hostile}), 99)
    said = shown(form, board_of([*same, other]))
    assert not set("\u202e\x1b\u3164") & set(said)
    assert "U+202E" in said
    if form == "markdown":
        assert "<script" not in said and "</" not in said
        for line in said.splitlines():
            if line.startswith("| "):
                assert len(re.findall(r"(?<!\\)\|", line)) in (6, 7)
    if form == "latex":
        assert not re.search(r"(?<!\\)[#$_~^](?![-\\])", re.sub(r"\$-\$|\$[\\\w]+\$", "", said))


def test_latex_is_one_table_a_board_with_its_caption() -> None:
    said = shown("latex")
    assert said.count(r"\begin{table}") == said.count(r"\end{table}") == 4
    assert said.count(r"\caption{") == 4 and said.isascii()
    assert r"\caption{Board early weights: 3 ranked, 3 not." in said


def test_a_contender_is_called_by_its_name() -> None:
    """No table has a name that looks like an entry's and is none; two of a name tell theirs."""
    said = shown()
    tables = [row.contender for found in standings(board(), "lite") for row in found.rows]
    assert tables and not any(contender.id in said for contender in tables)
    other = []
    for entry in lite(1):
        method = entry.record.method.model_copy(update={"digest": "5" * 64})
        own = [c.model_copy(update={"masks": (c.masks or "")[::-1]}) for c in entry.record.cells]
        record = entry.record.model_copy(update={"method": method, "cells": tuple(own)})
        other.append(replace(entry, digest=entry.digest[::-1], record=record))
    name = other[0].record.method.name
    both = shown(of=board_of([*lite(0), *lite(1), *other]))
    source = lite(1)[0].record.method.digest[:8]
    for called in (f"{name} (source {source})", f"{name} (source 55555555)"):
        assert re.search(rf"^[\d-]+ +{re.escape(called)} ", both, re.M)
    plain = lite(0)[0].record.method.name
    assert re.search(rf"^[\d-]+ +{plain}  ", both, re.M) and f"{plain} (source" not in both


def test_options_before_a_verb_are_refused() -> None:
    """They would go nowhere."""
    done = commands.run("leaderboard", "--json", "show", cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert "options before `show` go nowhere" in done.stderr and done.stderr.count("\n") == 1


def test_what_has_no_board_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--suite quick: it is never ranked.*lite, paper"):
        forms.show("quick")
    with pytest.raises(TaskError, match="no suite 'lit'"):
        forms.show("lit")
    with pytest.raises(UsageError, match="form 'html'"):
        forms.show(None, "html", board())


def test_challenged_entries_are_marked() -> None:
    """In JSON their number; the entry's page tells what was found."""
    first, *others = lite(1)
    line: dict[str, Any] = {"act": "challenge"}
    marked = board_of([replace(first, challenges=(line, line)), *others])
    rows = json.loads(shown("json", marked))[0]["rows"]
    assert rows[0]["tasks"][LITE[0]]["challenges"] == 2
    assert "challenged 2 times" in shown(of=marked)
    assert "challenged" not in shown()


@pytest.mark.parametrize("arguments", [(), ("--json",), ("show", "--suite", "lite", "--latex")])
def test_the_command_prints_the_shipped_board(arguments: tuple[str, ...], cache: Path) -> None:
    done = commands.run("leaderboard", *arguments, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    shipped = {
        entry.id
        for entry in entries.load().entries
        if entry.record.task.name in LITE and entry.state in ("accepted", "listed")
    }
    said = done.stdout.replace(r"\_", "_")
    missing = [name for name in shipped if name not in said]
    assert missing == [] or ("--json" not in arguments and len(shipped) > render.LISTED)


def test_a_rank_is_never_a_bare_number() -> None:
    assert ranks_left((1, 1)) == "1–1"
    assert ranks_left((2, 5)) == "2–5"
