"""What the evaluation of one task came to, and the record and answers that are written of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lthbench.evaluation import cells
from lthbench.evaluation.arrivals import Judged
from lthbench.evaluation.layout import StoredRun
from lthbench.evaluation.machine import environment
from lthbench.evaluation.scoring import Scored
from lthbench.evaluation.search.session import Search
from lthbench.evaluation.transfer import Transferred
from lthbench.method.source import Method
from lthbench.protocol.design import Part
from lthbench.records.reference import Reference
from lthbench.records.schema import Record, TaskEntry, build
from lthbench.training.dispatch import VERSIONS, engine_for


@dataclass(frozen=True)
class Times:
    """Seconds of the stages of one task's evaluation."""

    find_seconds: float
    score_seconds: float
    transfer_seconds: float


@dataclass(frozen=True)
class Outcome:
    """The searches of one task, and all that was scored of their tickets."""

    searches: tuple[Search, ...]
    scored: Scored
    judged: Judged
    transferred: Transferred | None
    seen: cells.Seen
    times: Times


def answered_runs(outcome: Outcome) -> Iterator[StoredRun]:
    """Yield the runs with stored answers, which cells of the frozen reference are not."""
    for cell in outcome.scored.cells:
        if key := outcome.scored.keys.get(cell.place):
            yield StoredRun("cells", *cell.place, key)
    moved = outcome.transferred
    for run in moved.entry.cells if moved else ():
        if moved and (key := moved.keys.get(run.place)):
            yield StoredRun("carried", run.kind, run.density, run.seed, run.depth, key)


def record_of(method: Method, part: Part, outcome: Outcome, frozen: Reference | None) -> Record:
    """Return the record, with its scores."""
    task, plan, searches = part.task, part.plan, outcome.searches
    entry = TaskEntry.of(task, cells.weights_total(task), untrained=cells.untrained(searches))
    means, moved = outcome.seen.means, outcome.transferred
    seconds = sum(search.seconds for search in searches)
    return build({
        "method": {
            "name": method.name,
            "digest": method.digest,
            "options": dict(method.options),
            "described": dict(method.described),
        },
        "task": entry.model_dump(mode="json"),
        "final": plan.final,
        "shown": plan.shown,
        "seeds": list(part.seeds),
        "controls": plan.controls,
        "fingerprints": cells.fingerprints(task),
        "sizes": outcome.seen.sizes(),
        "cells": [cell.model_dump(mode="json") for cell in outcome.judged.cells],
        "searches": [search.entry() for search in searches],
        "arrivals": [one.model_dump(mode="json") for one in outcome.judged.arrivals or ()] or None,
        "transfer": moved.entry.model_dump(mode="json") if moved else None,
        "reference": frozen.frozen(plan.shown).model_dump(mode="json") if frozen else None,
        "environment": environment(means) | {"engine": VERSIONS[engine_for(means, task.network)]},
        "times": {**vars(outcome.times), "search_seconds": seconds},
    })  # fmt: skip
