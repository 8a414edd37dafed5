"""The cells of an experiment: how each is trained, and what a record says of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lthbench.errors import MethodError, RecordError
from lthbench.evaluation.search.session import Search
from lthbench.evaluation.starts import Given, Thetas, masks_of, reinit_start, theta
from lthbench.io import store
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol import design
from lthbench.protocol.constants import LAST, REINITS, SUBJECTS, TICKETS, UNTRAINED
from lthbench.protocol.design import Found, Place, Plan
from lthbench.protocol.task import Task
from lthbench.records.aggregate import division
from lthbench.records.schema import Carried, Cell, FailedDraw
from lthbench.tickets import masks, ticket_files
from lthbench.tickets.controls import RULES
from lthbench.tickets.sketch import sketch
from lthbench.training.batch_norm import BATCHES
from lthbench.training.dispatch import HERE, VERSIONS, Means, engine_for
from lthbench.training.executors.local import Executor
from lthbench.training.job import Examples, Job, Result

ORDER = ("score/data",)
MEASURES = 2  # increased when more is kept of a scored run: earlier ones are trained again


@dataclass(frozen=True)
class Entry:
    """A planned cell: its place, its training, and where its weights come from.

    Attributes:
        attempt: how often it was drawn before.
        failed: those draws, whose trainings diverged.
    """

    place: Place
    job: Job
    masks: str | None  # digest
    origin: str
    source: str = ""
    attempt: int = 0
    failed: tuple[FailedDraw, ...] = ()

    @property
    def kind(self) -> str:
        """The kind of cell."""
        return self.place.kind

    @property
    def density(self) -> float:
        """The density of its rung."""
        return self.place.density

    @property
    def given(self) -> Given:
        """The network that is trained."""
        return Given(self.job.masks, self.job.start, self.origin, self.source)

    @property
    def draws(self) -> tuple[FailedDraw, ...]:
        """Every draw so far, this one included."""
        return *self.failed, FailedDraw(masks=str(self.masks), weights=self.job.start.digest)


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


def untrained(searches: Sequence[Search]) -> bool:
    """Return whether tickets are scored as they are: at every seed of a method, or at none."""
    kinds = {rung.trained: search.seed for search in searches for rung in search.rungs}
    if len(kinds) > 1:
        raise MethodError(
            f"trained tickets at seed {kinds[True]}, untrained ones at seed {kinds[False]}; "
            "a method yields one kind"
        )
    return False in kinds


def densities(search: Search) -> list[float]:
    """Return the rungs that a search found."""
    return [rung.density for rung in search.rungs]


def read_given(task: Task, folder: Path, seed: int, density: float) -> Given:
    """Read a ticket from the folder of an evaluation of its task."""
    return given_in(folder / "tickets" / f"seed{seed}", task, seed, density)


def given_in(held: Path, task: Task, seed: int, density: float) -> Given:
    """Read a ticket from a folder of its seed's tickets; without weights it is at theta_0."""
    header, chosen, stored = ticket_files.read_ticket(held, density)
    start = State(stored, header["start"]) if stored else theta(task, seed)
    return Given(chosen, start, header["origin"])


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
    stand, thetas = untrained(searches), Thetas(task, executor, seen.means)
    for search in searches:
        tickets = {d: read_given(task, folder, search.seed, d) for d in densities(search)}
        found = {d: Found(given.origin, given.start.step) for d, given in tickets.items()}
        for place in design.cells(task, plan, search.seed, found, untrained=stand):
            ticket = tickets.get(place.density)
            if ticket is None and place.kind in TICKETS:
                continue
            if entry := await build(task, place, ticket, seen, thetas):
                entries.append(entry)
    return entries


async def build(
    task: Task, place: Place, ticket: Given | None, seen: Seen, thetas: Thetas, attempt: int = 0
) -> Entry | None:
    """Build one cell from the seed, and from its ticket if it has one.

    Returns:
        None for a control that begins with another seed's theta_k, if that run diverged.
    """
    kind, density, seed, _ = place
    if kind == "dense":
        return entry_of(task, place, Given(None, theta(task, seed)), seen, attempt)
    own = None if ticket is None else ticket.masks
    chosen = masks_of(task, kind, density, seed, own, attempt)
    if ticket is None or kind in RULES:
        return entry_of(task, place, Given(chosen, theta(task, seed)), seen, attempt)
    start: State | None = ticket.start
    if kind in REINITS:
        start = await reinit_start(task, kind, seed, ticket, thetas, attempt)
    if start is None:
        return None
    return entry_of(task, place, replace(ticket, masks=chosen, start=start), seen, attempt)


def entry_of(task: Task, place: Place, given: Given, seen: Seen, attempt: int = 0) -> Entry:
    """Build one cell of a given network: its training on the scoring stream."""
    kind, _, seed, schedule = place
    recipe = task.recipe.compressed(schedule) if schedule > 1 else task.recipe
    norm_batches = BATCHES if kind in UNTRAINED else 0
    by = engine_for(seen.means, task.network)
    start, depth = given.start, task.network.depth
    until = start.step if kind in UNTRAINED else recipe.steps
    masked = None if given.masks is None else masks.digest(given.masks)
    key = store.key(
        data_and_network=task.training_digest,
        recipe=recipe.canonical(),
        depth=depth,
        seed=seed,
        start=start.digest,
        masks=masked,
        until=until,
        order=list(ORDER),
        counted=[sorted(seen.sets[seed]), len(task.grid)],
        measures=MEASURES,
        engine=VERSIONS[by],
        device=seen.means.kind,
        **({"norm_batches": norm_batches} if norm_batches else {}),
    )
    network, chosen = task.network, given.masks
    job = Job(network, depth, start, chosen, recipe, until, seed, ORDER, key, norm_batches, by)
    return Entry(place, job, masked, given.origin, given.source, attempt)


async def draw_again(
    task: Task, entry: Entry, ticket: Given | None, seen: Seen, thetas: Thetas
) -> Entry | None:
    """Return the same control from its next draw; None if there is none, as for a dense run."""
    if entry.kind not in (*RULES, *REINITS, "shuffled"):
        return None
    attempt = entry.attempt + 1
    anew = await build(task, entry.place, ticket, seen, thetas, attempt)
    if anew is None:
        return None
    key = store.key(again=entry.job.key, attempt=attempt)
    return replace(anew, job=replace(anew.job, key=key))


def cell_of(entry: Entry, result: Result, seen: Seen) -> Cell:
    """Return a cell of the record."""
    return Cell.model_validate(_told(entry, result, seen))


def carried_of(entry: Entry, result: Result, seen: Seen) -> Carried:
    """Return a cell of the record at another depth."""
    told = _told(entry, result, seen)
    return Carried.model_validate({**told, "depth": entry.job.depth, "source": entry.source})


def _told(entry: Entry, result: Result, seen: Seen) -> dict[str, object]:
    """Return the facts of a run, as `records.schema.Run` checks them."""
    job, (kind, density, seed, schedule) = entry.job, entry.place
    total = families.prunable_weights(job.network, job.depth)
    forward = families.sparse_flops(job.network, job.depth, job.masks or {})
    steps = job.until - job.start.step
    examples = job.recipe.batch_size(len(seen.train[seed].y)) * steps
    counts = {part: [int(c) for c in values] for part, values in result.correct.items()}
    return {
        "seed": seed,
        "kind": kind,
        "density": density,
        "schedule": schedule,
        "requested": round(density * total),
        "kept": total if job.masks is None else masks.kept(job.masks),
        "flops_inference": forward,
        "flops_training": 3 * forward * examples,
        "distance": None if result.distance is None else float(f"{result.distance:.6g}"),
        "masks": entry.masks,
        "weights": job.start.digest,
        "origin": entry.origin,
        "start": job.start.step,
        "division": division(entry.source or entry.origin, job.start.step),
        "correct": kept_counts(counts, kind, schedule),
        "status": result.status,
        "reason": result.reason[:400],
        "attempt": entry.attempt,
        "failed_draws": entry.failed,
        **_of_its_masks(entry),
    }


def _of_its_masks(entry: Entry) -> dict[str, object]:
    """Return what a record says of a ticket's own masks, and of those of a shuffled one."""
    job, chosen = entry.job, entry.job.masks
    if chosen is None:
        return {}
    if entry.kind == "shuffled":
        same = [name for name, mask in chosen.items() if int(mask.sum()) in (0, mask.numel())]
        return {"own_shuffle": sorted(same)}
    if entry.kind not in TICKETS or entry.place.schedule > 1:
        return {}
    alive = families.effective(job.network, job.depth, dict(chosen))
    own = {name: mask.numpy() for name, mask in chosen.items()}
    return {
        "effective": masks.kept(alive),
        "effective_nodes": families.effective_nodes(alive),
        "layers": masks.counts(chosen),
        "sketch": sketch(own) if entry.kind == "ticket" else None,
    }


def kept_counts(
    counts: Mapping[str, list[int]], kind: str, schedule: int = 1
) -> dict[str, list[int]]:
    """Select what a record keeps, under 300 kB: whole curves where a score needs them.

    The training curve of dense runs and tickets shows when they memorised. The reference also needs
    the held-out curves of erk and direct tickets. A compressed run is judged by its end alone.
    """
    if schedule > 1:
        return {part: curve[-1:] for part, curve in counts.items()}
    subject = kind in SUBJECTS
    kept = {p: curve if subject or p != "train" else curve[-1:] for p, curve in counts.items()}
    if "test" in kept and not subject and kind not in ("erk", "direct"):
        kept["held_out"] = kept["held_out"][-LAST:]
    return kept


def missing_cells(task: Task, searches: Sequence[Search]) -> list[Cell]:
    """Return a cell with its reason for every rung that a search did not yield (score: chance)."""
    stand = untrained(searches)
    ladder = task.ladder.untrained if stand else task.ladder.trained
    return [
        Cell.model_validate(missing(task, place, why_missing(search)))
        for search in searches
        for place in design.ticket_cells(ladder, [search.seed], untrained=stand)
        if place.density not in densities(search)
    ]


def why_missing(search: Search) -> str:
    """Return why a rung has no ticket."""
    return search.reason or "find_tickets did not yield this rung"


def missing(task: Task, place: Place, why: str) -> dict[str, object]:
    """Return the facts of a ticket that does not exist."""
    return {
        "seed": place.seed,
        "kind": place.kind,
        "density": place.density,
        "requested": round(place.density * weights_total(task)),
        "kept": 0,
        "weights": theta(task, place.seed).digest,
        "correct": {},
        "status": "missing",
        "reason": why[:400],
    }


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
