"""The pages of evidence: the rules of the verdicts, and the results of each saved pair."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from lthbench.errors import RecordError
from lthbench.leaderboard.analysis.evidence import RULES_VERSION, Saved, rules
from lthbench.leaderboard.analysis.evidence import load as load_saved
from lthbench.leaderboard.analysis.render import (
    DESCRIPTIVE,
    LAYER_HEAD,
    NULLS,
    RUNG_HEAD,
    estimate,
    layer_cells,
    rung_cells,
)
from lthbench.leaderboard.analysis.schema import Rung
from lthbench.leaderboard.analysis.verdicts import Estimate, Verdict
from lthbench.leaderboard.board.entries import Entry
from lthbench.leaderboard.site import charts
from lthbench.leaderboard.site.grid import Column, Grid, GridCell, GridRow, missing
from lthbench.records.intervals import Interval
from lthbench.report.figures import Figure, Trace, density_axis, layout
from lthbench.report.formats import percent, plain
from lthbench.report.table import Table

__all__ = ["Saved", "load", "overlaps", "page", "pair", "path"]

SAME = "same subnetwork"


def load(folder: Path, entries: Iterable[Entry]) -> tuple[Saved, ...]:
    """Read and check the evidence saved in a leaderboard's folder.

    Raises:
        RecordError: If a file is invalid, or about something that is not an entry of the board.
    """
    known = {(entry.record.task.name, entry.id, entry.digest) for entry in entries}
    saved = load_saved(folder / "evidence")
    for found in saved:
        for side in (found.a, found.b):
            if (found.task, side.id, side.record) not in known:
                raise RecordError(
                    f"{folder / 'evidence' / found.file}: {side.id} is no entry of the board; "
                    "remove the file"
                )
    return saved


def path(found: Saved) -> str:
    """Return the path of a pair's page."""
    return f"evidence/{found.task}/{found.a.id}--{found.b.id}.html"


def overlaps(found: Sequence[Saved], task: str) -> dict[str, Any]:
    """Return the statements of a comparison page, keyed by pairs of ids separated by a space."""
    return {
        f"{one.a.id} {one.b.id}": {"text": _sentence(one), "href": f"../{path(one)}"}
        for one in found
        if one.task == task
    }


def _sentence(found: Saved) -> str:
    verdict = _of_pair(found)
    figures = "; ".join(
        f"{plain(f.name)} {estimate(f.estimate, 2, interval=True)}"
        for f in (verdict.figures if verdict else ())
    )
    result = verdict.result if verdict else "not measured"
    return f"{SAME}: {result}. Excess overlap {figures}." if figures else f"{SAME}: {result}."


def _of_pair(found: Saved) -> Verdict | None:
    return next((v for v in found.verdicts if v.rule == SAME and v.of == "pair"), None)


def page(found: Sequence[Saved]) -> dict[str, Any]:
    """Return the template values of the evidence page."""
    return {
        "rules": rules(),
        "rules_version": RULES_VERSION,
        "nulls": NULLS,
        "pairs": _pairs(found) if found else None,
    }


def _pairs(found: Sequence[Saved]) -> Grid:
    columns = (
        Column("task", "task", "t"),
        Column("a", "A", "t"),
        Column("b", "B", "t"),
        Column("verdict", "same subnetwork?", "t"),
        Column("others", "over other seeds", css="num"),
        Column("start", "over same start", css="num"),
        Column("seeds", "seeds", css="num"),
    )
    return Grid(
        "pairs",
        "Do two methods find the same subnetworks? Excess overlap of masks of one seed and density",
        columns,
        tuple(_pair_row(one) for one in found),
        heading=3,
    )


def _pair_row(found: Saved) -> GridRow:
    verdict, excess = _of_pair(found), found.ladder.excess
    entries = f"entries/{found.task}"
    cells = (
        GridCell(plain(found.task), f"tasks/{found.task}.html"),
        GridCell(found.a.id, f"{entries}/{found.a.id}.html"),
        GridCell(found.b.id, f"{entries}/{found.b.id}.html"),
        GridCell(verdict.result if verdict else "not measured", path(found)),
        _estimate(excess.other_seeds),
        _estimate(excess.same_start),
        GridCell(str(len(found.seeds)), key=len(found.seeds)),
    )
    return GridRow(cells)


def _estimate(found: Estimate | None) -> GridCell:
    if found is None:
        return missing()
    return GridCell(estimate(found, 2, interval=True), key=float(f"{found.mean:.6g}"))


def pair(found: Saved) -> dict[str, Any]:
    """Return the template values of a pair's page."""
    return {
        "task": found.task,
        "a": found.a,
        "b": found.b,
        "seeds": found.seeds,
        "verdicts": [_told(found, verdict) for verdict in found.verdicts],
        "figure": _figure(found),
        "rungs": _rungs(found.rungs),
        "layers": _layers(found.rungs[-1]) if found.rungs else None,
        "nulls": NULLS,
        "matching": plain(found.matching, 400),
        "not_measured": [(plain(m.what), plain(m.why, 400)) for m in found.not_measured],
    }


def _told(found: Saved, verdict: Verdict) -> dict[str, Any]:
    rule = next((rule for rule in rules() if rule.name == verdict.rule), None)
    of = {"pair": "both", "a": found.a.id, "b": found.b.id}[verdict.of]
    return {
        "rule": plain(verdict.rule),
        "question": rule.question if rule else "",
        "of": of,
        "result": verdict.result,
        "why": plain(verdict.why, 400),
        "figures": "; ".join(
            f"{plain(f.name)} {estimate(f.estimate, 3, interval=True)}" for f in verdict.figures
        ),
        "limits": ", ".join(f"{k} {v:g}" for k, v in rule.thresholds.items()) if rule else "",
    }


def _figure(found: Saved) -> Figure | None:
    if not found.rungs:
        return None
    named = ("over chance", "over other seeds", "over same start", "matched")
    traces: list[Trace] = []
    for place, (name, key) in enumerate(
        zip(named, ("chance", "other_seeds", "same_start", "matched"), strict=True)
    ):
        points = [
            (100 * rung.density, Interval(value.mean, value.low, value.high, len(value.values)))
            for rung in found.rungs
            if (value := getattr(rung.excess, key)) is not None
        ]
        traces += charts.series(name, place, points, 1, banded=True, digits=2)
    axis = density_axis([rung.density for rung in found.rungs])
    y = {"title": {"text": "excess overlap"}, "tickformat": "~g"}
    caption = (
        "Excess overlap of the two methods' masks over each null: 0 is the null, 1 nested masks. "
        "Shaded: 95 % intervals over seeds."
    )
    return Figure("overlap", caption, tuple(traces), layout(axis, y))


def _rungs(found: Sequence[Rung]) -> Table:
    return Table("Excess overlap, density by density", RUNG_HEAD, tuple(map(rung_cells, found)))


def _layers(rung: Rung) -> Table:
    caption = f"Layers at {percent(rung.density)} % density"
    return Table(caption, LAYER_HEAD, tuple(map(layer_cells, rung.layers)), DESCRIPTIVE)
