"""The questions that a record answers, each with a figure and a sentence."""

from __future__ import annotations

from dataclasses import dataclass

from lthbench.records import intervals
from lthbench.records.schema import Record
from lthbench.records.scores import AboveErk, Rung, UntrainedRung
from lthbench.report.formats import (
    NA,
    _cost_digits,
    cost_text,
    decimals,
    difference,
    estimate,
    gap,
    is_area,
    measure,
    number,
    percent,
    probability,
    score,
)
from lthbench.report.terms import is_untrained, matching_available, set_of


@dataclass(frozen=True)
class Answer:
    """One question of a reader, its figure, and its qualification."""

    question: str
    name: str
    value: str
    spread: str
    notes: tuple[str, ...]


def answers(record: Record) -> tuple[Answer, ...]:
    """Answer how good the ticket is, against dense, against controls, and at what cost."""
    if is_untrained(record):
        return (*_as_it_stands(record), _cost(record))
    return _how_good(record), _against_dense(record), _against_controls(record), _cost(record)


def _sparsest(record: Record) -> Rung | None:
    """Return the sparsest rung with a ticket."""
    rungs = [rung for rung in record.scores.rungs if rung.ticket is not None]
    return rungs[-1] if rungs else None


def _how_good(record: Record) -> Answer:
    question, headline = "How good", record.scores.headline
    if headline is None:
        return _at_sparsest(record, question)
    notes = []
    if record.scores.loss is not None:
        loss = estimate(record.scores.loss, 2, 1, brackets=True)
        notes.append(f"loss L {loss} points against dense over the ladder")
    found = headline.found
    if not isinstance(found, AboveErk):
        notes.append("1 is lossless, 0 no better than random pruning")
        value, spread = _split(estimate(found, 2, 1, brackets=True), "")
        return Answer(question, "retention", value, spread.strip(), tuple(notes))
    some = len(found.densities) < len(record.task.ladder)
    over = ", ".join(percent(d) for d in found.densities)
    notes.insert(0, f"mean over {f'the rungs at {over} %' if some else 'the ladder'}")
    text = estimate(found, decimals(record), 1, signed=True, brackets=True)
    return Answer(question, "ticket − erk", *_split(text, "points"), tuple(notes))


def _at_sparsest(record: Record, question: str) -> Answer:
    """Answer with the score at the sparsest rung, if nothing else compares with the ladder."""
    rung = _sparsest(record)
    if rung is None:
        return Answer(question, "score", NA, "", ("no ticket",))
    value, spread = _split(score(record, rung.ticket), f"% {measure(record)}, {set_of(record)}")
    why = "there is neither a frozen reference nor an erk control to set the ladder against"
    return Answer(question, _at(rung), value, spread, (why,))


def _at(rung: Rung | UntrainedRung) -> str:
    return f"at {percent(rung.density)} % density"


def _split(text: str, what: str) -> tuple[str, str]:
    """Split off the interval or the number of seeds, and add what it counts."""
    for mark in (" ±", " [", " ("):
        if mark in text:
            value, _, spread = text.partition(mark)
            return value, f"{mark.strip()}{spread} {what}"
    return text, what


def _against_dense(record: Record) -> Answer:
    question, dense = "Against dense", record.scores.dense
    level = f"dense {score(record, dense)} %"
    why, rung = matching_available(record), _sparsest(record)
    if why or rung is None:
        notes = (f"matching density n/a: {why or 'no ticket'}", level)
        if rung is None or rung.difference is None:
            return Answer(question, "matches dense down to", NA, "", notes)
        text = difference(record, rung.difference)
        return Answer(question, _at(rung), *_split(text, "points from dense"), notes)
    matching = record.scores.matching
    proved, open_to = (
        "no rung" if density is None else f"{percent(density)} %"
        for density in (matching.proved, matching.not_refuted)
    )
    assert record.reference is not None
    margin = number(100 * record.reference.margin, 2)
    notes = (f"{open_to} not refuted (margin {margin} points)", level)
    told = "proved" if matching.proved is None else "density, proved"
    return Answer(question, "matches dense down to", proved, told, notes)


def _against_controls(record: Record) -> Answer:
    question = "Against controls"
    rungs = [
        rung
        for rung in record.scores.rungs
        if rung.gap_shuffled is not None or rung.gap_reinit is not None
    ]
    if not rungs:
        return Answer(question, "identity matters", NA, "", ("no control was scored",))
    judged = [rung for rung in rungs if rung.identity_matters is not None]
    yes = [rung for rung in judged if rung.identity_matters]
    above = _gaps(record, (yes or rungs)[-1])
    if not judged:
        return _undecided(record, question, rungs[-1])
    figure, of = f"{len(yes)} of {len(judged)}", "rung" if len(judged) == 1 else "rungs"
    note = f"sparsest of them: {above}" if len(yes) > 1 else above
    return Answer(question, "identity matters on", figure, of, (note,))


def _undecided(record: Record, question: str, rung: Rung) -> Answer:
    """Report the gaps of a record with too few seeds, or controls, for a verdict."""
    few = len(record.seeds) < intervals.MIN_SEEDS
    why = f"needs {intervals.MIN_SEEDS} seeds" if few else "a control is not available"
    value, spread = _split(gap(record, rung, "shuffled"), "points, ticket − shuffled")
    reinit = f"ticket − reinit {gap(record, rung, 'reinit')} points"
    notes = (reinit, f"whether identity matters: n/a, {why}")
    return Answer(question, _at(rung), value, spread, notes)


def _gaps(record: Record, rung: Rung) -> str:
    return (
        f"ticket\u00a0−\u00a0shuffled {gap(record, rung, 'shuffled')}, "
        f"ticket\u00a0−\u00a0reinit {gap(record, rung, 'reinit')} points {_at(rung)}"
    )


def _as_it_stands(record: Record) -> tuple[Answer, Answer, Answer]:
    """Answer for untrained tickets: their best rung, and the effect of training on it."""
    found, digits = record.scores.untrained, decimals(record)
    assert found is not None
    best = found.best
    trained = next(rung for rung in record.scores.rungs if rung.density == found.headline)
    chosen = "the rung best on the held-out part"
    if not record.final:
        chosen += ", which is shown here too"
    good = f"% accuracy on the {set_of(record)}, no weight trained"
    area = " area" if is_area(record) else ""
    trains = f"after training {score(record, trained.ticket)} %{area}"
    beyond = f"after training {difference(record, trained.difference)} points{area and ' of'}{area}"
    dense, apart = estimate(best.dense, digits), estimate(best.difference, digits, signed=True)
    above = estimate(best.above_random, digits, signed=True)
    tested = (f"p {probability(best.p)}",) if best.p is not None else ()
    return (
        Answer("How good", _at(best), *_split(estimate(best.ticket, digits), good),
               (chosen, trains)),
        Answer("Against dense", _at(best), *_split(apart, "points from dense, which is trained"),
               (f"dense {dense} %", beyond)),
        Answer("Against controls", _at(best),
               *_split(above, "points above a random mask, both untrained"),
               (*tested, *_after_training(record))),
    )  # fmt: skip


def _after_training(record: Record) -> tuple[str, ...]:
    """Say what the controls of a trained ticket show, on the sparsest rung that has them."""
    rungs = [rung for rung in record.scores.rungs if rung.gap_shuffled is not None]
    return (f"after training {_gaps(record, rungs[-1])}",) if rungs else ()


def _cost(record: Record) -> Answer:
    cost = record.scores.cost
    question, name, what = "At what cost", "a search costs", "dense trainings a seed"
    notes = ("one is T steps of the unmasked network; scoring is free",)
    if cost is None:
        return Answer(question, name, NA, "", ())
    digits = _cost_digits(cost.mean)
    if max(cost.values) - min(cost.values) < 10**-digits / 2:
        return Answer(question, name, cost_text(cost.mean), what, notes)
    return Answer(question, name, *_split(estimate(cost, digits, 1), what), notes)
