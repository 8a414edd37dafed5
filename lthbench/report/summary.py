"""A record in one sentence: the result, in plain words with numbers and intervals.

It precedes every table, in the terminal and in the report. It says nothing that the record's
aggregates do not: "above" and "below" are used only where an interval excludes zero.
"""

from __future__ import annotations

from collections.abc import Sequence

from lthbench.records import intervals, metrics
from lthbench.records.metrics import Gap
from lthbench.records.runs import subtract
from lthbench.records.schema import Record
from lthbench.records.scores import Estimate, Rung
from lthbench.report import latex, markdown, terminal
from lthbench.report.formats import interval, is_area, measure, number, plain
from lthbench.report.terms import is_untrained, matching_available

DIGITS = 1  # of points and percent


def sentence(record: Record) -> str:
    """Summarise a record in one sentence that ends in a full stop.

    First against dense, then above random masks and the other controls, then the search cost; what
    the record cannot answer is left out.
    """
    parts = _untrained(record) if is_untrained(record) else _trained(record)
    cost = record.scores.cost
    return "; ".join([*parts, *([_cost(cost.mean)] if cost else [])]) + "."


def text(records: Sequence[Record], form: str = "terminal") -> str:
    """Return the sentences of an evaluation, one paragraph each.

    Args:
        records: Records of the evaluation.
        form: One of terminal, markdown or latex; in latex, they are comments before the tables.
    """
    said = [sentence(record) for record in records]
    if form == "latex":
        return "\n".join(f"% {latex.only_ascii(one)}" for one in said) + "\n"
    if form == "markdown":
        return "\n\n".join(map(markdown.md, said)) + "\n"
    return (
        "\n".join(terminal.wrapped(one, terminal.WIDTH) for one in said).translate(
            terminal.TERMINAL
        )
        + "\n"
    )


def _trained(record: Record) -> list[str]:
    name, task = plain(record.method.name), plain(record.task.name)
    rungs = [rung for rung in record.scores.rungs if rung.ticket is not None]
    if not rungs or all(rung.failed == len(record.seeds) for rung in rungs):
        return [f"{name} found no ticket on {task}"]
    first, at = _against_dense(record, rungs, name, task)
    above = _above_random(record, rungs, at)
    order = _identity(rungs, at)
    return [first + (f": {above}" if above else ""), *([order] if order else [])]


def _against_dense(
    record: Record, rungs: Sequence[Rung], name: str, task: str
) -> tuple[str, Rung | None]:
    """Say how far down tickets match dense; return the last rung at which they do."""
    proved = record.scores.matching.proved
    at = next((rung for rung in rungs if rung.density == proved), None)
    if at is not None and proved is not None:
        down = f"down to {_percent(proved)} % of the weights on {task}"
        if not is_area(record):
            return f"{name} keeps dense's accuracy {down}", at
        sooner = _sooner(record, at)
        return f"{name} generalises as soon as dense {down}{sooner}", at
    rung = rungs[0]  # the densest, where it fails first
    if rung.difference is not None and not matching_available(record):
        figure = f"{_signed(record, rung.difference)} from dense at {_percent(rung.density)} %"
        return f"{name} is not shown to match dense at any density of {task} ({figure})", None
    rung = rungs[-1]
    where = f"at {_percent(rung.density)} % of the weights"
    if rung.difference is None:
        assert rung.ticket is not None
        return f"{name} on {task}: {_level(rung.ticket)} % {measure(record)} {where}", None
    return f"{name} on {task} is {_apart(record, rung.difference, 'dense', where)}", None


def _sooner(record: Record, rung: Rung) -> str:
    """Say how many times sooner a rung generalises than dense; "" if a run was cut off at T."""
    found = record.scores.speed.grokking or {}
    row, dense = found.get(f"{rung.density:.6g}"), found.get("1")
    if row is None or dense is None:
        return ""
    if any(moment.reached < moment.n for moment in (row.generalised, dense.generalised)):
        return ""
    later = row.generalised.log2_difference
    word, sign = ("sooner", -1) if later.mean <= 0 else ("later", 1)
    times = number(2 ** (sign * later.mean), 1)
    ends = sorted(2 ** (sign * end) for end in (later.low, later.high) if end is not None)
    spread = f" [{number(ends[0], 1)}, {number(ends[1], 1)}]" if ends else ""
    return f", {times} times{spread} {word} there"


def _above_random(record: Record, rungs: Sequence[Rung], at: Rung | None) -> str:
    """Compare ticket with random masks where tickets last match dense.

    If the two do not differ there, the sparsest rung with random masks is used. Random masks are
    ERK's; if there are none, those of uniform density in all layers.
    """
    for kind, word in (("erk", "random (ERK) masks"), ("random", "random masks")):
        less = [(rung, found) for rung in rungs if (found := _less(rung, kind)) is not None]
        if less:
            some = [*(pair for pair in less if pair[0] is at), less[-1]]
            rung, found = next((pair for pair in some if _is_apart(pair[1])), some[0])
            where = "there" if rung is at else f"at {_percent(rung.density)} %"
            return _apart(record, found, word, where)
    return ""


def _is_apart(found: Estimate) -> bool:
    """Return whether an interval excludes zero."""
    return found.low is not None and found.high is not None and not found.low <= 0 <= found.high


def _less(rung: Rung, kind: str) -> Estimate | None:
    """Return ticket minus a control, paired by seed."""
    control = rung.of(kind)
    if rung.ticket is None or control is None:
        return None
    return subtract(rung.ticket.values, control.values)


def _identity(rungs: Sequence[Rung], at: Rung | None) -> str:
    """Say which controls the ticket is above, each at one-sided .05; "" if untested."""
    tested = [rung for rung in rungs if _p(rung.gap_shuffled) is not None]
    if not tested:
        return ""
    rung = at if at in tested else tested[-1]
    where = f"at {_percent(rung.density)} %"
    above = {
        kind: p < intervals.ALPHA
        for kind in ("reinit", "shuffled")
        if (p := _p(rung.gap(kind))) is not None
    }
    if all(above.values()) and len(above) == 2 and rung.reinit and rung.shuffled:
        between = metrics.identity_gap(rung.reinit.values, rung.shuffled.values)
        ordered = between is not None and between.p is not None and between.p < intervals.ALPHA
        return f"ticket above reinit {'above' if ordered else 'and'} shuffled {where}"
    yes = [kind for kind, is_above in above.items() if is_above]
    no = [kind for kind, is_above in above.items() if not is_above]
    if yes:
        return f"ticket above {yes[0]}{f', not above {no[0]},' if no else ''} {where}"
    return f"ticket {'above neither ' if len(no) == 2 else 'not above '}{' nor '.join(no)} {where}"


def _p(gap: Gap | None) -> float | None:
    return None if gap is None else gap.p


def _untrained(record: Record) -> list[str]:
    """Describe the best rung on the held-out part, without training."""
    name, task = plain(record.method.name), plain(record.task.name)
    assert record.scores.untrained is not None
    best = record.scores.untrained.best
    where = f"at {_percent(best.density)} % of the weights"
    said = [f"{name} reaches {_level(best.ticket)} % accuracy on {task} {where}, untrained"]
    if best.difference is not None:
        said[0] += f": {_apart(None, best.difference, 'dense, which is trained')}"
    if best.above_random is not None:
        said.append(_apart(None, best.above_random, "a random mask, untrained"))
    return said


# Figures


def _apart(record: Record | None, found: Estimate, what: str, where: str = "") -> str:
    """Put a paired difference into words; "above" or "below" only if the whole interval is.

    Args:
        record: The record whose score it is; None for accuracies, whatever the record's score is.
        found: The difference and its interval.
        what: What is compared with.
        where: Where the difference was measured.
    """
    values, mean = found.values, found.mean
    place = f" {where}" if where else ""
    if found.low is None and len(values) < intervals.MIN_SEEDS:
        return f"{_signed(record, found)} from {what}{place}"
    low, high = (mean if end is None else end for end in (found.low, found.high))
    if low <= 0 <= high:
        return f"not told apart from {what}{place} ({_signed(record, found)})"
    word, sign = ("above", 1) if low > 0 else ("below", -1)
    digits = _digits(mean)
    ends = [number(100 * end, digits) for end in sorted((sign * low, sign * high))]
    spread = "" if found.low is None else f" [{', '.join(ends)}]"
    figure = number(100 * sign * mean, digits)
    return f"{figure} {_unit(record)}{spread} {word} {what}{place}"


def _signed(record: Record | None, found: Estimate) -> str:
    """Format a difference with sign and interval; fewer than three seeds as separate values."""
    few = found.low is None and len(found.values) < intervals.MIN_SEEDS
    shown, digits = found.values if few else (found.mean,), _digits(found.mean)
    text = " / ".join(number(100 * value, digits, signed=True) for value in shown)
    return f"{text} {_unit(record)} {interval(found, digits, 100)}".rstrip()


def _digits(mean: float) -> int:
    """Return decimals of a difference in points: one, or two if one would show zero."""
    return DIGITS if not mean or abs(100 * mean) >= 0.05 else DIGITS + 1


def _unit(record: Record | None) -> str:
    return "points of area" if record is not None and is_area(record) else "points"


def _points(value: float) -> str:
    return number(100 * value, DIGITS)


def _level(found: Estimate) -> str:
    """Format a mean in percent with its interval; few seeds as separate values."""
    if found.low is None or found.high is None:
        values = found.values[:1] if intervals.alike(found.values) else found.values
        return " / ".join(_points(value) for value in values)
    return f"{_points(found.mean)} [{_points(found.low)}, {_points(found.high)}]"


def _percent(density: float) -> str:
    """Format with two significant digits: 51, 8.6, 0.59."""
    value = 100 * density
    return f"{value:.0f}" if value >= 9.95 else f"{value:.2g}"


def _cost(mean: float) -> str:
    if not mean:
        return "a search costs no training"
    if mean < 0.005:
        return "a search costs less than 0.01 dense trainings"
    text = number(mean, 1 if mean >= 9.95 else 2)
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return f"a search costs {text} dense training{'' if text == '1' else 's'}"


def environments(record: Record) -> dict[str, str]:
    """Return a record's environment, and the differences for seeds evaluated elsewhere."""
    told = sorted((record.environments or {}).items(), key=lambda item: int(item[0]))
    own = record.environment
    return own | {
        f"{name}, seed {seed}": where.get(name, "")
        for seed, where in told
        for name in sorted(own.keys() | where.keys())
        if where.get(name) != own.get(name)
    }
