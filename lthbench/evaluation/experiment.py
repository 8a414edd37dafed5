"""The cells of an experiment: which exist, where each starts, and what a record says of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lthbench.errors import MethodError, RecordError
from lthbench.evaluation.plan import Plan
from lthbench.evaluation.search.session import Search
from lthbench.evaluation.starts import early, other_seed, reinitialised
from lthbench.io import store
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol.task import Task, controlled
from lthbench.records.aggregate import REINITS, UNTRAINED, division
from lthbench.tickets import controls, masks, ticket_files
from lthbench.tickets.masks import Masks
from lthbench.tickets.sketch import sketch
from lthbench.training.batch_norm import BATCHES
from lthbench.training.dispatch import HERE, VERSIONS, Means, engine_for
from lthbench.training.executors.local import Executor
from lthbench.training.job import Examples, Job, Result

ORDER = ("score/data",)
COMPRESSED = (8, 4, 2)
MEASURES = 2  # increased when more is kept of a scored run: earlier ones are trained again
LAST_COUNTS = 5
Place = tuple[str, float, int, int]  # kind, density, seed, schedule


@dataclass(frozen=True)
class Entry:
    """A planned cell: its training, and what a record says of it besides the counts."""

    job: Job
    kind: str
    density: float
    schedule: int
    table: Mapping[str, Any] = field(default_factory=dict)
    attempt: int = 0
    failed: tuple[Mapping[str, str], ...] = ()  # masks and start weights of earlier draws

    @property
    def place(self) -> Place:
        """Kind, density, seed and schedule: what identifies the cell."""
        return self.kind, self.density, self.job.seed, self.schedule


@dataclass(frozen=True)
class Seen:
    """The examples of every seed for training and evaluation, and what networks are trained on."""

    train: Mapping[int, Examples]
    sets: Mapping[int, Mapping[str, Examples]]
    means: Means = HERE

    def sizes(self) -> dict[str, dict[str, int]]:
        """Return how many examples each set has, by seed."""
        return {str(s): {p: len(e.y) for p, e in sets.items()} for s, sets in self.sets.items()}


def last_of(task: Task) -> tuple[str, ...]:
    """Return the sets that a run is evaluated on only at its end.

    Memorisation times are reported of arithmetic tasks only, the final fit of every task.
    """
    return ("train",) if task.score.kind == "accuracy" else ()


async def planned(
    task: Task,
    searches: Sequence[Search],
    folder: Path,
    executor: Executor,
    plan: Plan,
    seen: Seen,
) -> list[Entry]:
    """List the cells of a task; trains other seeds to step k where a control starts there."""
    entries: list[Entry] = []
    ladder = task.ladder.untrained if untrained(searches) else task.ladder.trained
    for search in searches:
        theta = families.initial(task.network, task.network.depth, search.seed)
        entries.append(entry_of(task, "dense", 1.0, search.seed, theta, None, seen))
        found = {rung.density for rung in search.rungs}
        for density in (d for d in ladder if d in found):
            entries += await _rung(task, search.seed, density, folder, executor, plan, seen)
        if untrained(searches):
            entries += _random_untrained(task, search.seed, theta, seen)
            continue
        entries += unlearned(task, search.seed, theta, plan, seen)
        if plan.compressed and task.score.compressed_density:
            entries += _compressed(task, entries, search.seed, seen)
    return entries


def untrained(searches: Sequence[Search]) -> bool:
    """Return whether tickets are scored as they are: at every seed of a method, or at none."""
    kinds = {rung.trained: search.seed for search in searches for rung in search.rungs}
    if len(kinds) > 1:
        raise MethodError(
            f"trained tickets at seed {kinds[True]}, untrained ones at seed {kinds[False]}; "
            "a method yields one kind"
        )
    return False in kinds


async def _rung(
    task: Task,
    seed: int,
    density: float,
    folder: Path,
    executor: Executor,
    plan: Plan,
    seen: Seen,
) -> list[Entry]:
    """List the ticket of one rung with its shuffled and reinitialised controls."""
    header, chosen, stored = ticket_files.read_ticket(folder / "tickets" / f"seed{seed}", density)
    theta = families.initial(task.network, task.network.depth, seed)
    start = State(stored, header["start"]) if stored else theta
    table = {"origin": header["origin"], "start": header["start"]}
    entries = []
    if not header["trained"]:
        entries.append(
            entry_of(task, "untrained", density, seed, start, chosen, seen, table, until=start.step)
        )
    entries.append(entry_of(task, "ticket", density, seed, start, chosen, seen, table))
    ladder = task.ladder.trained if header["trained"] else task.ladder.untrained
    if density not in controlled(ladder, plan.controls):
        return entries
    shuffled, own = controls.shuffled(chosen, seed)
    entries.append(
        entry_of(
            task, "shuffled", density, seed, start, shuffled, seen, {**table, "own_shuffle": own}
        )
    )
    kinds = REINITS if header["trained"] else REINITS[:1]
    anew = await _reinits(task, kinds, header["origin"], seed, start, chosen, executor, seen, 0)
    for kind, fresh in anew.items():
        entries.append(entry_of(task, kind, density, seed, fresh, chosen, seen, table))
    return entries


async def _reinits(
    task: Task,
    kinds: Sequence[str],
    origin: str,
    seed: int,
    start: State,
    chosen: Masks,
    executor: Executor | None,
    seen: Seen,
    attempt: int,
) -> dict[str, State]:
    """Return the start of each reinitialised control by kind; none for a ticket without any.

    Protocol, section 7.
    """
    if origin == "final":
        return {}
    other: State | None = None
    if origin == "rewind" or (origin == "transferred" and start.step):
        assert executor is not None
        other = await early(task, other_seed(seed, attempt), start.step, executor, seen.means)
        if other is None:
            return {}
    return {
        kind: reinitialised(task, kind, origin, seed, start, chosen, attempt, other)
        for kind in kinds
    }


def _random_untrained(task: Task, seed: int, theta: State, seen: Seen) -> list[Entry]:
    """List random masks at theta_0, scored untrained, on every rung of the untrained ladder."""
    shapes = families.shapes(task.network, task.network.depth)
    ladder = task.ladder.untrained
    drawn = controls.random_masks(shapes, ladder, seed, controls.RULES["untrained_random"])
    return [
        entry_of(task, "untrained_random", density, seed, theta, chosen, seen, until=0)
        for density, chosen in zip(ladder, drawn, strict=True)
    ]


def _compressed(task: Task, entries: Iterable[Entry], seed: int, seen: Seen) -> list[Entry]:
    """List the schedules of T/8, T/4 and T/2 on one rung, for ticket, dense and reinit.

    A rewound ticket enters the schedule at its step k: k counts along the whole lineage.
    """
    wanted = {("dense", 1.0), ("ticket", task.score.compressed_density)}
    wanted.add(("reinit", task.score.compressed_density))
    chosen = [e for e in entries if e.job.seed == seed and (e.kind, e.density) in wanted]
    return [
        entry_of(
            task, e.kind, e.density, seed, e.job.start, e.job.masks, seen, e.table, schedule=factor
        )
        for e in chosen
        for factor in COMPRESSED
        if e.job.start.step < task.recipe.steps // factor
    ]


def entry_of(
    task: Task,
    kind: str,
    density: float,
    seed: int,
    start: State,
    chosen: Masks | None,
    seen: Seen,
    table: Mapping[str, Any] | None = None,
    *,
    schedule: int = 1,
    until: int | None = None,
    attempt: int = 0,
) -> Entry:
    """Build one cell: its training on the scoring stream and the facts about its masks."""
    recipe = task.recipe.compressed(schedule) if schedule > 1 else task.recipe
    norm_batches = BATCHES if kind in UNTRAINED else 0
    by = engine_for(seen.means, task.network)
    until = recipe.steps if until is None else until
    facts = {"origin": "init", "start": 0, "own_shuffle": (), **(table or {})}
    total = families.prunable_weights(task.network, task.network.depth)
    facts |= {"masks": None, "kept": total, "effective": None, "layers": {}, "total": total}
    facts |= {"effective_nodes": None, "sketch": None}
    if chosen is not None:
        facts |= {"masks": masks.digest(chosen), "kept": masks.kept(chosen)}
    if chosen is not None and kind in ("ticket", "untrained") and schedule == 1:
        alive = families.effective(task.network, task.network.depth, dict(chosen))
        facts |= {"effective": masks.kept(alive), "layers": masks.counts(chosen)}
        facts["effective_nodes"] = families.effective_nodes(alive)
        if kind == "ticket":
            facts["sketch"] = sketch({name: mask.numpy() for name, mask in chosen.items()})
    forward = families.sparse_flops(task.network, task.network.depth, chosen or {})
    examples = recipe.batch_size(len(seen.train[seed].y)) * (until - start.step)
    facts |= {"flops_inference": forward, "flops_training": 3 * forward * examples}
    facts["weights"] = start.digest
    key = store.key(
        data_and_network=task.training_digest,
        recipe=recipe.canonical(),
        depth=task.network.depth,
        seed=seed,
        start=facts["weights"],
        masks=facts["masks"],
        until=until,
        order=list(ORDER),
        counted=[sorted(seen.sets[seed]), len(task.grid)],
        measures=MEASURES,
        engine=VERSIONS[by],
        device=seen.means.kind,
        **({"norm_batches": norm_batches} if norm_batches else {}),
    )
    depth = task.network.depth
    job = Job(task.network, depth, start, chosen, recipe, until, seed, ORDER, key, norm_batches, by)
    return Entry(job, kind, density, schedule, facts, attempt)


async def drawn_again(
    task: Task, entry: Entry, starts: Mapping[Place, State], executor: Executor, seen: Seen
) -> Entry | None:
    """Return the same control from its next draw; None if there is none, as for a dense run."""
    attempt, job = entry.attempt + 1, entry.job
    if job.masks is None:
        return None
    start: State | None = job.start
    chosen = job.masks
    if entry.kind == "shuffled":
        chosen, _ = controls.shuffled(chosen, job.seed, attempt=attempt)
    elif rule := controls.RULES.get(entry.kind):
        shapes = families.shapes(task.network, task.network.depth)
        (chosen,) = controls.random_masks(shapes, [entry.density], job.seed, rule, attempt=attempt)
    elif entry.kind in REINITS:
        own = starts["ticket", entry.density, job.seed, 1]
        kind, origin = entry.kind, entry.table["origin"]
        anew = await _reinits(task, (kind,), origin, job.seed, own, chosen, executor, seen, attempt)
        start = anew.get(kind)
    else:
        return None
    if start is None:
        return None
    key = store.key(again=job.key, attempt=attempt)
    facts = {**entry.table, "masks": masks.digest(chosen), "weights": start.digest}
    return replace(
        entry, job=replace(job, start=start, masks=chosen, key=key), table=facts, attempt=attempt
    )


def cell_of(entry: Entry, result: Result) -> dict[str, Any]:
    """Return a cell of the record, with the key of its stored answers under "key"."""
    facts = entry.table
    counts = {part: [int(c) for c in values] for part, values in result.correct.items()}
    return {
        "seed": entry.job.seed,
        "kind": entry.kind,
        "density": entry.density,
        "schedule": entry.schedule,
        "requested": round(entry.density * facts["total"]),
        "kept": facts["kept"],
        "effective": facts["effective"],
        "effective_nodes": facts["effective_nodes"],
        "flops_inference": facts["flops_inference"],
        "flops_training": facts["flops_training"],
        "distance": None if result.distance is None else float(f"{result.distance:.6g}"),
        "layers": facts["layers"],
        "masks": facts["masks"],
        "sketch": facts["sketch"],
        "weights": facts["weights"],
        "origin": facts["origin"],
        "start": facts["start"],
        "division": division(facts.get("source") or facts["origin"], facts["start"]),
        "correct": _kept_counts(counts, entry),
        "status": result.status,
        "reason": result.reason[:400],
        "attempt": entry.attempt,
        "failed_draws": list(entry.failed),
        "own_shuffle": list(facts["own_shuffle"]),
        "key": entry.job.key,
    }


def _kept_counts(counts: dict[str, list[int]], entry: Entry) -> dict[str, list[int]]:
    """Select what a record keeps, under 300 kB: whole curves where a score needs them.

    The training curve of dense runs and tickets shows when they memorised. The reference also needs
    the held-out curves of erk and direct tickets. A compressed run is judged by its end alone.
    """
    if entry.schedule > 1:
        return {part: curve[-1:] for part, curve in counts.items()}
    subject = entry.kind in ("dense", "ticket", "untrained")
    kept = {p: curve if subject or p != "train" else curve[-1:] for p, curve in counts.items()}
    if "test" in kept and not subject and entry.kind not in ("erk", "direct"):
        kept["held_out"] = kept["held_out"][-LAST_COUNTS:]
    return kept


def _missing(
    task: Task, searches: Sequence[Search], cells: Mapping[Place, Any]
) -> dict[Place, dict[str, Any]]:
    """Return a cell with its reason for every rung that a search did not yield (score: chance)."""
    as_they_stand = untrained(searches)
    ladder = task.ladder.untrained if as_they_stand else task.ladder.trained
    missing = {}
    for search in searches:
        why = search.reason or "find_tickets did not yield this rung"
        for kind in ("ticket", "untrained") if as_they_stand else ("ticket",):
            for density in ladder:
                place = (kind, density, search.seed, 1)
                if place not in cells:
                    missing[place] = missing_cell(task, kind, density, search.seed, why)
    return missing


def missing_cell(task: Task, kind: str, density: float, seed: int, why: str) -> dict[str, Any]:
    """Return the cell of a ticket that does not exist."""
    theta = families.initial(task.network, task.network.depth, seed)
    return {
        "seed": seed, "kind": kind, "density": density, "schedule": 1,
        "requested": round(density * weights_total(task)), "kept": 0, "effective": None,
        "effective_nodes": None, "flops_inference": None, "flops_training": None, "distance": None,
        "layers": {}, "masks": None, "weights": theta.digest, "origin": "init", "start": 0,
        "division": "init", "correct": {}, "status": "missing", "reason": why[:400],
        "attempt": 0, "own_shuffle": [],
    }  # fmt: skip


def _cell_order(item: tuple[Place, Any]) -> tuple[int, float, str, int]:
    (kind, density, seed, schedule), _ = item
    return seed, -density, kind, schedule


def fingerprints(task: Task) -> dict[str, str]:
    """Return the data's fingerprints for the record, or the generator's key for generated data."""
    if task.data.fingerprints:
        return dict(task.data.fingerprints)
    return {"generated": store.key(data=task.data.canonical())}


def weights_total(task: Task) -> int:
    """Return N, the number of prunable weights."""
    total = families.prunable_weights(task.network, task.network.depth)
    if not total:
        raise RecordError(f"{task.name}: no prunable weights")
    return total


def unlearned(task: Task, seed: int, theta: State, plan: Plan, seen: Seen) -> list[Entry]:
    """List the random and ERK controls of every controlled rung: masks without any learning."""
    shapes = families.shapes(task.network, task.network.depth)
    rungs = controlled(task.ladder.trained, plan.controls)
    entries = []
    for kind in ("random", "erk"):
        ladder = controls.random_masks(shapes, task.ladder.trained, seed, controls.RULES[kind])
        for density, chosen in zip(task.ladder.trained, ladder, strict=True):
            if density in rungs:
                entries.append(entry_of(task, kind, density, seed, theta, chosen, seen))
    return entries
