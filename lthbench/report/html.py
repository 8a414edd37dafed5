"""`report.html`: the records of one evaluation as a page that works from the file system.

The page holds its tables as HTML and its figures' data as JSON; a script beside it draws them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lthbench.errors import RecordError
from lthbench.io.paths import canonical_json, write_whole
from lthbench.records import intervals, runs
from lthbench.records.schema import Cell, Record, record_digest
from lthbench.report import summary
from lthbench.report.answers import Answer, answers
from lthbench.report.figures import Figure, figures, training
from lthbench.report.formats import NA, decimals, interval, is_area, number, percent, plain
from lthbench.report.remarks import Remark, remarks
from lthbench.report.table import Table
from lthbench.report.tables import tables
from lthbench.report.terms import set_of

if TYPE_CHECKING:
    from markupsafe import Markup

TEMPLATES = Path(__file__).parent / "templates"
ASSETS = "assets"


@dataclass(frozen=True)
class Section:
    """The template's content for one task."""

    name: str
    task: str
    version: int
    link: str | None
    answers: tuple[Answer, ...]
    warnings: tuple[Remark, ...]
    remarks: tuple[Remark, ...]
    figures: tuple[Figure, ...]
    tables: tuple[Table, ...]
    curves: tuple[Figure, Table]
    details: tuple[Table, ...]


def as_json(record: Record) -> str:
    """Return the record as one line of canonical JSON."""
    return canonical_json(record.model_dump(mode="json")).decode()


def write_report(folder: Path, records: Sequence[Record]) -> Path:
    """Write `report.html`, and beside it the scripts that draw its figures; return its path."""
    if not records:
        raise RecordError(f"{folder}: no record to report on; run `lthbench evaluate` first")
    for name, data in scripts().items():
        path = folder / ASSETS / name
        if not path.is_file() or path.read_bytes() != data:
            write_whole(path, data)
    page = folder / "report.html"
    write_whole(page, html(folder, records).encode())
    return page


def scripts() -> dict[str, bytes]:
    """Return what draws a page's figures, by file name."""
    from plotly.offline import get_plotlyjs

    script = (TEMPLATES / "figures.js").read_bytes()
    return {"plotly.min.js": get_plotlyjs().encode(), "figures.js": script}


def html(folder: Path, records: Sequence[Record]) -> str:
    """Render the page, with links to records that are under the folder."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["embedded"] = embedded
    names = list(dict.fromkeys(plain(record.method.name) for record in records))
    return environment.get_template("report.html.j2").render(
        method=", ".join(names),
        described=described(records[0]),
        sections=[_section(folder, index, record) for index, record in enumerate(records)],
        said=[summary.sentence(record) for record in records],
        mean=_mean_retention(records),
        retention=any(record.scores.retention for record in records),
        area=any(is_area(record) for record in records),
        assets=ASSETS,
        na=NA,
        alpha=intervals.ALPHA,
    )


def embedded(value: object) -> Markup:
    """Return JSON that is safe in a script element: no tag, comment or line separator."""
    from markupsafe import Markup

    text = canonical_json(value).decode()
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def described(record: Record) -> list[tuple[str, str]]:
    """Return the method's nonempty self-description, except its name, and its options."""
    said = record.method.described.items()
    facts = [(_unchecked(name), plain(text)) for name, text in said if text and name != "name"]
    options = ", ".join(f"{plain(k)} = {plain(str(v))}" for k, v in record.method.options.items())
    return [*facts, *([("options", options)] if options else [])]


def _unchecked(name: str) -> str:
    """Label a fact; the author of a method is only its source's claim."""
    return "authors (unchecked)" if name == "authors" else plain(name)


def _mean_retention(records: Sequence[Record]) -> tuple[str, str, str] | None:
    """Return the plain mean over the tasks with a retention, its interval, and their names."""
    told = {
        record.task.name: record.scores.retention.values
        for record in records
        if record.scores.retention
    }
    if len(told) < 2:
        return None
    mean = intervals.suite_interval(list(told.values()))
    names = "these" if len(told) == len(records) else ", ".join(map(plain, told))
    return number(mean.mean, 2), interval(mean, 2), names


def _section(folder: Path, index: int, record: Record) -> Section:
    said, curves = remarks(record), training(record)
    caption = f"Accuracy over training steps, %, {set_of(record)}"
    return Section(
        name=f"task{index}",
        task=plain(record.task.name),
        version=record.task.version,
        link=_link(folder, record),
        answers=answers(record),
        warnings=tuple(r for r in said if r.warns and r.name != "Failed"),
        remarks=said,
        figures=tuple(figures(record)),
        tables=tables(record),
        curves=(curves, tabulate(curves, decimals(record), caption)),
        details=(_layers(record), _cells(record), _provenance(record)),
    )


def _link(folder: Path, record: Record) -> str | None:
    """Return the record's path relative to the page, if it is simple enough to need no quoting."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", record.task.name):
        return None
    relative = f"{record.task.name}/record.json"
    return relative if (folder / relative).is_file() else None


def tabulate(figure: Figure, digits: int, caption: str) -> Table:
    """Build the table of a figure of lines over steps: a row per step, a column per line."""
    lines = [
        (f"{t['name']}, training" if t["line"].get("dash") == "dot" else t["name"], t)
        for t in figure.traces
    ]
    at = [(name, dict(zip(t["x"], t["y"], strict=True))) for name, t in lines]
    steps = sorted({step for _, values in at for step in values})
    rows = tuple(
        (f"{step:,}", *(number(v[step], digits) if step in v else NA for _, v in at))
        for step in steps
    )
    return Table(caption, ("step", *(name for name, _ in at)), rows)


def _layers(record: Record) -> Table:
    """Build the table of kept weights of each tensor, mean over seeds."""
    tickets = [cell for cell in record.cells if cell.kind == "ticket" and cell.layers]
    names = list(dict.fromkeys(name for cell in tickets for name in cell.layers))
    rows = []
    for density in record.task.ladder:
        cells = [cell for cell in tickets if cell.density == density]
        means = (
            number(sum(cell.layers.get(name, 0) for cell in cells) / len(cells), 0)
            for name in names
            if cells
        )
        rows.append((percent(density), *(means if cells else [NA] * len(names))))
    head = ("density, %", *(plain(name) for name in names))
    return Table("Kept weights of each tensor, mean over seeds", head, tuple(rows))


def _cells(record: Record) -> Table:
    """Build the table of every training of the record."""
    head = (
        *("seed", "network", "density, %", "schedule", "kept weights", "effective", "origin"),
        *("start", "score, %", "status"),
    )
    rows = tuple(_cell_row(record, cell) for cell in record.cells)
    note = "A ticket that is missing or failed scores chance; a control that failed is left out."
    return Table("Every training", head, rows, note)


def _cell_row(record: Record, cell: Cell) -> tuple[str, ...]:
    value = runs.score_of(record, cell)
    schedule = "T" if cell.schedule == 1 else f"T/{cell.schedule}"
    return (
        str(cell.seed),
        cell.kind,
        percent(cell.density),
        schedule,
        f"{cell.kept:,}",
        NA if cell.effective is None else f"{cell.effective:,}",
        cell.origin,
        str(cell.start),
        number(100 * value, decimals(record)),
        cell.status + (f": {plain(cell.reason)}" if cell.reason else ""),
    )


def _provenance(record: Record) -> Table:
    """Build the table of what was run, and where: enough to tell whether two records match."""
    facts = {
        "method": f"{record.method.name}, source {record.method.digest}",
        "task": f"{record.task.name} version {record.task.version}, protocol {record.task.digest}",
        "record": record_digest(record),
        "scorer": f"version {record.scorer}",
        "reference": record.reference.digest if record.reference else NA,
        **summary.environments(record),
        **{name: _seconds(value) for name, value in record.times.items()},
    }
    rows = tuple((plain(name), plain(text)) for name, text in facts.items())
    return Table("Provenance", ("what", "value"), rows)


def _seconds(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:,.1f}"
