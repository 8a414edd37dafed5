"""Figures comparing entries: accuracy, cost, steps. Figures of a single entry are in `report`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lthbench.leaderboard.board.entries import Entry
from lthbench.leaderboard.site import best_per_density
from lthbench.leaderboard.site.labels import DIVISIONS
from lthbench.records.intervals import Interval
from lthbench.records.metrics import IterationsToMatch
from lthbench.records.reference import Reference
from lthbench.records.scores import Moment
from lthbench.report.figures import Figure, Trace, band, density_axis, layout
from lthbench.report.formats import interval, is_area, measure, plain

# Visible on both white and near-black, so that a figure needs no redrawing per theme.
COLOURS = (
    "#2f7ed8", "#d2553f", "#16918a", "#b5489f", "#c27400", "#7d8a2e", "#8468d6", "#4f8f4f",
)  # fmt: skip
SYMBOLS = (
    *("circle", "square", "diamond", "triangle-up"),
    *("triangle-down", "star", "hexagon", "cross"),
)
GREY = "#808080"
SHOWN = 6  # entries drawn initially; the legend adds the others
ROOM = 0.06  # margin of a cost axis beyond its ends, so that 0 stays clear of the other axis
EDGE = 0.15  # share of that axis: labels of points this close to an end go on the inner side
OFFERED = 20  # maximum entries of a figure; the tables hold all of them
DIVISION_COLOURS = {
    "init": COLOURS[0], "rewind": COLOURS[2], "open": COLOURS[1], "reference": GREY,
}  # fmt: skip
Axis = dict[str, Any]


def accuracy(
    entries: Sequence[Entry], names: Mapping[str, str], reference: Reference | None
) -> Figure:
    """Plot scores against density, the first entries shown, dense with the noise floor beneath."""
    axis = density_axis(entries[0].record.task.ladder)
    what = measure(entries[0].record)
    traces = [] if reference is None else dense_and_noise(entries[0], reference, axis)
    traces += _tickets(entries, names)
    y = f"{what}, % (test split)"
    caption = f"{what.capitalize()} on the test split against density. {_drawn(len(entries))}"
    caption += " Shaded: 95 % intervals over seeds."
    floor = reference is not None and reference.noise is not None
    caption += (
        " Grey: dense, and the noise floor around it."
        if floor
        else " Grey: dense; the noise floor is not measured yet."
    )
    drawn = layout(axis, {"title": {"text": y}, "tickformat": "~g"})
    return Figure("accuracy", caption, tuple(traces), drawn)


def untrained(entries: Sequence[Entry], names: Mapping[str, str]) -> Figure:
    """Plot the accuracy of tickets that are scored without training."""
    ladders = [rung.density for rung in best_per_density.rungs_of(entries[0].record)]
    traces = _tickets(entries, names)
    caption = f"Accuracy of untrained tickets against density. {_drawn(len(entries))}"
    y = {"title": {"text": "accuracy, % (test split)"}, "tickformat": "~g"}
    return Figure("untrained", caption, tuple(traces), layout(density_axis(ladders), y))


def _tickets(entries: Sequence[Entry], names: Mapping[str, str]) -> list[Trace]:
    """Draw each entry's scores over the ladder on which it is judged."""
    traces: list[Trace] = []
    for place, entry in enumerate(entries[:OFFERED]):
        rungs = best_per_density.rungs_of(entry.record)
        points = [(100 * r.density, r.ticket) for r in rungs if r.ticket is not None]
        traces += series(names[entry.id], place, points, 100, banded=True)
    return traces


def pareto(entries: Sequence[Entry], names: Mapping[str, str], front: Sequence[str]) -> Figure:
    """Plot scores against search cost; a line joins the Pareto front."""
    by = best_per_density.scored_by(entries)
    scored = ((e.id, best_per_density.score_of(e, by)) for e in entries)
    found = {name: told for name, told in scored if told}
    known = [e for e in entries if e.id in found and e.record.scores.cost]
    traces: list[Trace] = []
    most = max(map(_cost, known), default=0.0) or 1.0
    on = sorted((e for e in known if e.id in front), key=_cost)
    if len(on) > 1:
        traces.append(
            {
                "name": "front",
                "x": [_cost(e) for e in on],
                "y": [found[e.id].mean for e in on],
                "mode": "lines",
                "line": {"color": GREY, "width": 1.5, "dash": "dot", "shape": "hv"},
                "hoverinfo": "skip",
                "showlegend": False,
            }
        )
    for division, word in DIVISIONS.items():
        group = [e for e in known if e.record.scores.division == division]
        if group:
            traces.append(_costs(group, found, names, division, word, front, most))
    what = "retention" if by == "retention" else "points above erk"
    caption = (
        f"{what.capitalize()} against search cost, with 95 % intervals. Named and joined: entries "
        "that none is at once better and cheaper than."
    )
    drawn = layout(
        {
            "title": {"text": "search cost, dense trainings"},
            "range": [-ROOM * most, (1 + ROOM) * most],
        },
        {"title": {"text": what}, "tickformat": "~g"},
    )
    drawn["hovermode"] = "closest"
    return Figure("pareto", caption, tuple(traces), drawn, small=True)


def generalising(entries: Sequence[Entry], names: Mapping[str, str]) -> Figure:
    """Plot the step at which runs generalise against density; dense as a line."""
    traces: list[Trace] = []
    dense = (entries[0].record.scores.speed.grokking or {}).get("1")
    if dense:
        axis = density_axis(entries[0].record.task.ladder)
        traces.append(flat(axis, dense.generalised.mean, "dense"))
    for place, entry in enumerate(entries[:OFFERED]):
        rows = (entry.record.scores.speed.grokking or {}).items()
        steps = {d: row and row.generalised for d, row in rows if d != "1"}
        reached = {d: found for d, found in steps.items() if found and found.reached}
        traces += _steps(names[entry.id], place, reached)
    caption = (
        f"Step at which runs generalise, restricted mean over seeds. {_drawn(len(entries))} "
        "Rungs where no seed generalised are left out."
    )
    return _steps_figure(entries, caption, traces)


def to_match(entries: Sequence[Entry], names: Mapping[str, str]) -> Figure:
    """Plot the step at which tickets reach dense's level minus the margin, against density."""
    traces: list[Trace] = []
    for place, entry in enumerate(entries[:OFFERED]):
        rows = (entry.record.scores.speed.steps or {}).items()
        traces += _steps(names[entry.id], place, {d: row for d, row in rows if row})
    caption = f"Steps until dense's level, less the margin, is held. {_drawn(len(entries))}"
    return _steps_figure(entries, caption, traces)


def _steps(name: str, place: int, found: Mapping[str, Moment | IterationsToMatch]) -> list[Trace]:
    """Draw mean steps over density."""
    points = [
        (100 * float(d), Interval(row.mean, None, None, row.n))
        for d, row in sorted(found.items(), key=lambda item: -float(item[0]))
    ]
    return series(name, place, points, 1, banded=False)


def _steps_figure(entries: Sequence[Entry], caption: str, traces: Sequence[Trace]) -> Figure:
    y = {"title": {"text": "step"}, "tickformat": ",d", "rangemode": "tozero"}
    axis = density_axis(entries[0].record.task.ladder)
    return Figure("steps", caption, tuple(traces), layout(axis, y))


def series(
    name: str,
    place: int,
    points: Sequence[tuple[float, Interval]],
    scale: float,
    *,
    banded: bool,
    digits: int = 0,
) -> list[Trace]:
    """Draw a line through means, with a band where every mean has an interval.

    Args:
        name: Name of the series.
        place: Position of the series, which decides its colour.
        points: Density and estimate of each point.
        scale: Factor applied to the values.
        banded: Whether to draw the band.
        digits: Decimals in the hover text; percentages have two.
    """
    digits = 2 if scale == 100 else digits
    if not points:
        return []
    colour, symbol = COLOURS[place % len(COLOURS)], SYMBOLS[place % len(SYMBOLS)]
    visible = True if place < SHOWN else "legendonly"
    group = f"entry{place}"
    x = [density for density, _ in points]
    line: Trace = {
        "name": name,
        "x": x,
        "y": [scale * found.mean for _, found in points],
        "customdata": [interval(found, digits, scale) for _, found in points],
        "hovertemplate": f"%{{y:,.{digits}f}} %{{customdata}}",
        "mode": "lines+markers",
        "line": {"color": colour, "width": 2},
        "marker": {"symbol": symbol, "size": 7, "color": colour},
        "legendgroup": group,
        "visible": visible,
    }
    low = [scale * found.low for _, found in points if found.low is not None]
    high = [scale * found.high for _, found in points if found.high is not None]
    if not banded or len(low) < len(points):
        return [line]
    return [{**band(x, low, high, colour, 0.14, group), "visible": visible}, line]


def dense_and_noise(entry: Entry, reference: Reference, axis: Axis) -> list[Trace]:
    """Draw the reference's dense networks as a line, with each rung's noise floor as a band."""
    dense = reference.values["test"].dense
    mean = 100 * sum(dense) / len(dense)
    traces = [flat(axis, mean, f"dense, {len(dense)} seeds")]
    half = floors(reference, is_area(entry.record))
    ladder = entry.record.task.ladder
    if len(half) == len(ladder):
        x = [100 * density for density in ladder]
        low, high = [mean - h for h in half], [mean + h for h in half]
        traces.insert(0, band(x, low, high, GREY, 0.35, "noise"))
    return traces


def floors(reference: Reference, area: bool) -> list[float]:
    """Return the noise floor of each rung in points; empty if it was not measured."""
    sizes = [sets["test"] for sets in reference.sizes.values() if "test" in sets]
    if not reference.noise or not sizes:
        return []
    whole = 100 if area else min(sizes)  # an accuracy's floor is in examples
    return [100 * floor / whole for floor in reference.noise["test"].score]


def flat(axis: Axis, y: float, name: str) -> Trace:
    """Draw a level across all densities."""
    return {
        "name": name,
        "x": [10**end for end in axis["range"]],
        "y": [y, y],
        "mode": "lines",
        "line": {"color": GREY, "width": 2},
        "hovertemplate": "%{y:,.2f}",
    }


def _costs(
    group: Sequence[Entry],
    scored: Mapping[str, Interval],
    names: Mapping[str, str],
    division: str,
    word: str,
    front: Sequence[str],
    most: float,
) -> Trace:
    found = [scored[entry.id] for entry in group]
    above = [0.0 if f.high is None else abs(f.high - f.mean) for f in found]
    below = [0.0 if f.low is None else abs(f.low - f.mean) for f in found]
    colour = DIVISION_COLOURS[division]
    return {
        "name": word,
        "x": [_cost(entry) for entry in group],
        "y": [f.mean for f in found],
        "error_y": {
            "type": "data", "array": above, "arrayminus": below, "color": colour,
            "thickness": 1.2, "width": 3,
        },
        "text": [names[entry.id] if entry.id in front else "" for entry in group],
        "customdata": [names[entry.id] for entry in group],
        "textposition": [_beside(_cost(entry) / most) for entry in group],
        "mode": "markers+text",
        "marker": {
            "symbol": SYMBOLS[list(DIVISIONS).index(division)], "size": 9, "color": colour,
        },
        "hovertemplate": "%{customdata}: %{y:.3f} at %{x:.3~g}<extra></extra>",
        "cliponaxis": False,
    }  # fmt: skip


def _beside(place: float) -> str:
    """Return a label's text position from its point's place on the axis, never over an edge."""
    return "top right" if place < EDGE else "top left" if place > 1 - EDGE else "top center"


def _cost(entry: Entry) -> float:
    return entry.record.scores.mean_cost or 0.0


def _drawn(count: int) -> str:
    if count <= SHOWN:
        return ""
    of = f"of the first {OFFERED} " if count > OFFERED else ""
    return f"Drawn: the {SHOWN} best; a click on a name {of}brings it in."


def shown_name(entry: Entry, alike: bool) -> str:
    """Return an entry's label, with its digest where two entries share a name.

    plotly interprets some markup in names; the record's schema keeps it out of a method's name.
    """
    name = plain(entry.record.method.name)
    return f"{name} ({entry.digest[:8]})" if alike else name
