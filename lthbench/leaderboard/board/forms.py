"""The boards in a terminal, in Markdown, in LaTeX and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from lthbench.errors import UsageError
from lthbench.io.paths import canonical_json
from lthbench.leaderboard.board import entries, ranks
from lthbench.leaderboard.board.entries import Board, Entry
from lthbench.leaderboard.board.render import Part, parts
from lthbench.leaderboard.board.standings import OnTask, Row, Standing, standings
from lthbench.protocol.constants import LEVELS
from lthbench.protocol.task import load_suite, suite_names
from lthbench.report import latex, markdown, terminal
from lthbench.report.table import grid
from lthbench.report.terminal import WIDTH


def show(suite: str | None, form: str = "terminal", board: Board | None = None) -> str:
    """Render the boards of a suite, or of all suites with entries.

    Args:
        suite: Name of the suite; None for all that have entries.
        form: One of terminal, json, markdown or latex.
        board: The board; the shipped one by default.

    Raises:
        TaskError: If the suite does not exist.
        UsageError: If the suite is never ranked, or the form is unknown.
    """
    forms = (*FORMS, "json")
    if form not in forms:
        raise UsageError(f"form {form!r}: is none of {', '.join(forms)}")
    if suite is not None and not load_suite(suite).ranked:
        ranked = [name for name in suite_names() if load_suite(name).ranked]
        raise UsageError(
            f"--suite {suite}: it is never ranked, so it has no board; name {', '.join(ranked)}"
        )
    board = board or entries.load()
    found = standings(board, suite)
    if form == "json":
        return as_json(found)
    return FORMS[form](parts(found, suite))


def as_json(found: Sequence[Standing]) -> str:
    """Return all figures as one line of JSON."""
    return canonical_json([_json_standing(standing) for standing in found]).decode()


def _json_standing(standing: Standing) -> dict[str, Any]:
    ranked = [row.contender.id for row in standing.rows if row.rank is not None]
    pairs = [(a, b) for at, a in enumerate(ranked) for b in ranked[at + 1 :]]
    return {
        "suite": standing.suite,
        "board": standing.board,
        "title": standing.title,
        "tasks": list(standing.tasks),
        "left_out": dict(standing.left_out),
        "notes": list(standing.notes),
        "alpha": ranks.ALPHA,
        "rows": [_json_row(row) for row in standing.rows],
        "p": [{"a": a, "b": b, "p": standing.p[a, b]} for a, b in pairs],
    }


def _json_row(row: Row) -> dict[str, Any]:
    return {
        "contender": row.contender.id,
        "method": row.contender.name,
        "source": row.contender.digest,
        "untrained": row.contender.untrained,
        "rank": None if row.rank is None else list(row.rank),
        "why_unranked": row.why_unranked,
        "score": None if row.score is None else asdict(row.score),
        "level": row.level,
        "level_name": LEVELS[row.level],
        "division": row.division,
        "cost": row.cost,
        "tasks": {task: _json_task(on) for task, on in row.tasks.items()},
    }


def _json_task(on: OnTask) -> dict[str, Any]:
    entry: Entry = on.entry
    return {
        "entry": entry.id,
        "digest": entry.digest,
        "file": entry.file,
        "state": entry.state,
        "level": entry.level,
        "challenges": len(entry.challenges),
        "score": None if on.score is None else asdict(on.score),
        "what": on.what,
        "values": list(on.values),
        "headline": on.headline,
        "matching": asdict(on.matching),
        "seeds": on.seeds,
        "cost": on.cost,
        "options": dict(entry.record.method.options),
        "ranked": on.ranked,
    }


def _terminal(said: Sequence[Part]) -> str:
    blocks = []
    for part in said:
        lines = [part.heading, "=" * len(part.heading) if part.depth == 1 else ""]
        lines += [terminal.wrapped(line.replace("`", ""), WIDTH) for line in part.lines]
        blocks.append("\n".join(line for line in lines if line))
        for table in part.tables:
            note = [terminal.wrapped(table.note, WIDTH)] if table.note else []
            blocks.append("\n".join([f"{table.caption}:", grid(table), *note]))
    return "\n\n".join(blocks).translate(TERMINAL) + "\n"


TERMINAL = {**terminal.TERMINAL, ord("–"): "-"}


def _markdown(said: Sequence[Part]) -> str:
    blocks = []
    for part in said:
        blocks.append(f"{'#' * (part.depth + 1)} {markdown.md(part.heading)}")
        blocks += [markdown.md(line).replace(r"\`", "`") for line in part.lines]
        for table in part.tables:
            blocks += markdown.blocks(table)
    return "\n\n".join(blocks) + "\n"


def _latex(said: Sequence[Part]) -> str:
    """Format each board as one `table` of plain `tabular`s, captioned by the text above them."""
    blocks, above = [], ""
    for part in said:
        text = ". ".join((part.heading, *part.lines[:1])).rstrip(".") + "."
        if not part.tables:
            above = " ".join(part.lines) if part.depth == 1 else above
            blocks.append(f"% {latex.only_ascii(text)}")
            continue
        blocks.append(latex.floating(f"{text} {above}".strip().replace("`", ""), part.tables))
        above = ""
    return "\n\n".join(blocks) + "\n"


FORMS: Mapping[str, Callable[[Sequence[Part]], str]] = {
    "terminal": _terminal,
    "markdown": _markdown,
    "latex": _latex,
}
