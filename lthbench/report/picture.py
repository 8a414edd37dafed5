"""README's picture: scores against density of several methods' records, as a plain SVG.

`python -m lthbench.report.picture RECORD… --out docs/NAME.svg`; ERK and dense come from the first
record.
No library is asked for: plotly needs a browser to write a picture.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import cycle
from pathlib import Path

from lthbench.io.paths import write_whole
from lthbench.records.schema import Record, read_record
from lthbench.report.formats import measure

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 64, 130, 44, 52  # margins; the right one holds the names
COLOURS = ("#2f7ed8", "#c27400", "#b5489f", "#2a9d6f", "#7d8a2e")
TICKS = 5


@dataclass(frozen=True)
class Curve:
    """One method's mean score and 95 % interval by density.

    Attributes:
        points: (density, mean, low, high), densities falling; fractions.
    """

    name: str
    points: tuple[tuple[float, float, float, float], ...]


def read_curve(record: Record, kind: str, name: str) -> Curve:
    """Read the curve of a kind of cell, "ticket" or a control, from a record's scores."""
    points = []
    for rung in record.scores.rungs:
        if (found := rung.of(kind)) is not None:
            low, high, mean = found.low, found.high, found.mean
            ends = (mean, mean) if low is None or high is None else (low, high)
            points.append((rung.density, mean, *ends))
    return Curve(name, tuple(points))


def draw(title: str, curves: Sequence[Curve], dense: float) -> str:
    """Draw an SVG of curves over log density, densest on the left, and dense as a dashed line."""
    densities = sorted({p[0] for curve in curves for p in curve.points}, reverse=True)
    values = [v for curve in curves for p in curve.points for v in p[1:]] + [dense]
    step = _step(100 * (max(values) - min(values)) / TICKS)
    bottom = math.floor(100 * min(values) / step) * step
    top = math.ceil(100 * max(values) / step) * step
    first, last = math.log(densities[0]), math.log(densities[-1])

    def x(density: float) -> float:
        share = (math.log(density) - first) / ((last - first) or 1.0)
        return LEFT + 12 + share * (WIDTH - LEFT - RIGHT - 24)

    def y(score: float) -> float:
        share = (100 * score - bottom) / (top - bottom)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)

    right, floor = WIDTH - RIGHT, HEIGHT - BOTTOM
    parts = [_text(LEFT, 24, title, weight="600", size=15)]
    for n in range(round((top - bottom) / step) + 1):
        value = bottom + n * step
        parts.append(_line(LEFT, y(value / 100), right, y(value / 100), "#d8dde3"))
        parts.append(_text(LEFT - 8, y(value / 100) + 4, f"{value:g} %", anchor="end"))
    for density in densities:
        parts.append(_line(x(density), floor, x(density), floor + 5, "#5b6570"))
        parts.append(_text(x(density), floor + 20, f"{100 * density:.3g} %", anchor="middle"))
    parts.append(_text((LEFT + right) / 2, HEIGHT - 12, "weights kept", anchor="middle"))
    parts.append(_line(LEFT, y(dense), right, y(dense), "#5b6570", dash="6 4"))
    names = [(y(dense), "dense", "#5b6570")]
    for curve, colour in zip(curves, cycle(COLOURS), strict=False):
        lower = [(x(d), y(low)) for d, _, low, _ in curve.points]
        upper = [(x(d), y(high)) for d, _, _, high in curve.points]
        band = _path([*upper, *reversed(lower)])
        middle = [(x(d), y(mean)) for d, mean, _, _ in curve.points]
        parts.append(f'<path d="{band} Z" fill="{colour}" opacity=".18"/>')
        parts.append(
            f'<path d="{_path(middle)}" fill="none" stroke="{colour}" stroke-width="2.5"/>'
        )
        parts += [f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>' for a, b in middle]
        names.append((middle[-1][1], curve.name, colour))
    place = 0.0
    for height, name, colour in sorted(names):
        place = max(height + 4, place + 17)  # prevents overlapping names
        parts.append(_text(right + 10, place, name, fill=colour, weight="600"))
    said = "; ".join(
        f"{c.name} {100 * c.points[-1][1]:.1f} % at {100 * c.points[-1][0]:.3g} % of the weights"
        for c in curves
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'font-family="system-ui, sans-serif">\n<title>{escape(title)}</title>\n'
        f"<desc>Dense {100 * dense:.1f} %; {escape(said)}.</desc>\n"
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#ffffff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _step(least: float) -> float:
    """Return the smallest of 1, 2, 5 times a power of ten that is at least `least`."""
    power = 10 ** math.floor(math.log10(max(least, 1e-3)))
    return next(float(n * power) for n in (1, 2, 5, 10) if n * power >= least)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + " L".join(f"{a:.1f},{b:.1f}" for a, b in points)


def _line(x1: float, y1: float, x2: float, y2: float, stroke: str, dash: str = "") -> str:
    dashes = f' stroke-dasharray="{dash}"' if dash else ""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{stroke}"{dashes}/>'


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    fill: str = "#333b44",
    weight: str = "400",
    size: int = 13,
) -> str:
    style = f'text-anchor="{anchor}" fill="{fill}" font-weight="{weight}" font-size="{size}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'


def main() -> None:
    """Draw the picture of records of one task."""
    parser = argparse.ArgumentParser(prog="python -m lthbench.report.picture", description=__doc__)
    parser.add_argument("records", type=Path, nargs="+", help="record.json of each method")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    records = [read_record(path) for path in options.records]
    first = records[0]
    if any(record.task.digest != first.task.digest for record in records):
        parser.error("records of more than one task")
    curves = [read_curve(record, "ticket", record.method.name.upper()) for record in records]
    curves.append(read_curve(first, "erk", "ERK (random)"))
    if first.scores.dense is None:
        parser.error("the first record has no dense runs")
    seeds = len(first.seeds)
    where = "test" if first.shown == "test" else "held-out"
    title = (
        f"{first.task.name}: {where} {measure(first)}, mean and 95 % interval over {seeds} seeds"
    )
    write_whole(options.out, draw(title, curves, first.scores.dense.mean).encode())
    print(options.out)


if __name__ == "__main__":
    main()
