"""Evidence as shown in a terminal."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lthbench.io.paths import canonical_json
from lthbench.leaderboard.analysis import verdicts
from lthbench.leaderboard.analysis.schema import LayerRow, Rung, Saved
from lthbench.leaderboard.analysis.verdicts import Estimate, Verdict
from lthbench.report.formats import NA, number, percent, plain, probability
from lthbench.report.table import Table, grid, stacked

WIDTH = 100
NULLS = (
    "Excess overlap: 0 is the null, 1 nested masks. Over chance: hypergeometric in each layer. "
    "Over other seeds: less what A's mask of one seed shares with B's of another; p by all "
    "pairings of seeds. Over same start: chance within ten strata of |theta_0| in each layer, cut "
    "where the kept weights lie. Matched: over other seeds, hidden units brought into the best "
    "order in every pair. Profile: the share of kept weights that lies in other layers. ± half a "
    "95 % t interval over seeds."
)
RUNG_HEAD = (
    *("density, %", "seeds", "over chance", "over other seeds", "p", "over same start"),
    *("matched", "p matched", "profile", "same subnetwork"),
)
LAYER_HEAD = (
    *("layer", "weights", "density A, %", "density B, %", "times chance"),
    *("over chance", "over other seeds", "over same start", "z"),
)
DESCRIPTIVE = "Layers are descriptive: means over seeds, z of all seeds together against chance."


@dataclass(frozen=True)
class Evidence:
    """The evidence of two methods, task by task.

    Attributes:
        left_out: What the two do not have in common, in words.
        written: The files in which the evidence was saved.
    """

    tasks: tuple[Saved, ...]
    left_out: str = ""
    written: tuple[Path, ...] = ()

    def text(self) -> str:
        """Return what `lthbench evidence A B` prints."""
        parts = ["\n".join(_lines(found)) for found in self.tasks]
        if self.left_out:
            parts.append(_wrapped(f"Left out: {plain(self.left_out, 1000)}"))
        parts += [f"saved: {path}" for path in self.written]
        return "\n\n".join(parts).replace("−", "-").replace("…", "...")

    def json(self) -> str:
        """Return all figures as one line of JSON."""
        table = {
            "tasks": [found.model_dump(mode="json") for found in self.tasks],
            "left_out": self.left_out,
            "rules": [rule.model_dump(mode="json") for rule in verdicts.rules()],
        }
        return canonical_json(table).decode().rstrip("\n")


def _lines(found: Saved) -> Iterator[str]:
    seeds = ", ".join(str(seed) for seed in found.seeds)
    yield f"{found.task}: A = {found.a.id}, B = {found.b.id}; seeds {seeds}; rules {found.rules}"
    yield ""
    for verdict in found.verdicts:
        yield _wrapped(_told(verdict), "  ")
    yield ""
    yield _grid(RUNG_HEAD, [rung_cells(rung) for rung in found.rungs])
    yield _wrapped(NULLS)
    if found.matching:
        yield _wrapped(f"Matched here: {found.matching}.")
    last = found.rungs[-1]
    yield ""
    yield f"Layers at density {percent(last.density)} %"
    yield _grid(LAYER_HEAD, [layer_cells(row) for row in last.layers])
    yield DESCRIPTIVE
    yield ""
    for missing in found.not_measured:
        yield _wrapped(f"Not measured: {missing.what} ({missing.why})")


def _told(verdict: Verdict) -> str:
    """Format a verdict: rule, result, figures with their intervals, thresholds."""
    (rule,) = [rule for rule in verdicts.rules() if rule.name == verdict.rule]
    of = {"pair": "A and B", "a": "A", "b": "B"}[verdict.of]
    figures = "; ".join(
        f"{figure.name} {estimate(figure.estimate, 3, interval=True)}" for figure in verdict.figures
    )
    limits = ", ".join(f"{name} {value:g}" for name, value in rule.thresholds.items())
    reasons = f" ({verdict.why})" if verdict.why else ""
    shown = f": {figures}; {limits}" if figures else ""
    return f"{of}, {rule.name}: {verdict.result.upper()}{reasons}{shown}"


def estimate(found: Estimate | None, digits: int = 2, *, interval: bool = False) -> str:
    """Format a mean with its interval, or the values where seeds are too few for one."""
    if found is None:
        return NA
    if found.low is None or found.high is None:
        return " / ".join(number(value, digits) for value in found.values)
    low, high = number(found.low, digits), number(found.high, digits)
    if interval:
        return f"{number(found.mean, digits)} [{low}, {high}]"
    return f"{number(found.mean, digits)} ±{number((found.high - found.low) / 2, digits)}"


def rung_cells(rung: Rung) -> tuple[str, ...]:
    """Format a rung's row under `RUNG_HEAD`."""
    found = rung.excess
    return (
        percent(rung.density),
        str(len(rung.seeds)),
        estimate(found.chance),
        estimate(found.other_seeds),
        probability(found.other_seeds.p if found.other_seeds else None),
        estimate(found.same_start),
        estimate(found.matched),
        probability(found.matched.p if found.matched else None),
        estimate(rung.profile),
        rung.verdict.result,
    )


def layer_cells(row: LayerRow) -> tuple[str, ...]:
    """Format a layer's row under `LAYER_HEAD`."""
    figures = (row.ratio, row.chance, row.other_seeds, row.same_start)
    return (
        plain(row.name),
        f"{row.size:,}",
        percent(row.density_a),
        percent(row.density_b),
        *(NA if value is None else number(value, 2) for value in figures),
        NA if row.z is None else number(row.z, 1),
    )


def _grid(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    return grid(Table("", head, tuple(rows)), head=stacked)


def _wrapped(text: str, hang: str = "") -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent=hang, break_on_hyphens=False)
