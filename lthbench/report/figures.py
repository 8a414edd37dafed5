"""The page's figures as plotly data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lthbench.protocol.constants import CONTROLS
from lthbench.records import intervals
from lthbench.records.schema import Record
from lthbench.records.scores import Estimate
from lthbench.report.formats import interval, is_area, measure, number, percent
from lthbench.report.terms import is_untrained, set_of

# Visible on both white and near-black, so that a figure needs no redrawing per theme.
COLOURS = {
    "ticket": "#2f7ed8",
    "untrained": "#d2553f",
    "untrained_random": "#7d8a2e",
    "shuffled": "#c27400",
    "reinit": "#b5489f",
    "reinit-signs": "#8468d6",
    "random": "#7d8a2e",
    "erk": "#16918a",
    "dense": "#808080",
}


SYMBOLS = {
    "ticket": "circle", "untrained": "star", "shuffled": "square", "reinit": "diamond",
    "reinit-signs": "diamond-open",
    "random": "triangle-up", "erk": "triangle-down", "untrained_random": "triangle-up",
}  # fmt: skip


DASHES = {
    "shuffled": "dash", "reinit": "dot", "reinit-signs": "longdashdot", "random": "longdash",
    "erk": "dashdot",
}  # fmt: skip


RAMP = ("#3b7dd8", "#8468d6", "#b84fa6", "#d2553f", "#c27400")  # from dense to sparse
TICKS = 7  # maximum densities labelled on an axis
Trace = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A chart: its plotly data, and a description in words."""

    name: str
    caption: str
    traces: tuple[Trace, ...]
    layout: Mapping[str, Any]
    small: bool = False  # placed beside the previous figure


def figures(record: Record) -> Iterable[Figure]:
    """Plot accuracy against density beside the controls, and the difference from dense."""
    if is_untrained(record):
        yield _as_it_stands(record)
    yield _by_density(record)
    if any(rung.difference for rung in record.scores.rungs):
        yield _from_dense(record)


def _by_density(record: Record) -> Figure:
    rungs, what = record.scores.rungs, measure(record)
    traces: list[Trace] = []
    for kind in (*reversed(CONTROLS), "ticket"):
        traces += _series(kind, [(rung.density, rung.of(kind)) for rung in rungs])
    y = f"{what}, % ({set_of(record)})"
    caption = f"{what.capitalize()} against density, ticket beside its controls and dense"
    drawn = layout(density_axis(record.task.ladder), {"title": {"text": y}, "tickformat": "~g"})
    traces = _levels(record) + traces
    return Figure("density", f"{caption}. {_bands(record)}", tuple(traces), drawn)


def _as_it_stands(record: Record) -> Figure:
    """Plot untrained tickets against density, beside a random mask and trained dense."""
    assert record.scores.untrained is not None
    rungs = record.scores.untrained.rungs
    ends = [10**end for end in density_axis(record.task.ladder)["range"]]
    dense = rungs[0].dense
    traces = [] if dense is None else [_flat("dense", ends, 100 * dense.mean, "dense, trained")]
    traces += _series("untrained_random", [(rung.density, rung.random) for rung in rungs])
    traces += _series("untrained", [(rung.density, rung.ticket) for rung in rungs])
    y = {"title": {"text": f"accuracy, % ({set_of(record)})"}, "tickformat": "~g"}
    few = len(record.seeds) < intervals.MIN_SEEDS
    caption = "Accuracy of untrained tickets against density, beside a random mask at theta_0. " + (
        "Points are single seeds." if few else "Shaded: 95 % intervals over seeds."
    )
    return Figure("untrained", caption, tuple(traces), layout(density_axis(record.task.ladder), y))


def _bands(record: Record) -> str:
    """Describe the shaded areas."""
    if len(record.seeds) < intervals.MIN_SEEDS:
        return "Lines join means, points are single seeds; too few seeds for intervals."
    return "Shaded: 95 % intervals over seeds."


def _from_dense(record: Record) -> Figure:
    points = [(rung.density, rung.difference) for rung in record.scores.rungs]
    axis = density_axis(record.task.ladder)
    ends = [10**end for end in axis["range"]]
    zero = _flat("dense", ends, 0.0, "dense")
    margin = []
    caption = "Ticket minus dense, paired by seed."
    if record.reference is not None:
        width = 100 * record.reference.margin
        margin = [_shade("margin", ends, -width, width, COLOURS["dense"])]
        caption += f" Grey: the margin of {number(width, 2)} points within which it matches."
    drawn = layout(
        axis,
        {"title": {"text": "ticket − dense, points"}, "tickformat": "~g"},
    )
    traces = (*margin, zero, *_series("ticket", points))
    return Figure("difference", caption, traces, drawn, small=True)


def _series(kind: str, scores: Sequence[tuple[float, Estimate | None]]) -> list[Trace]:
    """Draw a line through means, with a band where intervals exist, and seeds where not."""
    points = [(100 * density, found) for density, found in scores if found is not None]
    if not points:
        return []
    x = [density for density, _ in points]
    # Equal values of enough seeds have no interval: the band has zero width there.
    alike = [found.low is None and found.n >= intervals.MIN_SEEDS for _, found in points]
    bounded = [found.low is not None for _, found in points]
    whole = any(bounded) and all(a or b for a, b in zip(alike, bounded, strict=True))
    colour = COLOURS[kind]
    line: Trace = {
        "name": kind.replace("_", ", "),
        "x": x,
        "y": [100 * found.mean for _, found in points],
        "customdata": [interval(found, 2, 100) for _, found in points],
        "hovertemplate": "%{y:.2f} %{customdata}",
        "mode": "lines+markers" if len(points) > 1 else "markers",
        "line": {
            "color": colour,
            "width": 3 if kind == "ticket" else 1.5,
            "dash": DASHES.get(kind, "solid"),
        },
        "marker": {"symbol": SYMBOLS[kind], "size": 8 if kind == "ticket" else 7, "color": colour},
        "legendgroup": kind,
        "legendrank": [*COLOURS].index(kind),
    }
    if not whole:
        return [line, *_single(kind, points)]
    low = [100 * (found.mean if found.low is None else found.low) for _, found in points]
    high = [100 * (found.mean if found.high is None else found.high) for _, found in points]
    if len(points) == 1:
        above, below = high[0] - line["y"][0], line["y"][0] - low[0]
        bars = {"type": "data", "array": [above], "arrayminus": [below], "color": colour}
        return [{**line, "error_y": {**bars, "thickness": 1.5}}]
    return [band(x, low, high, colour, 0.22 if kind == "ticket" else 0.13, kind), line]


def _single(kind: str, points: Sequence[tuple[float, Estimate]]) -> list[Trace]:
    """Draw each seed of a mean without an interval as its own point."""
    pairs = [(x, 100 * value) for x, found in points for value in found.values]
    return [
        {
            "x": [x for x, _ in pairs],
            "y": [y for _, y in pairs],
            "mode": "markers",
            "marker": {"symbol": f"{SYMBOLS[kind]}-open", "size": 6, "color": COLOURS[kind]},
            "hoverinfo": "skip",
            "showlegend": False,
            "legendgroup": kind,
        }
    ]


def band(
    x: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    colour: str,
    opacity: float,
    group: str,
) -> Trace:
    """Draw a shaded area, hidden and shown with the other traces of its group."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return {
        "x": [*x, *reversed(x)],
        "y": [*high, *reversed(low)],
        "mode": "lines",
        "fill": "toself",
        "fillcolor": f"rgba({red},{green},{blue},{opacity})",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": group,
    }


def _levels(record: Record) -> list[Trace]:
    """Draw this record's dense with its interval, and the frozen reference, across densities."""
    axis = density_axis(record.task.ladder)
    ends = [10**end for end in axis["range"]]
    dense, traces = record.scores.dense, []
    if dense is not None:
        if dense.low is not None and dense.high is not None:
            traces.append(_shade("dense", ends, 100 * dense.low, 100 * dense.high))
        traces.append(_flat("dense", ends, 100 * dense.mean, "dense"))
    if record.reference is not None:
        mean = sum(record.reference.dense) / len(record.reference.dense)
        name = f"reference, {len(record.reference.dense)} seeds"
        traces.append(_flat("reference", ends, 100 * mean, name, dash="dot"))
    return traces


def _flat(group: str, ends: Sequence[float], y: float, name: str, dash: str = "solid") -> Trace:
    return {
        "name": name,
        "x": list(ends),
        "y": [y, y],
        "mode": "lines",
        "line": {"color": COLOURS["dense"], "width": 2, "dash": dash},
        "hovertemplate": "%{y:.2f}",
        "legendgroup": group,
        "legendrank": len(COLOURS),
    }


def _shade(
    group: str, ends: Sequence[float], low: float, high: float, colour: str = COLOURS["dense"]
) -> Trace:
    return band(ends, [low] * len(ends), [high] * len(ends), colour, 0.2, group)


def density_axis(densities: Sequence[float]) -> dict[str, Any]:
    """Return a log axis of densities in percent, the sparsest at the right, labelled by rung."""
    from math import log10

    ladder = [100 * density for density in densities]
    every = -(-len(ladder) // TICKS)
    named = ladder[::-1][::every][::-1]
    room = 0.04 * max(0.5, log10(ladder[0] / ladder[-1]))
    return {
        "type": "log",
        "range": [log10(ladder[0]) + room, log10(ladder[-1]) - room],
        "tickvals": named,
        "ticktext": [percent(density / 100) for density in named],
        "title": {"text": "density, % of weights kept"},
        "unifiedhovertitle": {"text": "%{x:.3~g} % density"},
    }


def layout(x: Mapping[str, Any], y: Mapping[str, Any]) -> dict[str, Any]:
    """Return the layout shared by all charts, of reports and of the site, with these axes."""
    return {
        "xaxis": {"zeroline": False, "ticks": "outside", "tickangle": 0, **x},
        "yaxis": {"zeroline": False, "automargin": True, **y},
        "hovermode": "x unified",
        "legend": {"orientation": "h", "yanchor": "bottom", "y": 1.02, "x": 0},
        "margin": {"l": 56, "r": 24, "t": 12, "b": 48},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"size": 13},
    }


def training(record: Record) -> Figure:
    """Plot accuracy over steps, dense and every rung's ticket; two sets for grokking runs."""
    area = is_area(record)
    parts = ("train", record.shown) if area else (record.shown,)
    traces: list[Trace] = []
    for part in parts:
        for name, colour, curve in _runs(record, part):
            dashed = part == "train"
            traces.append(_curve(name, colour, curve, dashed=dashed, faint=name == "dense"))
    caption = f"Accuracy on the {set_of(record)} over training steps, mean over seeds."
    x: dict[str, Any] = {
        "title": {"text": "step"},
        "tickformat": ",d",
        "unifiedhovertitle": {"text": "step %{x:,d}"},
    }
    y: dict[str, Any] = {"title": {"text": "accuracy, %"}, "tickformat": "~g"}
    if area:
        caption = (
            f"Accuracy over training steps, mean over seeds: solid on the {set_of(record)}, dotted "
            "on the training examples."
        )
        x |= {"type": "log", "nticks": 5}
    else:
        y["range"] = _focus(traces)
        caption += " The first steps lie below the axis; they are in the table."
    return Figure("training", caption, tuple(traces), layout(x, y))


def _runs(record: Record, part: str) -> list[tuple[str, str, dict[int, float]]]:
    """Return name, colour and mean curve of dense and of each rung's ticket, if any."""
    ladder = record.task.ladder
    found = [("dense", COLOURS["dense"], _mean_curve(record, "dense", 1.0, part))]
    for place, density in enumerate(ladder):
        colour = _ramp(place / max(1, len(ladder) - 1))
        name = f"{percent(density)} %"
        found.append((name, colour, _mean_curve(record, "ticket", density, part)))
    return [run for run in found if run[2]]


def _mean_curve(record: Record, kind: str, density: float, part: str) -> dict[int, float]:
    """Return percent correct by step, over the seeds whose run succeeded and reached it."""
    every = record.task.every
    values: dict[int, list[float]] = {}
    for cell in record.cells:
        if (cell.kind, cell.density, cell.schedule, cell.status) != (kind, density, 1, "ok"):
            continue
        first = cell.start // every + 1
        size = record.sizes[str(cell.seed)][part] if part in cell.correct else 0
        for place, count in enumerate(cell.correct.get(part, ())):
            values.setdefault((first + place) * every, []).append(100 * count / size)
    most = max((len(row) for row in values.values()), default=0)
    return {step: sum(row) / len(row) for step, row in values.items() if len(row) == most}


def _ramp(place: float) -> str:
    """Return a colour between dense and sparse, 0 to 1."""
    position = place * (len(RAMP) - 1)
    index = min(int(position), len(RAMP) - 2)
    pairs = (
        (int(RAMP[index][i : i + 2], 16), int(RAMP[index + 1][i : i + 2], 16)) for i in (1, 3, 5)
    )
    mixed = [round(a + (b - a) * (position - index)) for a, b in pairs]
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def _curve(
    name: str, colour: str, curve: Mapping[int, float], *, dashed: bool, faint: bool
) -> Trace:
    return {
        "name": name,
        "x": list(curve),
        "y": list(curve.values()),
        "mode": "lines",
        "line": {
            "color": colour,
            "width": 3 if faint else 1.8,
            "dash": "dot" if dashed else "solid",
        },
        "hovertemplate": "%{y:.2f}",
        "legendgroup": name,
        "showlegend": not dashed,
    }


def _focus(traces: Sequence[Trace]) -> list[float] | None:
    """Return a range of y that shows where curves end: all values after the first quarter."""
    late = [y for trace in traces for y in trace["y"][len(trace["y"]) // 4 :]]
    if not late:
        return None
    room = 0.08 * (max(late) - min(late)) or 1.0
    return [min(late) - room, min(100.5, max(late) + room)]
