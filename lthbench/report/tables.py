"""From a record to what it says: answers, tables and remarks, in text, Markdown and LaTeX.

Numbers are taken from the record's aggregates and only formatted here. Inside, a minus is U+2212;
what a terminal or LaTeX cannot show is replaced on the way out.
"""

from __future__ import annotations

import math
import re
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lthbench.io import visible_text
from lthbench.records import aggregate, metrics, pretrained, transfer_score, unmetered
from lthbench.records.schema import Carried, Cell, Record

NA = "n/a"
WIDTH = 100  # columns of a terminal that tables are made for
LISTED = 8  # cells that failed, or were drawn again, that are listed one by one in text
CONTROLS = aggregate.CONTROLS
CONTROLLED = {
    "alternate": "on every second rung, from the sparsest up",
    "one rung": "on the sparsest rung but one alone",
}
BOARDS = {
    "init": "at initialisation",
    "rewind": "early weights",
    "open": "open",
    "reference": "reference: shown, never ranked",
}
SHOWN = {"test": "test split", "held_out": "held-out part"}
LINES = str.maketrans("\n\r\t", "   ")
Escape = Callable[[str], str]
Found = Mapping[str, Any] | None  # a mean with its interval, as aggregates hold it


@dataclass(frozen=True)
class Answer:
    """One question that a reader comes with, its figure, and what qualifies it."""

    question: str
    name: str
    value: str
    spread: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A caption, column heads, rows of text, and what a reader must know of the figures."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True)
class Remark:
    """A condition under which the figures hold; one that warns must be seen."""

    name: str
    text: str
    warns: bool = False


# Numbers


def plain(text: str, limit: int = 200) -> str:
    """Text of others on one line; what is hidden or disguised in it is made visible."""
    shown = " ".join(visible_text.visible(text.translate(LINES)).split())
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def number(value: float, digits: int, *, signed: bool = False) -> str:
    """A number with a fixed count of decimals, a real minus, and no negative zero."""
    text = f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
    if not text.strip("+-0."):
        return text.lstrip("+-")
    return text.replace("-", "−")


def percent(density: float) -> str:
    """A density as a table shows it: 51.2 %, 8.59 %."""
    value = 100 * density
    return f"{value:.0f}" if value >= 99.95 else f"{value:.{1 if value >= 9.995 else 2}f}"


def probability(p: float | None) -> str:
    """A p value as papers print it: .031, <.001."""
    if p is None:
        return NA
    return "<.001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def estimate(
    found: Found, digits: int, scale: float = 100, *, signed: bool = False, brackets: bool = False
) -> str:
    """Mean with its interval; both values of two seeds; the value of one, or of all alike."""
    if found is None:
        return NA
    if found["low"] is None:
        values = found.get("values") or [found["mean"]]
        if len(values) >= metrics.MIN_SEEDS and metrics.alike(values):
            return f"{number(scale * values[0], digits, signed=signed)} (all {len(values)})"
        return " / ".join(number(scale * value, digits, signed=signed) for value in values)
    mean = number(scale * found["mean"], digits, signed=signed)
    if brackets:
        return f"{mean} {interval(found, digits, scale, signed=signed)}"
    return f"{mean} ±{number(scale * (found['high'] - found['low']) / 2, digits)}"


def interval(
    found: Mapping[str, Any], digits: int, scale: float = 1, *, signed: bool = False
) -> str:
    """The interval alone, in brackets; nothing where there are too few seeds for one."""
    if found["low"] is None:
        return ""
    low, high = (number(scale * found[end], digits, signed=signed) for end in ("low", "high"))
    return f"[{low}, {high}]"


def ranks_left(rank: tuple[int, int]) -> str:
    """A rank as the interval that is left open, where only one is too: no bare number is a rank."""
    return f"{rank[0]}–{rank[1]}"


def is_area(record: Record) -> bool:
    """Whether a run's score is its accuracy averaged over log step, not accuracy at T."""
    return record.task.kind == "area"


def measure(record: Record) -> str:
    """What a run's score is called."""
    return "area" if is_area(record) else "accuracy"


def decimals(record: Record) -> int:
    """Decimals of a percentage: one where a set has under 1,000 examples."""
    smallest = min(sets[record.shown] for sets in record.sizes.values())
    return 2 if smallest >= 1000 else 1


def score(record: Record, found: Found) -> str:
    """A rung's score: percent with its interval."""
    return estimate(found, decimals(record))


def difference(record: Record, found: Found) -> str:
    """A paired difference: points with its interval."""
    return estimate(found, decimals(record), signed=True)


def gap(record: Record, rung: Mapping[str, Any], control: str) -> str:
    """Ticket minus control, paired; both differences of two seeds."""
    found = rung[aggregate.gap_name(control)]
    if found is None:
        return NA
    pairs = zip(rung["ticket"]["values"], rung[control]["values"], strict=True)
    return difference(record, {**found, "values": [a - b for a, b in pairs]})


def listing(numbers: Sequence[int]) -> str:
    """0 to 4, or 3, 7."""
    consecutive = list(numbers) == list(range(numbers[0], numbers[0] + len(numbers)))
    if consecutive and len(numbers) > 2:
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers))


# Answers


def title(record: Record) -> str:
    """The method and the task."""
    version = f"version {record.task.version}"
    return f"{plain(record.method.name)} on {plain(record.task.name)} ({version})"


def answers(record: Record) -> tuple[Answer, ...]:
    """How good, against dense, against controls, at what cost."""
    if is_untrained(record):
        return (*_as_it_stands(record), _cost(record))
    return _how_good(record), _against_dense(record), _against_controls(record), _cost(record)


def is_untrained(record: Record) -> bool:
    """Whether its tickets are scored as they stand, before they are trained."""
    return "untrained" in record.aggregates


def _sparsest(record: Record) -> Mapping[str, Any] | None:
    """The sparsest rung with a ticket."""
    rungs = [rung for rung in record.aggregates["rungs"] if rung["ticket"] is not None]
    return rungs[-1] if rungs else None


def _how_good(record: Record) -> Answer:
    question, found = "How good", aggregate.headline(record.aggregates)
    if found is None:
        return _at_sparsest(record, question)
    notes = []
    if record.aggregates["loss"] is not None:
        loss = estimate(record.aggregates["loss"], 2, 1, brackets=True)
        notes.append(f"loss L {loss} points against dense over the ladder")
    if found["what"] == "retention":
        notes.append("1 is lossless, 0 no better than random pruning")
        value, spread = _split(estimate(found, 2, 1, brackets=True), "")
        return Answer(question, "retention", value, spread.strip(), tuple(notes))
    some = len(found["densities"]) < len(record.task.ladder)
    over = ", ".join(percent(d) for d in found["densities"])
    notes.insert(0, f"mean over {f'the rungs at {over} %' if some else 'the ladder'}")
    text = estimate(found, decimals(record), 1, signed=True, brackets=True)
    return Answer(question, "ticket − erk", *_split(text, "points"), tuple(notes))


def _at_sparsest(record: Record, question: str) -> Answer:
    """The score at the sparsest rung, of a record with nothing to set its ladder against."""
    rung = _sparsest(record)
    if rung is None:
        return Answer(question, "score", NA, "", ("no ticket",))
    value, spread = _split(score(record, rung["ticket"]), f"% {measure(record)}, {_set(record)}")
    why = "there is neither a frozen reference nor an erk control to set the ladder against"
    return Answer(question, _at(rung), value, spread, (why,))


def _at(rung: Mapping[str, Any]) -> str:
    return f"at {percent(rung['density'])} % density"


def _split(text: str, what: str) -> tuple[str, str]:
    """A figure; its interval, or of how many seeds it is, with what it counts."""
    for mark in (" ±", " [", " ("):
        if mark in text:
            value, _, spread = text.partition(mark)
            return value, f"{mark.strip()}{spread} {what}"
    return text, what


def _set(record: Record) -> str:
    return SHOWN[record.shown]


def matching_available(record: Record) -> str:
    """Why matching density cannot be told; empty where it can."""
    if len(record.seeds) < metrics.MIN_SEEDS:
        return f"needs {metrics.MIN_SEEDS} seeds"
    dense = record.aggregates["dense"]
    if dense is None:
        return "a dense run failed"
    return "" if record.reference is not None else "no frozen reference for this protocol"


def _against_dense(record: Record) -> Answer:
    question, dense = "Against dense", record.aggregates["dense"]
    level = f"dense {score(record, dense)} %"
    why, rung = matching_available(record), _sparsest(record)
    if why or rung is None:
        notes = (f"matching density n/a: {why or 'no ticket'}", level)
        if rung is None or rung["difference"] is None:
            return Answer(question, "matches dense down to", NA, "", notes)
        text = difference(record, rung["difference"])
        return Answer(question, _at(rung), *_split(text, "points from dense"), notes)
    matching = record.aggregates["matching"]
    proved, open_to = (
        "no rung" if matching[name] is None else f"{percent(matching[name])} %"
        for name in ("proved", "not_refuted")
    )
    assert record.reference is not None
    margin = number(100 * record.reference.margin, 2)
    notes = (f"{open_to} not refuted (margin {margin} points)", level)
    told = "proved" if matching["proved"] is None else "density, proved"
    return Answer(question, "matches dense down to", proved, told, notes)


def _against_controls(record: Record) -> Answer:
    question = "Against controls"
    rungs = [
        rung
        for rung in record.aggregates["rungs"]
        if rung["gap_shuffled"] is not None or rung["gap_reinit"] is not None
    ]
    if not rungs:
        return Answer(question, "identity matters", NA, "", ("no control was scored",))
    judged = [rung for rung in rungs if rung["identity_matters"] is not None]
    yes = [rung for rung in judged if rung["identity_matters"]]
    above = _gaps(record, (yes or rungs)[-1])
    if not judged:
        return _undecided(record, question, rungs[-1])
    figure, of = f"{len(yes)} of {len(judged)}", "rung" if len(judged) == 1 else "rungs"
    note = f"sparsest of them: {above}" if len(yes) > 1 else above
    return Answer(question, "identity matters on", figure, of, (note,))


def _undecided(record: Record, question: str, rung: Mapping[str, Any]) -> Answer:
    """The gaps of a record that has too few seeds, or too few controls, for a verdict."""
    few = len(record.seeds) < metrics.MIN_SEEDS
    why = f"needs {metrics.MIN_SEEDS} seeds" if few else "a control is not available"
    value, spread = _split(gap(record, rung, "shuffled"), "points, ticket − shuffled")
    reinit = f"ticket − reinit {gap(record, rung, 'reinit')} points"
    notes = (reinit, f"whether identity matters: n/a, {why}")
    return Answer(question, _at(rung), value, spread, notes)


def _gaps(record: Record, rung: Mapping[str, Any]) -> str:
    return (
        f"ticket\u00a0−\u00a0shuffled {gap(record, rung, 'shuffled')}, "
        f"ticket\u00a0−\u00a0reinit {gap(record, rung, 'reinit')} points {_at(rung)}"
    )


def _as_it_stands(record: Record) -> tuple[Answer, Answer, Answer]:
    """The answers for untrained tickets: their best rung, and what training makes of it."""
    found, digits = record.aggregates["untrained"], decimals(record)
    best = next(rung for rung in found["rungs"] if rung["density"] == found["headline"])
    trained = next(r for r in record.aggregates["rungs"] if r["density"] == found["headline"])
    chosen = "the rung best on the held-out part"
    if not record.final:
        chosen += ", which is shown here too"
    good = f"% accuracy on the {_set(record)}, no weight trained"
    area = " area" if is_area(record) else ""
    trains = f"after training {score(record, trained['ticket'])} %{area}"
    beyond = (
        f"after training {difference(record, trained['difference'])} points{area and ' of'}{area}"
    )
    dense, apart = (estimate(best[k], digits, signed=k != "dense") for k in ("dense", "difference"))
    above = estimate(best["above_random"], digits, signed=True)
    tested = (f"p {probability(best['p'])}",) if best["p"] is not None else ()
    return (
        Answer("How good", _at(best), *_split(estimate(best["ticket"], digits), good),
               (chosen, trains)),
        Answer("Against dense", _at(best), *_split(apart, "points from dense, which is trained"),
               (f"dense {dense} %", beyond)),
        Answer("Against controls", _at(best),
               *_split(above, "points above a random mask, both untrained"),
               (*tested, *_after_training(record))),
    )  # fmt: skip


def _after_training(record: Record) -> tuple[str, ...]:
    """What the controls of a trained ticket say, on the sparsest rung that has them."""
    rungs = [rung for rung in record.aggregates["rungs"] if rung["gap_shuffled"] is not None]
    return (f"after training {_gaps(record, rungs[-1])}",) if rungs else ()


def _cost(record: Record) -> Answer:
    cost = record.aggregates["cost"]
    question, name, what = "At what cost", "a search costs", "dense trainings a seed"
    notes = ("one is T steps of the unmasked network; scoring is free",)
    if cost is None:
        return Answer(question, name, NA, "", ())
    digits = _cost_digits(cost["mean"])
    if max(cost["values"]) - min(cost["values"]) < 10**-digits / 2:
        return Answer(question, name, cost_text(cost["mean"]), what, notes)
    return Answer(question, name, *_split(estimate(cost, digits, 1), what), notes)


def cost_text(mean: float) -> str:
    """A search cost in dense trainings; what is hardly any is no zero."""
    return "<0.01" if 0 < mean < 0.005 else number(mean, _cost_digits(mean))


def _cost_digits(mean: float) -> int:
    return 1 if mean >= 9.95 or mean == 0 else 2


# Remarks


def remarks(record: Record) -> tuple[Remark, ...]:
    """Board, seeds and examples, machine, reference, what was drawn again and what failed."""
    return (
        *_standing(record),
        _machine(record),
        _frozen(record),
        *_pretrained(record),
        *_collapsed(record),
        *_drawn_again(record),
        *_failed(record),
        *_unmetered(record),
    )


def _standing(record: Record) -> Iterable[Remark]:
    division = record.aggregates["division"]
    board = BOARDS[division] if division else NA
    if is_untrained(record):
        board = f"{board}; untrained tickets, which have a board of their own"
    yield Remark("Division", board)
    sizes = sorted({sets[record.shown] for sets in record.sizes.values()})
    examples = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
    seeds = f"seed{'' if len(record.seeds) == 1 else 's'} {listing(record.seeds)}, {_set(record)}"
    if record.final:
        yield Remark("Seeds", f"published {seeds}")
    else:
        yield Remark("Seeds", f"development {seeds}: not for publication", warns=True)
    dense = record.aggregates["dense"]
    if dense is not None and not is_area(record):
        error = number(100 * metrics.binomial_se(dense["mean"], sizes[0]), 2)
        examples += f" (binomial s.e. at dense's accuracy: {error} points)"
    yield Remark("Examples", examples)
    if record.controls != "all":
        yield Remark("Controls", CONTROLLED[record.controls])


def _machine(record: Record) -> Remark:
    reproduces = record.aggregates["reproduces"]
    if reproduces is None:
        why = "no frozen reference"
        if record.reference is not None:
            why = "development runs do that" if record.final else "a dense run failed, or too few"
        return Remark("Machine", f"not checked against the reference: {why}")
    if reproduces:
        text = "reproduces the reference: local dense runs lie inside its 99 % interval"
        return Remark("Machine", text)
    text = "does not reproduce the reference: local dense runs lie outside its 99 % interval"
    return Remark("Machine", text, warns=True)


def _frozen(record: Record) -> Remark:
    if record.reference is None:
        return Remark("Reference", "none for this protocol", warns=True)
    seeds, short = len(record.reference.dense), record.reference.digest[:8]
    text = f"{seeds} dense seeds ({short})"
    if record.aggregates.get("transfer") and record.reference.transfer is None:
        text += "; at other depths none: erk there is this record's own"
    if record.reference.provisional:
        return Remark("Reference", f"provisional: {text}", warns=True)
    return Remark("Reference", f"frozen: {text}")


def _pretrained(record: Record) -> Iterable[Remark]:
    tickets = [c for c in record.cells if c.kind == "ticket" and c.schedule == 1]
    if arrived := sum(cell.origin == pretrained.ORIGIN for cell in tickets):
        text = (
            f"{arrived} of {len(tickets)} tickets arrive trained already: before their own "
            "training they are near dense, or have another seed's weights"
        )
        yield Remark("Pretrained", text, warns=True)


def _unmetered(record: Record) -> Iterable[Remark]:
    for told in unmetered.told_of(record):
        yield Remark("Unmetered", told, warns=True)


def _collapsed(record: Record) -> Iterable[Remark]:
    for rung in record.aggregates["rungs"]:
        if rung["collapsed"]:
            text = f"{rung['collapsed']} at {percent(rung['density'])} % density: no path is left"
            yield Remark("Collapsed", text, warns=True)
    own = {name for cell in record.cells for name in cell.own_shuffle}
    if own:
        names = ", ".join(sorted(plain(name) for name in own))
        text = f"on some rung full, empty or of one weight, so its own shuffle: {names}"
        yield Remark("Shuffles", text)


def _drawn_again(record: Record) -> Iterable[Remark]:
    again = [cell for cell in _every(record) if cell.attempt]
    if again:
        draws = sum(cell.attempt for cell in again)
        named = "; ".join(
            f"{_told_place(cell)}: draw {cell.attempt + 1}" for cell in again[:LISTED]
        )
        more = f"; and {len(again) - LISTED} more" if len(again) > LISTED else ""
        text = f"{draws} draws of {len(again)} controls diverged before ({named}{more})"
        yield Remark("Drawn again", text)


def _failed(record: Record) -> Iterable[Remark]:
    if record.final and len(record.seeds) < record.task.seeds:
        text = f"{len(record.seeds)} of the task's {record.task.seeds} published seeds"
        yield Remark("Incomplete", text, warns=True)
    kinds = ("ticket", "untrained") if is_untrained(record) else ("ticket",)
    tickets = [cell for cell in record.cells if cell.kind in kinds and cell.schedule == 1]
    wanted = len(kinds) * len(record.seeds) * len(record.task.ladder)
    if lost := wanted - sum(cell.status == "ok" for cell in tickets):
        text = f"{lost} of {wanted} tickets missing or failed: they score chance"
        yield Remark("Incomplete", text, warns=True)
    for search in record.searches:
        if search.status != "ok":
            text = f"search of seed {search.seed}: {plain(search.reason) or 'no reason given'}"
            yield Remark("Failed", text, warns=True)
    if record.final and not record.transfer and not is_untrained(record):
        yield Remark("No transfer", "tickets were not carried to other depths")
    if record.transfer and record.transfer.reason:
        yield Remark("No transfer", plain(record.transfer.reason), warns=not is_untrained(record))
    for cell in failures(record):
        yield Remark("Failed", failure(cell), warns=True)


def failures(record: Record) -> list[Cell | Carried]:
    """Cells without a result, at the task's depth and at others."""
    return [cell for cell in _every(record) if cell.status != "ok"]


def _every(record: Record) -> list[Cell | Carried]:
    return [*record.cells, *(record.transfer.cells if record.transfer else ())]


def failure(cell: Cell | Carried) -> str:
    """Which cell has no result, and why."""
    return f"{_told_place(cell)}: {cell.status}: {plain(cell.reason) or 'no reason given'}"


def _told_place(cell: Cell | Carried) -> str:
    place = f"{cell.kind}, {percent(cell.density)} % density, seed {cell.seed}"
    if isinstance(cell, Carried):
        place = f"{place}, depth {cell.depth}"
    return place + (f", T/{cell.schedule}" if cell.schedule > 1 else "")


# Tables


def tables(record: Record) -> tuple[Table, ...]:
    """Every table of a record, the first one first."""
    return (*_scored(record, CONTROLS), *measures(record))


def _scored(record: Record, beside: Sequence[str]) -> tuple[Table, ...]:
    """The tables of scores, which a terminal shows too, with these controls beside the ticket."""
    first = (as_they_stand(record),) if is_untrained(record) else ()
    return (*first, against(record, beside), identity(record), *speed(record), *carried(record))


def _controls(record: Record, among: Sequence[str]) -> list[str]:
    """These controls but for one that no rung has because it was none when the record was made."""
    rungs = record.aggregates["rungs"]
    return [k for k in among if k != "reinit-signs" or any(rung[k] is not None for rung in rungs)]


def _means(record: Record, what: str = "") -> str:
    """What a cell of a table of scores holds."""
    n, what = len(record.seeds), f"{what or measure(record)} on the {_set(record)}, %"
    if n == 1:
        return f"{what}: one seed, no interval"
    if n == 2:
        return f"{what}: both seeds, no interval"
    return f"{what}: mean of {n} seeds, ± half its 95 % t interval"


AREA = (
    "Area: a run's accuracy averaged over the logarithm of the step, from the first evaluation to "
    "T. A run that generalises ten times sooner has {} points more."
)


def against(record: Record, beside: Sequence[str] = CONTROLS) -> Table:
    """One row a rung: the ticket, its difference from dense, the controls."""
    shown = _controls(record, CONTROLS[:2] if is_untrained(record) else beside)
    rows = [
        (
            percent(rung["density"]),
            score(record, rung["ticket"]),
            difference(record, rung["difference"]),
            *(score(record, rung[kind]) for kind in shown),
        )
        for rung in record.aggregates["rungs"]
    ]
    subject = "Ticket after training," if is_untrained(record) else "Ticket"
    caption = f"{subject} against dense and the controls: {_means(record)}"
    head = ("density, %", "ticket", "−\u00a0dense, points", *shown)
    span = math.log10(record.task.steps / record.task.every)
    note = AREA.format(number(100 / span, 0)) if is_area(record) and span else ""
    return Table(caption, head, tuple(rows), note)


def as_they_stand(record: Record) -> Table:
    """One row a rung: the ticket as it was handed over, dense, and a random mask at theta_0."""
    found, digits = record.aggregates["untrained"], decimals(record)
    tested = len(record.seeds) >= metrics.MIN_SEEDS
    rows = [
        (
            percent(rung["density"]),
            estimate(rung["ticket"], digits),
            estimate(rung["difference"], digits, signed=True),
            estimate(rung["random"], digits),
            estimate(rung["above_random"], digits, signed=True),
            *([probability(rung["p"])] if tested else []),
        )
        for rung in found["rungs"]
    ]
    head = (
        *("density, %", "untrained", "−\u00a0dense, points"),
        *("random mask", "−\u00a0random mask, points", *(["p"] if tested else [])),
    )
    caption = f"Ticket as it stands, no weight trained: {_means(record, 'accuracy')}"
    best = percent(found["headline"])
    note = f"The rung at {best} % is the best on the held-out part. Dense is trained."
    return Table(caption, head, tuple(rows), note)


def carried(record: Record) -> Iterable[Table]:
    """One row a depth and rung that tickets were carried to: the ticket, random, its parts."""
    moved, found = record.transfer, record.aggregates.get("transfer")
    if moved is None or found is None or moved.reason:
        return
    extra = [kind for kind in EXTRA if any(row[kind] is not None for row in found["rows"])]
    rows = [
        (
            str(row["depth"]),
            percent(row["density"]),
            score(record, row["carried"]),
            score(record, row["erk"]),
            estimate(row["points"], decimals(record), 1, signed=True),
            *("" if row[kind] is None else score(record, row[kind]) for kind in extra),
        )
        for row in found["rows"]
    ]
    head = ("depth", "density, %", "carried", "erk", "−\u00a0erk, points", *extra)
    rule = "by the elastic rule" if moved.rule == "elastic" else "by the method's own rule"
    caption = f"Tickets of depth {moved.source} carried {rule}: {_means(record)}"
    yield Table(caption, head, tuple(rows), _worth(record, found))


EXTRA = ("direct", *transfer_score.PARTS)


def _worth(record: Record, found: Mapping[str, Any]) -> str:
    """The transfer score, and what the parts of a carried ticket are."""
    points, digits = found["points"], decimals(record)
    above = estimate(points, digits, 1, signed=True, brackets=True)
    text = f"Transfer score: {above} points above erk, mean over depths and rungs."
    if found["gain"] is not None:
        text += f" That is {100 * found['gain']:.0f} % of what IMP gains when it searches there."
    return (
        f"{text} What the ticket is made of: layers: random masks with its layers' densities, and "
        "weights drawn anew; mask-only: its masks, and those weights; weights-only: its weights, "
        "under those random masks."
    )


def identity(record: Record) -> Table:
    """One row a rung: which weights, which values, and how many of them count."""
    shown = _controls(record, aggregate.IDENTITY)
    yes_or_no = {True: "yes", False: "no", None: NA}
    unknown, tested = bool(matching_available(record)), len(record.seeds) >= metrics.MIN_SEEDS
    rows = []
    for rung in record.aggregates["rungs"]:
        gaps: list[str] = []
        for control in shown:
            p = _p(rung[aggregate.gap_name(control)])
            gaps += [gap(record, rung, control), *([p] if tested else [])]
        effective = rung["effective"]
        rows.append(
            (
                percent(rung["density"]),
                *gaps,
                yes_or_no[rung["identity_matters"]],
                NA if unknown else yes_or_no[rung["winning"]],
                NA if effective is None else percent(effective * rung["density"]),
            )
        )
    p_head = ("p",) if tested else ()
    head = (
        "density, %",
        *(text for kind in shown for text in (f"−\u00a0{kind}, points", *p_head)),
        *("identity matters", "winning", "effective density, %"),
    )
    caption = "Ticket minus its controls, paired by seed: which weights, which values"
    verdict = (
        "p is one-sided; identity matters if those of shuffled and reinit are below "
        f"{metrics.ALPHA:g}. "
    )
    if not tested:
        verdict = f"Identity matters is a test, which needs {metrics.MIN_SEEDS} seeds. "
    signs = (
        "Shuffled: which weights; reinit: their values, signs and magnitudes; reinit-signs: their "
        "magnitudes alone, so that what it has above reinit the signs are worth. "
    )
    note = (
        f"{signs if 'reinit-signs' in shown else ''}{verdict}Winning: it matches dense too. "
        "Effective density counts weights on a path from input to output."
    )
    return Table(caption, head, tuple(rows), note)


def measures(record: Record) -> Iterable[Table]:
    """One row for dense and for each rung: how well it fits, how far it went, what it takes."""
    found = record.aggregates["measures"]
    known = [name for name in MEASURES if any(row[name] is not None for row in found)]
    if not known:
        return
    rows = [
        (
            "dense" if row["density"] == 1 and not place else percent(row["density"]),
            *(NA if row[name] is None else MEASURES[name][1](row[name]) for name in known),
        )
        for place, row in enumerate(found)
    ]
    caption = "Fit, learning distance, operations and nodes: means over seeds"
    after = " after training" if is_untrained(record) else ""
    note = (
        f"Of dense and the ticket{after}. Train accuracy: at T, on the examples that it learned "
        "from, none augmented. Learning distance: how far kept weights end from where they began, "
        "Euclidean. FLOPs: of one example's forward pass, a multiply-add two, pruned weights none, "
        "and of the training, three such passes an example. Effective nodes: units, channels and "
        "tokens on a path from input to output."
    )
    yield Table(caption, ("density, %", *(MEASURES[name][0] for name in known)), tuple(rows), note)


def _operations(count: float) -> str:
    """In three digits, with a prefix: 532 k, 5.32 M."""
    size, prefix = next(((s, p) for s, p in PREFIXES if count >= s), (1.0, ""))
    return f"{count / size:.3g} {prefix}".rstrip()


PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
# Heading of each measure, and how it is written.
MEASURES: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "train": ("train accuracy, %", lambda share: number(100 * share, 2)),
    "distance": ("learning distance", lambda value: f"{value:.3g}"),
    "flops_inference": ("FLOPs, inference", _operations),
    "flops_training": ("FLOPs, training", _operations),
    "effective_nodes": ("effective nodes", lambda count: number(count, 0)),
}


def _p(found: Found) -> str:
    return NA if found is None else probability(found["p"])


def speed(record: Record) -> Iterable[Table]:
    """How soon a ticket gets there, by the kind of the task."""
    found = record.aggregates["speed"]
    if found.get("grokking"):
        yield _grokking(record, found["grokking"])
    if found.get("steps"):
        yield _steps(record, found["steps"])
    if found.get("compressed"):
        yield _compressed(record, found["compressed"])


def _arrival(found: Mapping[str, Any]) -> str:
    return f"{number(found['mean'], 0)} ({found['reached']}/{found['n']})"


def _later(found: Mapping[str, Any]) -> str:
    return estimate(found["difference"], 0, 1, signed=True)


def _grokking(record: Record, found: Mapping[str, Any]) -> Table:
    rows = []
    dense = found.get("1")
    for density, row in _down(found):
        name = "dense" if float(density) == 1 else percent(float(density))
        if row is None:
            rows.append((name, NA, NA, NA, NA))
            continue
        later = "" if name == "dense" else _grokked_later(row, dense)
        memorised, generalised = (
            _early(record, row[what]) for what in ("memorised", "generalised")
        )
        # What memorised by the first evaluation, and generalised later, waited for longer.
        pairs = zip(memorised, generalised, row["memorised"]["steps"], strict=True)
        later_than = [first and not second for first, second, step in pairs if step is not None]
        told = (
            _by_seed(record, row["memorised"], "≤ ", memorised),
            _by_seed(record, row["generalised"], "≤ ", generalised),
        )
        delay = _by_seed(record, row["delay"], "≥ ", later_than)
        rows.append((name, *told, later, delay))
    head = (
        *("density, %", "memorising step", "generalising step"),
        *("of dense's step", "delay, steps"),
    )
    level, steps = f"{100 * record.task.threshold:g} %", f"{record.task.steps:,}"
    caption = f"When a run memorises and when it generalises: {level} accuracy, sustained"
    note = (
        f"Memorising: on the training examples; generalising: on the {_set(record)}. >: never by "
        f"T = {steps}. ≥, ≤, ≈: restricted means, in which T stands for a run that never did, and "
        f"{record.task.every:,} for one that had by the first evaluation; in brackets the seeds "
        "that did. Of dense's step: the ratio of generalising steps, their geometric mean. "
        "Delay: over the seeds that memorised."
    )
    return Table(caption, head, tuple(rows), note)


def _down(found: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Rows by density, densest first: a record's file has them by the letters of their names."""
    return sorted(found.items(), key=lambda row: -float(row[0]))


def _early(record: Record, found: Mapping[str, Any]) -> list[bool]:
    """Of each seed, whether it had arrived by the first evaluation: at a step that nobody saw."""
    return [step == record.task.every for step in found["steps"]]


def _by_seed(
    record: Record, found: Mapping[str, Any] | None, sign: str, bounds: Sequence[bool]
) -> str:
    """A mean step with the seeds that arrived; each seed's own where there are too few to sum up.

    Nobody arrived: more than the least at which a run ended; some did: at least the mean.

    Args:
        sign: "≤ " or "≥ ", of steps that are bounds themselves.
        bounds: which of them are, in the order of the seeds.
    """
    if found is None:
        return NA
    reached, n, arrived = found["reached"], found["n"], found["steps"]
    last = found.get("values") or [record.task.steps] * n
    if n < metrics.MIN_SEEDS:
        pairs = zip(arrived, last, strict=True)
        return " / ".join(
            f"> {number(end, 0)}" if step is None else f"{sign if bound else ''}{number(step, 0)}"
            for (step, end), bound in zip(pairs, bounds, strict=True)
        )
    if not reached:
        return f"> {number(min(last), 0)} (0/{n})"
    bound, cut = sign if any(bounds) else "", "≥ " if reached < n else ""
    mark = "≈ " if {bound, cut} == {"≤ ", "≥ "} else bound or cut
    return f"{mark}{number(found['mean'], 0)} ({reached}/{n})"


def _grokked_later(row: Mapping[str, Any], dense: Mapping[str, Any] | None) -> str:
    """Generalising step of a ticket over dense's; marked where runs were cut off at T."""
    ours = row["generalised"]
    theirs = dense["generalised"] if dense else ours
    if not ours["reached"] and not theirs["reached"]:
        return NA
    cut = ours["reached"] < ours["n"], theirs["reached"] < theirs["n"]
    mark = {(True, False): "≥ ", (False, True): "≤ ", (True, True): "≈ "}.get(cut, "")
    return mark + ratio(ours["log2_difference"])


def ratio(found: Mapping[str, Any]) -> str:
    """A difference of log2 steps as the ratio of the steps, with its interval."""
    ends = {
        key: None if found[key] is None else 2.0 ** found[key] for key in ("mean", "low", "high")
    }
    return f"{number(ends['mean'] or 0.0, 2)} {interval(ends, 2)}".rstrip()


def _steps(record: Record, found: Mapping[str, Any]) -> Table:
    rows = [
        (percent(float(density)), *((NA, NA) if row is None else (_arrival(row), _later(row))))
        for density, row in _down(found)
    ]
    head = ("density, %", "steps to match", "−\u00a0dense, steps")
    note = (
        f"Restricted means: T = {record.task.steps:,} where a seed never did; in brackets the "
        "seeds that did. Steps count from the initial weights."
    )
    return Table("Steps until dense's level, less the margin, is held", head, tuple(rows), note)


def _compressed(record: Record, found: Mapping[str, Any]) -> Table:
    def schedule(divisor: int | None) -> str:
        if divisor is None:
            return "none"
        steps = f"{record.task.steps // divisor:,}"
        return f"T = {steps} steps" if divisor == 1 else f"T/{divisor} = {steps} steps"

    names = [name for name in ("ticket", "dense", "reinit") if name in found]
    rows = tuple((name, schedule(found[name])) for name in names)
    rung = percent(found["density"])
    caption = f"Shortest whole schedule that still matches dense at T, at {rung} % density"
    return Table(caption, ("network", "schedule"), rows)


# Text


def terminal(record: Record, width: int = WIDTH) -> str:
    """What `lthbench evaluate` prints; characters that every code page of a terminal has."""
    good, dense, controls, cost = answers(record)
    # One control more would not fit beside the others; its gap stands in the table of gaps.
    first, *others = _scored(record, [kind for kind in CONTROLS if kind != "reinit-signs"])
    lines = [title(record), ""]
    lines += [_line(answer, width) for answer in (good, dense, controls)]
    lines += ["", _text(first, width), ""]
    lines += [_text(table, width) + "\n" for table in others]
    lines += [_line(cost, width)]
    lines += [_hung(remark.name, remark.text, width) for remark in _short(remarks(record))]
    return "\n".join(lines).translate(TERMINAL) + "\n"


TERMINAL = str.maketrans({"−": "-", "…": "...", "\u00a0": " ", "≈": "~"})
WIDER = str.maketrans({"≥": ">=", "≤": "<="})  # replaced before lines are broken
UNBREAKABLE = re.compile(r"(?<=\d) %")
HANG = 18
PADDING = 2  # that tabulate adds to a column's head


def _line(answer: Answer, width: int) -> str:
    figure = f"{answer.name} {answer.value} {answer.spread}".strip()
    return _hung(answer.question, "; ".join((figure, *answer.notes)), width)


def _hung(name: str, text: str, width: int) -> str:
    return wrapped(text, max(width, HANG + 20), f"{name:<{HANG}}", " " * HANG)


def wrapped(text: str, width: int, first: str = "", others: str = "") -> str:
    """Text on lines of a width; a number stays with its percent sign."""
    return textwrap.fill(
        UNBREAKABLE.sub("\u00a0%", text),
        width,
        initial_indent=first,
        subsequent_indent=others,
        break_on_hyphens=False,
    )


def _short(found: Sequence[Remark]) -> list[Remark]:
    """Remarks with no more failures than a reader takes in."""
    failed = [remark for remark in found if remark.name == "Failed"]
    kept = [remark for remark in found if remark.name != "Failed"] + failed[:LISTED]
    if len(failed) > LISTED:
        more = f"{len(failed) - LISTED} more; report.html lists them all"
        kept.append(Remark("", more, warns=True))
    return kept


def _text(table: Table, width: int) -> str:
    """Caption, grid and note; a grid that is too wide goes on below, its first column repeated."""
    rows = tuple(tuple(text.translate(WIDER) for text in row) for row in table.rows)
    table = replace(table, rows=rows, note=table.note.translate(WIDER))
    parts = [wrapped(table.caption, width)]
    parts += [_grid(table.head, table.rows, columns) for columns in _fitting(table, width)]
    parts += [wrapped(table.note, width)] if table.note else []
    return "\n".join(parts)


def _fitting(table: Table, width: int) -> list[list[int]]:
    """Which columns go side by side; each group starts with the first."""
    widths = []
    for column, head in enumerate(table.head):
        heads = [len(line) + PADDING for line in stacked(head).split("\n")]
        widths.append(max(*heads, *(len(row[column]) for row in table.rows)))
    groups, used = [[0]], widths[0]
    for column in range(1, len(widths)):
        if used + 2 + widths[column] > width and len(groups[-1]) > 1:
            groups.append([0])
            used = widths[0]
        groups[-1].append(column)
        used += 2 + widths[column]
    return groups


def stacked(head: str) -> str:
    """A column's head on the two lines that take least room."""
    words = head.split(" ")
    if len(head) <= 8 or len(words) == 1:
        return head
    cuts = [(" ".join(words[:i]), " ".join(words[i:])) for i in range(1, len(words))]
    return "\n".join(min(cuts, key=lambda lines: max(map(len, lines))))


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]], columns: Sequence[int]) -> str:
    from tabulate import tabulate

    return tabulate(
        [[row[column] for column in columns] for row in rows],
        [stacked(head[column]) for column in columns],
        tablefmt="simple",
        disable_numparse=True,
        colalign=["right"] * len(columns),
    )


# Markdown


def markdown(record: Record) -> str:
    """The whole record as Markdown with tables as GitHub and pandoc read them."""
    blocks = [f"## {md(title(record))}"]
    lines = [
        f"- **{answer.question}:** {md(f'{answer.name} {answer.value} {answer.spread}'.strip())}"
        + "".join(f"; {md(note)}" for note in answer.notes)
        for answer in answers(record)
    ]
    blocks.append("\n".join(lines))
    for table in tables(record):
        blocks.append(f"**{md(table.caption)}**")
        blocks.append(_formatted(table, "pipe", md, md))
        blocks += [md(table.note)] if table.note else []
    blocks.append("\n".join(f"- {r.name}: {md(r.text)}" for r in remarks(record)))
    return "\n\n".join(blocks) + "\n"


def md(text: str) -> str:
    """Text that Markdown shows as it is."""
    escaped = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    for mark in "\\`*_[]|~#$":
        escaped = escaped.replace(mark, f"\\{mark}")
    return escaped


def _formatted(table: Table, form: str, cell: Escape, head: Escape) -> str:
    from tabulate import tabulate

    return tabulate(
        [[cell(text) for text in row] for row in table.rows],
        [head(text) for text in table.head],
        tablefmt=form,
        disable_numparse=True,
        colalign=["right"] * len(table.head),
    )


# LaTeX

LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$",
    "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''",
    "−": "$-$", "\u00a0": "~", "±": r"$\pm$", "–": "--", "…": r"\ldots{}",
    "≥": r"$\geq$", "≤": r"$\leq$", "≈": r"$\approx$",
}  # fmt: skip
COMMENT = {
    "−": "-", "\u00a0": " ", "±": "+-", "–": "-", "…": "...", "≥": ">=", "≤": "<=", "≈": "~",
}  # fmt: skip
OVERLAY = 1  # the combining class of strokes: without its stroke ≠ would say =


def latex(record: Record) -> str:
    """The tables of a paper's appendix: one `table` with plain `tabular`s, no package needed."""
    parts = [
        f"% {only_ascii(title(record))}; method {record.method.digest[:12]}",
        r"\begin{table}[p]",
        r"\centering",
        r"\scriptsize",
        r"\setlength{\tabcolsep}{3pt}",
        rf"\caption{{{tex(_caption(record))}}}",
        rf"\label{{tab:{_label(record)}}}",
    ]
    for table in tables(record):
        parts += [r"\par\medskip", tex(table.caption) + r".\par\smallskip"]
        parts.append(_formatted(table, "latex_raw", tex, _tex_head))
        parts += [r"\par\smallskip " + tex(table.note)] if table.note else []
    return "\n".join([*parts, r"\end{table}"]) + "\n"


def _caption(record: Record) -> str:
    sentences = [title(record) + "."]
    for answer in answers(record):
        figure = f"{answer.name} {answer.value} {answer.spread}".strip()
        sentences.append(f"{answer.question}: {'; '.join((figure, *answer.notes))}.")
    kept = [r for r in _short(remarks(record)) if r.warns or r.name == "Seeds"]
    sentences += [f"{r.name}: {r.text}." for r in kept]
    return " ".join(sentences)


def _label(record: Record) -> str:
    """A name that LaTeX takes in \\label: letters, digits and hyphens."""
    name = f"{record.method.name}-{record.task.name}"
    return "".join(c if c.isascii() and c.isalnum() else "-" for c in name)


def _tex_head(head: str) -> str:
    lines = stacked(head).split("\n")
    return r"\shortstack[r]{" + r"\\".join(tex(line) for line in lines) + "}"


def tex(text: str) -> str:
    """Text that a plain LaTeX font shows, in which nothing acts, normalised or not."""
    return _in_ascii(text, LATEX)


def only_ascii(text: str) -> str:
    """Text of a line of comment."""
    return _in_ascii(text, COMMENT)


def _in_ascii(text: str, written: Mapping[str, str]) -> str:
    """Text in ASCII, with what `written` has for a character or for what it is made of."""
    return "".join(_letter(c, written) for c in unicodedata.normalize("NFC", text))


def _letter(character: str, written: Mapping[str, str]) -> str:
    """A character without its accents, in its plain form; by its number where it has none."""
    if character in written:
        return written[character]
    if character.isspace():
        return " "
    parts = unicodedata.normalize("NFKD", character)
    bare = "".join(c for c in parts if unicodedata.combining(c) <= OVERLAY)
    if not (bare.isascii() and bare.isprintable() and bare):
        bare = visible_text.number(character)
    return "".join(written.get(c, c) for c in bare)
