"""The page of one entry: its results, their credibility, and how to repeat, check and cite it."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lthbench.leaderboard.board.entries import Entry
from lthbench.leaderboard.site.charts import COLOURS
from lthbench.leaderboard.site.labels import LEVELS, STATES, level_of
from lthbench.records import runs
from lthbench.records.schema import Carried, Cell, Record
from lthbench.report import figures, html, summary
from lthbench.report.answers import answers
from lthbench.report.figures import Figure, density_axis, layout
from lthbench.report.formats import NA, decimals, is_area, number, percent, plain
from lthbench.report.remarks import Remark, remarks
from lthbench.report.table import Table
from lthbench.report.tables import tables
from lthbench.report.terms import is_untrained

SHOWN_OF_REPORT = 8  # facts repeated from a verification report
SHOWN_ALIKE = 5  # maximum listed entries with shared masks
TOLD_ELSEWHERE = ("what", "beacon", "level", "entry", "task", "bundle", "ok")
AGAIN = ("density", "seed", "schedule", "equal", "z", "bend")
ACTS = {
    "accept": "accepted",
    "supersede": "takes the place of another entry",
    "retract": "retracted",
    "challenge": "challenged",
    "level": "verified",
}


def page(
    entry: Entry,
    baseline: str,
    sizes: Mapping[str, int],
    citation: Mapping[str, str],
    alike: Sequence[tuple[str, bool]] = (),
) -> dict[str, Any]:
    """Return the template values of an entry's page.

    Args:
        entry: The entry.
        baseline: The digest of the shipped baseline with the method's name; "" if there is none.
        sizes: Weights of each prunable tensor; empty where unknown.
        citation: BibTeX and CFF by format.
        alike: Statements on masks shared with earlier entries, and whether each is a warning.
    """
    record = entry.record
    said = (*remarks(record), *_alike(alike))
    training = figures.training(record)
    return {
        "id": entry.id,
        "slug": record.task.name,
        "method": plain(record.method.name),
        "task": plain(record.task.name),
        "task_version": record.task.version,
        "level_number": entry.level,
        "verified": level_of([entry]),
        "promise": LEVELS[entry.level],
        "banner": _banner(entry),
        "state": STATES[entry.state],
        "answers": answers(record),
        "warnings": (*(r for r in said if r.warns and r.name != "Failed"), *_unmetered(entry)),
        "remarks_of": said,
        "described": html.described(record),
        "figures": tuple(figures.figures(record)),
        "tables": tables(record),
        "training": (
            training,
            html.tabulate(training, decimals(record), "Accuracy over training steps, %"),
        ),
        "layers": _layers(record, sizes),
        "cells": _cells(record),
        "carried": _carried(record),
        "provenance": _provenance(entry),
        "reproduce": _reproduce(record, baseline),
        "verify": _verify(entry),
        "bundle": _bundle(record),
        "ledger": _ledger(entry),
        "again": _again(entry),
        "challenges": tuple(_challenge(line) for line in entry.challenges),
        "citation": citation,
        "record_path": f"api/v1/records/{record.task.name}/{entry.id}.json",
    }


def _banner(entry: Entry) -> tuple[str, str, str]:
    """Return heading, sentence and link for an entry that is on no board; empty for others."""
    if entry.state == "retracted":
        why = next((plain(str(x.get("why", ""))) for x in entry.lines if x["act"] == "retract"), "")
        said = f"It stands on no board. {why}".strip()
        return "Retracted", said, ""
    if entry.state == "superseded" and entry.of:
        return "Superseded", "Another entry of this method took its place:", entry.of
    return "", "", ""


def _alike(found: Sequence[tuple[str, bool]]) -> list[Remark]:
    """Return a remark for each earlier entry with the same masks, in whole or in part."""
    said = [Remark("Masks of others", text, warns=same) for text, same in found[:SHOWN_ALIKE]]
    more = len(found) - len(said)
    return [*said, *([Remark("Masks of others", f"in part those of {more} more")] * (more > 0))]


def _unmetered(entry: Entry) -> Iterator[Remark]:
    """Yield what the last level 3 report says of the searches that it repeated."""
    reports = [line["report"] for line in entry.lines if line["act"] == "level"]
    found = [r["reproduced"] for r in reports if isinstance(r.get("reproduced"), Mapping)]
    for told in found[-1].get("unmetered", ()) if found else ():
        yield Remark("Unmetered", f"reproduced: {plain(str(told), 300)}", warns=True)


# Commands


def _reproduce(record: Record, baseline: str) -> tuple[str, str, str]:
    """Return the command that reproduces the record, its prerequisites, and a command for these."""
    ours = baseline == record.method.digest
    source = record.method.name if ours else "method.py"
    options = [
        f"--set {shlex.quote(f'{plain(k)}={_set(v)}')}" for k, v in record.method.options.items()
    ]
    suffix = "" if record.transfer else " --no-transfer"
    command = " ".join(
        [
            f"lthbench evaluate {source} --final",
            f"--task {shlex.quote(record.task.name)} --seeds {len(record.seeds)}{suffix}",
            *options,
        ]
    )
    if ours:
        note, source = "The method ships with lthbench; its source:", f"lthbench baselines {source}"
    else:
        note = "method.py is the member of that name in the entry's bundle; its sha256:"
        source = record.method.digest
    return command, note, source


def _set(value: bool | int | float | str) -> str:
    return str(value).lower() if isinstance(value, bool) else plain(str(value))


def _verify(entry: Entry) -> str:
    lines = [
        f"lthbench verify {entry.id} --level 1    # masks, origins, overlaps: minutes",
        f"lthbench verify {entry.id} --level 2    # trains drawn cells again",
    ]
    if entry.record.bundle:
        lines.append(f"lthbench tickets fetch {entry.id}       # its masks and weights")
    return "\n".join(lines)


def _bundle(record: Record) -> tuple[tuple[str, str], ...]:
    if record.bundle is None:
        return ()
    size = f"{record.bundle.size / 2**20:.1f} MB"
    urls = [(f"copy {i}", plain(url, 400)) for i, url in enumerate(record.bundle.urls, 1)]
    nowhere = (
        "copies",
        "at no address: ask the authors for the file, and name its folder in LTHBENCH_BUNDLES",
    )
    return (("sha256", record.bundle.sha256), ("size", size), *(urls or [nowhere]))


# The ledger


def _ledger(entry: Entry) -> Table:
    rows = tuple(_line(entry, line) for line in entry.lines)
    return Table("What the ledger says of it", ("line", "act", "what"), rows)


def _line(entry: Entry, line: Mapping[str, Any]) -> tuple[str, str, str]:
    act = str(line["act"])
    if act == "level":
        word = LEVELS[line["level"]].word if 0 <= line["level"] < len(LEVELS) else "?"
        beacon = str(line.get("beacon", ""))[:12]
        drawn = [f"drawn by {beacon}"] if beacon else []
        what = "; ".join([f"{line['level']} {word}", *_told(line.get("report")), *drawn])
    elif act == "supersede":
        older, younger = str(line["of"])[:8], str(line["entry"])[:8]
        taken = entry.digest.startswith(older)
        what = f"{younger} takes the place of {older}" + (" (this entry)" if taken else "")
    else:
        what = plain(str(line.get("why", "")), 400)
    return str(line["n"]), ACTS.get(act, plain(act)), what


def _told(found: Any) -> list[str]:
    """Put a verification's report into words: its sentence, then its plain facts."""
    if not isinstance(found, Mapping):
        return []
    kept = [(k, v) for k, v in found.items() if isinstance(v, (bool, int, float, str))]
    facts = [(k, v) for k, v in kept if k not in TOLD_ELSEWHERE][:SHOWN_OF_REPORT]
    what = plain(str(found["what"]), 400) if "what" in found else ""
    return [*([what] if what else []), *(f"{plain(str(k))} {_short(v)}" for k, v in facts)]


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else plain(str(value), 80)


def _again(entry: Entry) -> Table | None:
    """Build the table of cells that the last verification retrained."""
    reports = [line["report"] for line in entry.lines if line["act"] == "level"]
    found = [report["cells"] for report in reports if isinstance(report.get("cells"), list)]
    cells = [cell for cell in (found[-1] if found else ()) if isinstance(cell, Mapping)]
    if not cells:
        return None
    rows = tuple((_told_kind(cell), *(_told_cell(k, cell.get(k)) for k in AGAIN)) for cell in cells)
    head = ("network", "density, %", "seed", "steps, T/", "bit for bit", "z", "curves")
    what = "areas" if is_area(entry.record) else "counts of correct answers at the end"
    note = (
        f"z: claimed less new, of {what} on the test split; curves: how far apart they lie; both "
        "in noise floors of a difference."
    )
    return Table(f"Trained again: {len(rows)} cells drawn by lot", head, rows, note)


def _told_kind(cell: Mapping[str, Any]) -> str:
    """Name a network's kind, with the number of the draw for a control that was redrawn."""
    kind, attempt = _told_cell("kind", cell.get("kind")), cell.get("attempt")
    return f"{kind}, draw {attempt + 1}" if isinstance(attempt, int) and attempt > 0 else kind


def _told_cell(name: str, value: Any) -> str:
    value = value.get("test") if isinstance(value, Mapping) else value
    if name == "equal":
        return {True: "yes", False: "no"}.get(value, NA) if isinstance(value, bool) else NA
    known = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value is None:
        return NA
    if not known:
        return plain(str(value), 40)
    if name == "density":
        return percent(value)
    return number(value, 2 if name in ("z", "bend") else 0)


def _challenge(line: Mapping[str, Any]) -> tuple[str, str]:
    by = line.get("by")
    return plain(str(line.get("why", "")), 400), "; ".join(_told(by))


# Tables


def _layers(record: Record, sizes: Mapping[str, int]) -> tuple[Figure, Table] | None:
    """Return the density of each tensor at each rung; kept weights where sizes are unknown."""
    kind = "untrained" if is_untrained(record) else "ticket"
    tickets = [c for c in record.cells if c.kind == kind and c.layers and c.schedule == 1]
    names = list(dict.fromkeys(name for cell in tickets for name in cell.layers))
    if not names:
        return None
    known = all(sizes.get(name) for name in names)
    lines: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for density in record.task.ladder:
        cells = [cell for cell in tickets if cell.density == density]
        for name in names if cells else ():
            mean = sum(cell.layers.get(name, 0) for cell in cells) / len(cells)
            value = 100 * mean / sizes[name] if known else mean
            lines[name].append((density, value))
    what = "Density of each tensor, %" if known else "Kept weights of each tensor"
    rows = tuple(
        (
            percent(density),
            *(_layer(dict(lines[name]).get(density), known) for name in names),
        )
        for density in record.task.ladder
    )
    table = Table(
        f"{what}, mean over seeds", ("density, %", *(plain(name) for name in names)), rows
    )
    return _layer_figure(record, lines, what), table


def _layer(value: float | None, known: bool) -> str:
    if value is None:
        return NA
    return (percent(value / 100) if value >= 0.005 else "0") if known else number(value, 0)


def _layer_figure(
    record: Record, lines: Mapping[str, Sequence[tuple[float, float]]], what: str
) -> Figure:
    traces = tuple(
        {
            "name": plain(name, 60).replace("<", "‹"),
            "x": [100 * density for density, _ in points],
            "y": [value if value > 0 else None for _, value in points],
            "mode": "lines+markers",
            "line": {"color": COLOURS[place % len(COLOURS)], "width": 1.8},
            "marker": {"size": 6, "color": COLOURS[place % len(COLOURS)]},
            "hovertemplate": "%{y:.3~g}",
        }
        for place, (name, points) in enumerate(lines.items())
    )
    y = {"type": "log", "title": {"text": what}, "tickformat": "~g"}
    return Figure(
        "layers",
        f"{what}, at each density of the whole network; mean over seeds.",
        traces,
        layout(density_axis(record.task.ladder), y),
        small=True,
    )


def _cells(record: Record) -> Table:
    """Build the table of every training of the record."""
    rows = tuple(_row(record, cell) for cell in record.cells)
    head = (
        *("network", "seed", "density, %", "schedule", "kept weights", "effective", "origin"),
        *("start", "score, %", "status"),
    )
    note = "A ticket that is missing or failed scores chance; a control that failed is left out."
    return Table(f"Every training at the task's own depth: {len(rows)}", head, rows, note)


def _carried(record: Record) -> Table | None:
    """Build the table of every training at other depths."""
    if record.transfer is None or not record.transfer.cells:
        return None
    rows = tuple(_row(record, cell) for cell in record.transfer.cells)
    head = (
        *("network", "depth", "seed", "density, %", "kept weights", "origin", "score, %", "status"),
    )
    return Table(f"Every training at other depths: {len(rows)}", head, rows)


def _row(record: Record, cell: Cell | Carried) -> tuple[str, ...]:
    score = number(100 * runs.score_of(record, cell), decimals(record))
    drawn = f", draw {cell.attempt + 1}" if cell.attempt else ""
    status = cell.status + drawn + (f": {plain(cell.reason)}" if cell.reason else "")
    common = (str(cell.seed), percent(cell.density))
    if isinstance(cell, Carried):
        kept = f"{cell.kept:,}"
        return (cell.kind, str(cell.depth), *common, kept, cell.origin, score, status)
    return (
        cell.kind,
        *common,
        "T" if cell.schedule == 1 else f"T/{cell.schedule}",
        f"{cell.kept:,}",
        NA if cell.effective is None else f"{cell.effective:,}",
        cell.origin,
        str(cell.start),
        score,
        status,
    )


def _provenance(entry: Entry) -> Table:
    """Build the table of what was run, and where: enough to tell whether two records match."""
    record = entry.record
    facts = {
        "record, sha256": entry.digest,
        "method's source, sha256": record.method.digest,
        "task": f"{record.task.name} version {record.task.version}",
        "protocol, sha256": record.task.digest,
        "reference, sha256": record.reference.digest if record.reference else NA,
        "scorer": f"version {record.scorer}",
        **{f"data {name}, sha256": value for name, value in record.fingerprints.items()},
        **summary.environments(record),
        **{k: v if isinstance(v, str) else f"{v:,.1f}" for k, v in record.times.items()},
    }
    rows = tuple((plain(name), plain(text)) for name, text in facts.items())
    return Table("Provenance", ("what", "value"), rows)
