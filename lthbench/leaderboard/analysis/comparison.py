"""The result of a comparison, and how it is printed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from lthbench.io.paths import canonical_json
from lthbench.records.intervals import Interval
from lthbench.records.metrics import Matching
from lthbench.report import formats, terminal, terms
from lthbench.report.formats import NA, number, percent, plain
from lthbench.report.table import Table, grid
from lthbench.report.terminal import WIDTH

NAME = 24  # characters of a name in a column
TOO_FEW = "too few seeds for a test"


@dataclass(frozen=True)
class Rung:
    """One density: the paired difference of scores (fractions) and the masks' excess overlap."""

    density: float
    a: float
    b: float
    difference: Interval
    values: tuple[float, ...]
    overlap: Interval | None


@dataclass(frozen=True)
class OnTask:
    """Two records of one task.

    Attributes:
        seeds: Seeds that both records hold.
        measure: What a rung's score is called: "accuracy" or "area".
        what: What the headline is: "retention", "above erk" (points), or "accuracy" for untrained
            tickets; "" where the two have no kind in common.
        headline: Of a, of b, and their paired difference; None where either has none.
        counts: Whether the headline is a retention, so that it counts for the suite.
        p: Two-sided, by sign flips; None below eight seeds.
        matching: Of a and of b.
        cost: Of a and of b.
        division: Of a and of b.
        overlap: "" where the rungs report it, otherwise why they do not.
        warnings: What limits the comparability of the two.
    """

    task: str
    seeds: tuple[int, ...]
    shown: str
    measure: str
    rungs: tuple[Rung, ...]
    what: str
    headline: tuple[Interval, Interval, Interval] | None
    values: tuple[float, ...]
    counts: bool
    p: float | None
    matching: tuple[Matching, Matching]
    cost: tuple[float | None, float | None]
    division: tuple[str | None, str | None]
    overlap: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Comparison:
    """What two methods have in common, compared.

    Attributes:
        difference: Of the mean retention over the shared rankable tasks; None with only one task.
        p: Of "no difference", two-sided, by sign flips of all (task, seed) pairs.
        alone: Tasks that only one of the two has.
    """

    a: str
    b: str
    tasks: tuple[OnTask, ...]
    difference: Interval | None
    p: float | None
    alone: Mapping[str, str]

    def text(self) -> str:
        """Return the printed text."""
        return _text(self)

    def json(self) -> str:
        """Return every figure as one line of JSON."""
        return canonical_json(asdict(self)).decode().rstrip("\n")


def _text(found: Comparison) -> str:
    a, b = plain(found.a, 60), plain(found.b, 60)
    blocks = [f"{a} (A) against {b} (B): A - B, paired by seed"]
    if found.difference is not None:
        names = ", ".join(plain(task.task) for task in found.tasks if task.counts)
        what = f"{_signed(found.difference, 2, 1)}, {_p_text(found.p)}"
        blocks.append(terminal.wrapped(f"Mean retention over {names}: {what}", WIDTH))
    blocks += [_grid(_headlines(found)), _grid(_rest(found))]
    blocks += [_task_text(task) for task in found.tasks]
    for who in dict.fromkeys(found.alone.values()):
        names = ", ".join(plain(name) for name, one in found.alone.items() if one == who)
        blocks.append(terminal.wrapped(f"Only {plain(who, 60)} has {names}.", WIDTH))
    blocks.append(terminal.wrapped(READING, WIDTH))
    return "\n\n".join(blocks).translate(terminal.TERMINAL)


READING = (
    "± and brackets: 95 % t intervals over seeds. p is two-sided, of this pair alone, and takes 8 "
    "seeds; the ranks of the leaderboard compare all pairs of a board at once. Matching: the "
    "sparsest density proved to match dense, and the sparsest not refuted. Cost: dense trainings. "
    "Overlap: of the masks beyond chance, 0 as random masks of the same counts, 1 as far as these "
    "counts allow."
)


HEADLINES = {"retention": "retention", "above erk": "above erk, points", "accuracy": "accuracy, %"}
DIGITS = {"above erk": (1, 1), "accuracy": (1, 100)}  # decimals and scale, where not 2 and 1


def _headlines(found: Comparison) -> Table:
    rows = []
    for task in found.tasks:
        digits, scale = DIGITS.get(task.what, (2, 1))
        cells = (NA, NA, NA, NA)
        if task.headline:
            one, other, apart = task.headline
            cells = (
                _value(one, digits, scale),
                _value(other, digits, scale),
                _signed(apart, digits, scale),
                "too few" if task.p is None else formats.probability(task.p),
            )
        what = HEADLINES.get(task.what, NA)
        rows.append((plain(task.task, NAME), what, *cells))
    return Table("", ("task", "score", "A", "B", "A - B", "p"), tuple(rows))


def _rest(found: Comparison) -> Table:
    rows = [
        (
            plain(task.task, NAME),
            *(_matched(matching) for matching in task.matching),
            *(_cost(cost) for cost in task.cost),
        )
        for task in found.tasks
    ]
    head = ("A matches, %", "B matches, %", "A costs", "B costs")
    return Table("", ("task", *head), tuple(rows))


def _cost(cost: float | None) -> str:
    if cost is None:
        return NA
    return "<0.01" if 0 < cost < 0.005 else number(cost, 2)


def _task_text(task: OnTask) -> str:
    unit = f"{task.measure}, %"
    count = len(task.seeds)
    seeds = f"seed{'' if count == 1 else 's'} {terms.listing(task.seeds)}"
    lines = [f"{plain(task.task)}, {seeds}, {terms.SHOWN[task.shown]}: {unit}"]
    head = ["density, %", "A", "B", "A - B", *([] if task.overlap else ["overlap"])]
    rows = []
    for rung in task.rungs:
        cells = [number(100 * mean, 2) for mean in (rung.a, rung.b)]
        cells.append(_signed(rung.difference, 2, 100))
        overlap = [] if task.overlap else [_value(rung.overlap, 2, 1) if rung.overlap else NA]
        rows.append((percent(rung.density), *cells, *overlap))
    if rows:
        lines.append(_grid(Table("", tuple(head), tuple(rows))))
    else:
        lines.append("No rung that both ladders have.")
    lines += [f"Overlap: {task.overlap}."] if task.overlap else []
    if task.division[0] != task.division[1]:
        boards = [terms.BOARDS[name].split(":")[0] if name else NA for name in task.division]
        lines.append(f"Division: A {boards[0]}, B {boards[1]}.")
    lines += [terminal.wrapped(f"Note: {warning}.", WIDTH) for warning in task.warnings]
    return "\n".join(lines)


def _grid(table: Table) -> str:
    return grid(replace(table, left=("task", "score")))


def _value(found: Interval, digits: int, scale: float) -> str:
    """Format a mean with the half-width of its interval."""
    text = number(scale * found.mean, digits)
    if found.low is None or found.high is None:
        return text
    return f"{text} ±{number(scale * (found.high - found.low) / 2, digits)}"


def _signed(found: Interval, digits: int, scale: float) -> str:
    text = number(scale * found.mean, digits, signed=True)
    return f"{text} {formats.interval(found, digits, scale, signed=True)}".strip()


def _p_text(p: float | None) -> str:
    return TOO_FEW if p is None else f"p {formats.probability(p)}"


def _matched(matching: Matching) -> str:
    both = (matching.proved, matching.not_refuted)
    if both == (None, None):
        return "-"
    return " / ".join("-" if density is None else percent(density) for density in both)
