"""The page of one task: the best at each density, at what cost, under which protocol."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lthbench.leaderboard.board.entries import Entry
from lthbench.leaderboard.citation import cite
from lthbench.leaderboard.site import best_per_density, charts
from lthbench.leaderboard.site.best_per_density import Best
from lthbench.leaderboard.site.grid import Column, Grid, GridCell, GridRow, missing
from lthbench.leaderboard.site.labels import BOARDS, DIVISIONS, RANKED_LEVEL, STATES, lines
from lthbench.leaderboard.site.pages import task_tables
from lthbench.leaderboard.site.pages.protocol import Protocol
from lthbench.leaderboard.site.pages.task_tables import entry_names, front, link, score_cell
from lthbench.records.reference import Reference
from lthbench.report.figures import Figure
from lthbench.report.formats import interval, measure, number, percent, plain
from lthbench.report.terms import is_untrained

CERTAIN = {"yes": "yes", "no": "no", "open": "cannot be told"}
FEW = 3  # names listed for tied entries


def page(
    name: str, protocol: Protocol | None, entries: Sequence[Entry], reference: Reference | None
) -> dict[str, Any]:
    """Return the template values of a task's page.

    Args:
        name: Name of the task.
        protocol: The shipped protocol; None if the task is not shipped.
        entries: Every entry of the task, including retracted and superseded ones.
        reference: The frozen reference, if any.
    """
    there = current(entries, protocol)
    trained = task_tables.by_score([e for e in there if not is_untrained(e.record)])
    untrained = task_tables.by_headline([e for e in there if is_untrained(e.record)])
    names = entry_names(there)
    divisions = {e.record.scores.division for e in trained}
    return {
        "name": plain(name),
        "slug": name,
        "title": plain(protocol.title) if protocol else "",
        "protocol": protocol,
        "count": len(there),
        "verified": sum(e.level >= RANKED_LEVEL for e in there),
        "boards": _boards(there, names),
        "figures": tuple(_figures(trained, untrained, names, reference)),
        "every": task_tables.every(trained, names),
        "untrained": task_tables.untrained(untrained, names),
        "costs": task_tables.front_table(trained, names),
        "steps": tuple(task_tables.steps(trained, names)),
        "transfer": task_tables.transfer(trained, names),
        "others": _others(entries, there),
        "comparable": len(there) > 1,
        "reference": _reference(reference, protocol is not None and protocol.area),
        "cite": lines(cite.of_task(name)) if protocol else "",
        "filters": {
            "tasks": [],
            "divisions": [division for division in DIVISIONS if division in divisions],
            "levels": sorted({e.level for e in trained}),
        },
    }


def current(entries: Sequence[Entry], protocol: Protocol | None) -> list[Entry]:
    """Return the active entries under the task's current protocol."""
    standing = [e for e in entries if e.state in ("accepted", "listed")]
    digest = protocol.digest if protocol else _commonest(standing)
    return [e for e in standing if e.record.task.digest == digest]


def _reference(reference: Reference | None, area: bool) -> tuple[tuple[str, str], ...]:
    """Return the reference values of the scores, and the noise floor."""
    if reference is None:
        return (("Reference", "none yet"),)
    values = reference.values["test"]
    dense = 100 * sum(values.dense) / len(values.dense)
    word = "provisional" if reference.provisional else "frozen"
    what = f"{dense:.2f} % {'area' if area else 'accuracy'} on the test split"
    told = [
        ("Reference", f"{word}: {len(values.dense)} dense seeds, {what}"),
        ("Margin", f"{100 * values.margin:.2f} points"),
    ]
    if floors := charts.floors(reference, area):
        said = ", ".join(f"{floor:.2f}" for floor in floors)
        told.append(("Noise floor", f"{said} points, from the densest rung on"))
    else:
        told.append(("Noise floor", "not measured yet"))
    return tuple(told)


def _commonest(entries: Sequence[Entry]) -> str:
    digests = Counter(e.record.task.digest for e in entries)
    return max(sorted(digests), key=lambda d: digests[d], default="")


# Who is best


def _boards(entries: Sequence[Entry], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Build a table for each board whose answers differ from those of the previous boards."""
    told: list[dict[str, Any]] = []
    seen: list[list[tuple[str, ...]]] = []
    for board in ("early", "init", "open", "untrained"):
        chosen = best_per_density.eligible(entries, board)
        answers = best_per_density.best(chosen)
        key = [(*(e.id for e in b.entries), b.second.id if b.second else "") for b in answers]
        if not answers or key in seen:
            continue
        seen.append(key)
        title, what = BOARDS[board]
        verified = any(e.level >= RANKED_LEVEL for e in chosen)
        told.append(
            {
                "name": board,
                "title": title,
                "what": what,
                "verified": verified,
                "grid": _best_grid(board, title, answers, names, verified),
            }
        )
    return told


def _best_grid(
    board: str, title: str, answers: Sequence[Best], names: Mapping[str, str], verified: bool
) -> Grid:
    columns = (
        Column("density", "density, %", css="num"),
        Column("best", "best", "t"),
        Column("score", _score_head(answers[0].entries[0]), css="num"),
        Column("second", "next best", "t"),
        Column("difference", "ahead by, paired", css="num"),
        Column("certain", "certain?", "t"),
    )
    rows = tuple(_best_row(answer, names, verified) for answer in answers)
    said = "verified entries" if verified else "reported figures, nobody has verified any"
    caption = f"Best at each density, {title.lower()}: {said}"
    return Grid(f"best-{board}", caption, columns, rows, sorts=False, css="answers")


def _score_head(entry: Entry) -> str:
    return "accuracy, %" if is_untrained(entry.record) else f"{measure(entry.record)}, %"


def _best_row(answer: Best, names: Mapping[str, str], verified: bool) -> GridRow:
    top = answer.entries[0]
    return GridRow(
        (
            GridCell(percent(answer.density), key=answer.density),
            _best_names(answer, names),
            score_cell(top, answer.found),
            missing("none")
            if answer.second is None
            else GridCell(names[answer.second.id], link(answer.second)),
            _ahead(answer),
            certain_cell(answer, verified),
        )
    )


def _best_names(answer: Best, names: Mapping[str, str]) -> GridCell:
    if len(answer.entries) == 1:
        return GridCell(names[answer.entries[0].id], link(answer.entries[0]), css="best")
    listed = ", ".join(names[e.id] for e in answer.entries[:FEW])
    more = len(answer.entries) - FEW
    return GridCell(f"{listed} and {more} more" if more > 0 else listed, css="best")


def _ahead(answer: Best) -> GridCell:
    value = answer.difference
    if value is None:
        return missing("")
    if value.low is None:
        return GridCell(f"{number(100 * value.mean, 2, signed=True)} points", key=value.mean)
    text = f"{number(100 * value.mean, 2, signed=True)} {interval(value, 2, 100, signed=True)}"
    return GridCell(f"{text} points", key=value.mean)


def _figures(
    trained: Sequence[Entry],
    untrained: Sequence[Entry],
    names: Mapping[str, str],
    reference: Reference | None,
) -> Sequence[tuple[str, Figure]]:
    made: list[tuple[str, Figure]] = []
    if trained:
        made.append(("accuracy", charts.accuracy(trained, names, reference)))
        ids = [entry.id for entry in front(trained)]
        if ids:
            made.append(("cost", charts.pareto(trained, names, ids)))
        speed = [e for e in trained if e.record.scores.speed.grokking]
        if speed:
            made.append(("steps", charts.generalising(speed, names)))
        steady = [e for e in trained if e.record.scores.speed.steps]
        if steady:
            made.append(("steps", charts.to_match(steady, names)))
    if untrained:
        made.append(("untrained", charts.untrained(untrained, names)))
    return made


def _others(entries: Sequence[Entry], current: Sequence[Entry]) -> list[dict[str, str]]:
    """List entries excluded above, each with its reason."""
    there = {entry.id for entry in current}
    rows = []
    for entry in entries:
        if entry.id not in there:
            word = STATES[entry.state]
            if entry.state in ("accepted", "listed"):
                word = f"another protocol ({entry.record.task.digest[:8]}): never mixed"
            rows.append({"name": entry.id, "href": link(entry), "why": word})
    return rows


def certain_cell(answer: Best, verified: bool) -> GridCell:
    """Say whether the best is certain, and why; unverified figures are marked first."""
    said = f"{CERTAIN[answer.certain]}: {answer.why}"
    if not verified:
        said = f"no: nobody has verified it; {answer.why}"
    return GridCell(said, css=f"certain {answer.certain if verified else 'no'}")
