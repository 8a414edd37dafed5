"""What is trained to score a ticket: which cells, on which stream, on which examples.

Tickets are found in this process; most runs are only planned, or end as a test wants them to.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import torch

from lthbench.errors import DataError
from lthbench.evaluation import cells as experiment
from lthbench.evaluation import scoring, trainings
from lthbench.evaluation.cells import ORDER, Entry, Seen, planned
from lthbench.evaluation.scoring import see
from lthbench.evaluation.search.session import Search
from lthbench.evaluation.starts import Thetas
from lthbench.method.source import load_method
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol import datasets, test_split
from lthbench.protocol.constants import COMPRESSED, DRAWS, LAST, REINITS
from lthbench.protocol.design import Plan
from lthbench.protocol.task import Task, load_task
from lthbench.records.schema import Cell
from lthbench.tickets import masks
from lthbench.training.batches import batches
from lthbench.training.executors.local import Here
from lthbench.training.job import Evaluation, Examples, Job, Result
from tests.scoring import score_of
from tests.searching import ROOT, search

SEED = 1000
ALL, ONE = Plan(compressed=False), Plan(controls="one rung", compressed=False)
KINDS = ("ticket", "shuffled", "reinit", "reinit-signs", "random", "erk")
ORIGINS = (
    "import torch\n"
    "from lthbench import Ticket, keep_top\n"
    "def find_tickets(problem, *, origin: str = 'init'):\n"
    "    theta = problem.theta()\n"
    "    scores = {n: theta[n].abs() for n in problem.prunable}\n"
    "    if origin == 'rewind':\n"
    "        problem.theta(problem.rewind_limit)\n"
    "    if origin == 'final':\n"
    "        theta = problem.train()\n"
    "    weights = {n: theta[n] for n in theta}\n"
    "    for n in problem.prunable:\n"
    "        if origin == 'signs':\n"
    "            weights[n] = 0.1 * weights[n].sign()\n"
    "        if origin == 'free':\n"
    "            weights[n] = 2 * weights[n]\n"
    "    own = None if origin in ('init', 'rewind') else weights\n"
    "    start = problem.rewind_limit if origin == 'rewind' else 0\n"
    "    for density in problem.densities:\n"
    "        yield Ticket(keep_top(scores, density), start, own)\n"
)


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LTHBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def digits(_own_cache: None) -> Task:
    task = load_task(str(ROOT / "tests/tasks/tiny-digits.toml"))
    datasets.prepare(task, download=False)
    return task


@pytest.fixture(scope="module")
def sums() -> Task:
    return load_task(str(ROOT / "tests/tasks/tiny-modadd.toml"))


@dataclass
class Told(Here):
    """Trains nothing: a run ends with one right answer at every evaluation, or as it is told."""

    fails: Callable[[Job], bool] = lambda job: False
    jobs: list[Job] = field(default_factory=list)

    async def results(
        self, jobs: Sequence[Job], data: Mapping[int, Examples], evaluation: Evaluation | None
    ) -> AsyncIterator[tuple[str, Result]]:
        for job in jobs:
            self.jobs.append(job)
            if self.fails(job):
                yield job.key, Result(None, status="diverged", reason="as it was told")
                continue
            sets = evaluation.sets[job.seed] if evaluation else {}
            counts: dict[str, int] = Counter()
            for due in evaluation.due(job).values() if evaluation else ():
                counts.update(due.keys())
            correct = {part: torch.ones(counts[part]).long() for part in sets}
            yield job.key, Result(job.start, correct, distance=0.0)


def found(
    task: Task, folder: Path, name: str = "erk", seeds: Sequence[int] = (SEED,), **options: str
) -> list[Search]:
    """Searches whose tickets lie in the folder."""
    if name == "origins":
        path = folder / "origins.py"
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(ORIGINS)
        name = str(path)
    method = load_method(name, options)
    states = [search(method, task, seed, folder) for seed in seeds]
    return [Search(s.seed, "ok", "", s.meter.spent, 0.0, tuple(s.rungs)) for s in states]


def entries(
    task: Task, folder: Path, plan: Plan = ALL, name: str = "erk", **options: str
) -> list[Entry]:
    searches = found(task, folder, name, **options)
    seen = see(task, (SEED,), plan)
    return asyncio.run(planned(task, searches, folder, Here(), plan, seen))


def of(chosen: Sequence[Entry], kind: str, density: float, schedule: int = 1) -> Entry:
    (entry,) = [e for e in chosen if e.place == (kind, density, SEED, schedule)]
    return entry


# --- which cells -----------------------------------------------------------------------------


def test_all_controls_on_every_rung(digits: Task, tmp_path: Path) -> None:
    places = [entry.place for entry in entries(digits, tmp_path)]
    wanted = {(kind, density, SEED, 1) for kind in KINDS for density in digits.ladder.trained}
    assert Counter(places) == Counter({*wanted, ("dense", 1.0, SEED, 1)})


def test_one_rung_has_controls(digits: Task, tmp_path: Path) -> None:
    """The sparsest but one; every rung has its ticket."""
    places = [entry.place for entry in entries(digits, tmp_path, ONE)]
    wanted = {("ticket", density, SEED, 1) for density in digits.ladder.trained}
    wanted |= {(kind, digits.ladder.trained[-2], SEED, 1) for kind in KINDS}
    assert Counter(places) == Counter({*wanted, ("dense", 1.0, SEED, 1)})


def test_short_schedules_on_one_rung(digits: Task, tmp_path: Path) -> None:
    """Ticket, dense and reinit, each in an eighth, a quarter and half of the steps."""
    plain = entries(digits, tmp_path)
    short = [e for e in entries(digits, tmp_path, Plan()) if e.place.schedule > 1]
    rung = digits.score.compressed_density
    wanted = {(kind, rung, SEED, n) for kind in ("ticket", "reinit") for n in COMPRESSED}
    wanted |= {("dense", 1.0, SEED, n) for n in COMPRESSED}
    assert Counter(e.place for e in short) == Counter(wanted)
    for entry in short:
        steps = digits.recipe.steps // entry.place.schedule
        whole = of(plain, entry.kind, entry.density)
        assert (entry.job.recipe.steps, entry.job.until) == (steps, steps)
        assert entry.job.start.digest == whole.job.start.digest
        assert entry.job.key != whole.job.key
    assert Counter(e.place for e in plain) == Counter(
        e.place for e in entries(digits, tmp_path, Plan()) if e.place.schedule == 1
    )


def test_a_rewound_ticket_enters_a_short_schedule_at_its_step(digits: Task, tmp_path: Path) -> None:
    short = entries(digits, tmp_path, Plan(), "origins", origin="rewind")
    for kind, begins in (("ticket", 12), ("reinit", 12), ("dense", 0)):
        density = 1.0 if kind == "dense" else digits.score.compressed_density
        for factor in COMPRESSED:
            job = of(short, kind, density, factor).job
            assert (job.start.step, job.until) == (begins, digits.recipe.steps // factor)


def test_a_rung_that_was_not_yielded(digits: Task, tmp_path: Path) -> None:
    """A cell with its reason stands in its place, and counts as chance."""
    (whole,) = found(digits, tmp_path)
    some = Search(SEED, "failed", "it ended early", 0.0, 0.0, whole.rungs[:1])
    seen = see(digits, (SEED,), ONE)
    cells = asyncio.run(scoring.score(digits, [some], tmp_path, Told(), ONE, seen)).cells
    tickets = {cell.density: cell for cell in cells if cell.kind == "ticket"}
    assert [tickets[d].status for d in digits.ladder.trained] == ["ok", "missing", "missing"]
    assert tickets[0.1].reason == "it ended early"
    table = {"task": {"kind": "accuracy", "chance": 0.1}, "shown": "held_out"}
    table["sizes"] = seen.sizes()  # type: ignore[assignment]
    assert score_of(table, tickets[0.1].model_dump(mode="json")) == 0.1


def test_untrained_tickets_are_read_as_they_stand(digits: Task, tmp_path: Path) -> None:
    text = (
        "from lthbench import Ticket, keep_top\n"
        "def find_tickets(problem):\n"
        "    theta = problem.theta()\n"
        "    for density in problem.untrained_densities:\n"
        "        chosen = keep_top({n: theta[n].abs() for n in problem.prunable}, density)\n"
        "        yield Ticket(chosen, trained=False)\n"
    )
    path = tmp_path / "untrained.py"
    path.write_text(text)
    planned_ = entries(digits, tmp_path, ALL, str(path))
    for density in digits.ladder.untrained:
        untrained, ticket = of(planned_, "untrained", density), of(planned_, "ticket", density)
        assert (untrained.job.until, ticket.job.until) == (0, digits.recipe.steps)
        assert untrained.masks == ticket.masks
        assert of(planned_, "shuffled", density).job.until == digits.recipe.steps


# --- controls --------------------------------------------------------------------------------


def test_methods_share_what_is_not_theirs(digits: Task, tmp_path: Path) -> None:
    """Dense runs, random and ERK controls are the same runs for every method."""
    ours = entries(digits, tmp_path / "a", Plan(), "erk")
    theirs = entries(digits, tmp_path / "b", Plan(), "magnitude_init")
    for one, other in zip(ours, theirs, strict=True):
        assert one.place == other.place
        same = one.kind in ("dense", "random", "erk")
        assert (one.job.key == other.job.key) is same
    assert len({entry.job.key for entry in ours}) == len(ours)


def test_a_shuffle_differs_and_keeps_counts(digits: Task, tmp_path: Path) -> None:
    chosen = entries(digits, tmp_path, ALL, "magnitude_init")
    for density in digits.ladder.trained:
        ticket, shuffled = of(chosen, "ticket", density), of(chosen, "shuffled", density)
        assert ticket.job.masks is not None
        assert shuffled.job.masks is not None
        assert masks.counts(shuffled.job.masks) == masks.counts(ticket.job.masks)
        for name, mask in shuffled.job.masks.items():
            assert not torch.equal(mask, ticket.job.masks[name])
        assert shuffled.job.start.digest == ticket.job.start.digest
        assert shuffled.masks != ticket.masks


@pytest.mark.parametrize("origin", ["init", "rewind", "signs", "free", "final"])
def test_another_start_by_origin(origin: str, digits: Task, tmp_path: Path) -> None:
    """The same masks, other values, of the same step and the same kind."""
    chosen = entries(digits, tmp_path, ALL, "origins", origin=origin)
    ticket = of(chosen, "ticket", 0.2)
    assert ticket.origin == origin
    if origin == "final":  # learning-rate rewinding: the whole schedule, from weights of its own
        assert (ticket.job.start.step, ticket.job.until) == (0, digits.recipe.steps)
        theta = families.initial(digits.network, digits.network.depth, SEED)
        assert not torch.equal(ticket.job.start["head.weight"], theta["head.weight"])
        assert not [entry for entry in chosen if entry.kind in REINITS]
        return
    reinit = of(chosen, "reinit", 0.2)
    assert reinit.masks == ticket.masks
    assert reinit.job.start.step == ticket.job.start.step == (12 if origin == "rewind" else 0)
    assert ticket.job.masks is not None
    for name, mask in ticket.job.masks.items():
        ours, fresh = ticket.job.start[name][mask], reinit.job.start[name][mask]
        assert not torch.equal(ours, fresh)
        if origin in ("signs", "free"):
            assert torch.equal(ours.abs(), fresh.abs())
        else:
            assert abs(torch.corrcoef(torch.stack([ours, fresh]))[0, 1]) < 0.5


@pytest.mark.parametrize("origin", ["init", "rewind", "signs", "free"])
def test_signs_stay_and_magnitudes_are_fresh(origin: str, digits: Task, tmp_path: Path) -> None:
    """Under the ticket's masks at its step; what is not pruned is as in the reinit control."""
    chosen = entries(digits, tmp_path, ALL, "origins", origin=origin)
    ticket, reinit, signs = (of(chosen, k, 0.2) for k in ("ticket", *REINITS))
    assert signs.masks == ticket.masks
    assert signs.job.start.step == ticket.job.start.step
    assert signs.job.start.digest != reinit.job.start.digest
    assert ticket.job.masks is not None
    for name, tensor in signs.job.start.items():
        mask = ticket.job.masks.get(name)
        if mask is None:
            assert torch.equal(tensor, reinit.job.start[name])
            continue
        ours, fresh = ticket.job.start[name][mask], tensor[mask]
        assert torch.equal(torch.signbit(ours), torch.signbit(fresh))
        if origin == "rewind":  # of the same other seed
            assert torch.equal(fresh.abs(), reinit.job.start[name][mask].abs())
        together = torch.stack([ours.abs(), fresh.abs()])
        assert len(fresh.abs().unique()) > 0.9 * len(fresh)  # a distribution's, not one magnitude
        if origin != "signs":  # whose magnitudes are one
            assert abs(torch.corrcoef(together)[0, 1]) < 0.5
        if origin in ("signs", "free"):
            assert norm(fresh) == pytest.approx(norm(ours), rel=1e-6)


def test_a_rewound_control_is_another_seed_at_that_step(digits: Task, tmp_path: Path) -> None:
    reinit = of(entries(digits, tmp_path, ALL, "origins", origin="rewind"), "reinit", 0.2)
    other = SEED + 10_000
    theta = families.initial(digits.network, digits.network.depth, other)
    job = trainings.training(digits, other, theta, None, 12)
    train = {other: trainings.examples(digits, datasets.search(digits, other).train)}

    async def end() -> State | None:
        async for _, result in Here().results([job], train, None):
            return result.state
        return None

    state = asyncio.run(end())
    assert state is not None
    assert reinit.job.start.digest == state.digest


def norm(values: torch.Tensor) -> float:
    return math.sqrt(math.fsum(values.double().square().tolist()))


def test_in_sums_another_start_has_the_tickets_norm(sums: Task, tmp_path: Path) -> None:
    """Scale alone moves when a network generalises."""
    chosen = entries(sums, tmp_path, ALL, "magnitude_init")
    for density in sums.ladder.trained:
        ticket, *others = (of(chosen, kind, density) for kind in ("ticket", *REINITS))
        assert ticket.job.masks is not None
        for name, mask in ticket.job.masks.items():
            wanted, *own = (norm(one.job.start[name][mask]) for one in (ticket, *others))
            assert own == pytest.approx([wanted] * 2, rel=1e-6)


# --- the stream ------------------------------------------------------------------------------


def test_scoring_has_an_order_of_its_own(digits: Task, sums: Task, tmp_path: Path) -> None:
    """No run is scored on the order it was found by; all runs of a seed are paired."""
    for task in (digits, sums):
        chosen = entries(task, tmp_path / task.name, Plan())
        assert {entry.job.order for entry in chosen} == {ORDER}
        size = len(see(task, (SEED,), ALL).train[SEED].y)
        for entry in (of(chosen, "dense", 1.0), of(chosen, "ticket", task.ladder.trained[0])):
            job = entry.job
            ours = trainings.training(task, SEED, job.start, job.masks, job.until)
            assert ours.order != job.order
            assert ours.key != job.key
            rows = [
                torch.stack(list(batches(task.recipe, size, SEED, order, 0, 20)))
                for order in (job.order, ours.order)
            ]
            assert not torch.equal(*rows)


# --- failures --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["shuffled", "reinit", "reinit-signs", "random", "erk"])
@pytest.mark.parametrize("failures", [1, 2, 3])
@pytest.mark.parametrize("name", ["digits", "sums"])
def test_a_failed_control_is_drawn_again(
    name: str, kind: str, failures: int, tmp_path: Path, request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Twice at most, another draw each time; then the comparison is not available."""
    task: Task = request.getfixturevalue(name)
    density = task.ladder.trained[-1]
    searches = found(task, tmp_path, "magnitude_init")
    seen = see(task, (SEED,), ALL)
    monkeypatch.setenv("LTHBENCH_CACHE", str(tmp_path / "cache"))
    first = asyncio.run(planned(task, searches, tmp_path, Here(), ALL, seen))
    others = {e.job.key for e in first if e.place != (kind, density, SEED, 1)}
    tried: list[Job] = []

    def fails(job: Job) -> bool:
        if job.key in others:
            return False
        tried.append(job)
        return len(tried) <= failures

    cells = asyncio.run(scoring.score(task, searches, tmp_path, Told(fails), ALL, seen)).cells
    (cell,) = [c for c in cells if (c.kind, c.density) == (kind, density)]
    assert len(tried) == min(failures + 1, DRAWS)
    assert cell.attempt == len(tried) - 1
    assert cell.status == ("ok" if failures < DRAWS else "diverged")
    fresh = kind in REINITS
    drawn = "weights" if fresh else "masks"
    digests = [job.start.digest if fresh else masks.digest(job.masks or {}) for job in tried]
    assert len(set(digests)) == len(tried)
    assert getattr(cell, drawn) == digests[-1]
    assert [getattr(draw, drawn) for draw in cell.failed_draws] == digests[:-1]
    original = of(first, kind, density)
    assert {masks.kept(job.masks or {}) for job in tried} == {masks.kept(original.job.masks or {})}
    assert {job.order for job in tried} == {ORDER}
    if fresh and name == "sums":
        for part, mask in (original.job.masks or {}).items():
            wanted = norm(original.job.start[part][mask])
            for job in tried:
                assert norm(job.start[part][mask]) == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("kind", REINITS)
@pytest.mark.parametrize("origin", ["rewind", "signs", "free"])
def test_every_kind_of_start_is_drawn_again(
    origin: str, kind: str, digits: Task, tmp_path: Path
) -> None:
    searches = found(digits, tmp_path, "origins", origin=origin)
    seen = see(digits, (SEED,), ONE)
    first = asyncio.run(planned(digits, searches, tmp_path, Here(), ONE, seen))
    failing = of(first, kind, 0.2)
    ticket = of(first, "ticket", 0.2).given
    thetas = Thetas(digits, Here(), seen.means)
    drawn = asyncio.run(experiment.draw_again(digits, failing, ticket, seen, thetas))
    assert drawn is not None
    assert drawn.attempt == 1
    assert drawn.job.start.step == failing.job.start.step
    assert drawn.job.start.digest != failing.job.start.digest
    assert drawn.job.key != failing.job.key


@pytest.mark.parametrize("kind", ["dense", "ticket", "untrained"])
def test_the_rest_has_no_other_draw(kind: str, digits: Task, tmp_path: Path) -> None:
    seen = see(digits, (SEED,), ONE)
    dense, ticket = entries(digits, tmp_path)[:2]
    failing = {"dense": dense, "ticket": ticket, "untrained": ticket}[kind]
    failing = replace(failing, place=failing.place._replace(kind=kind))
    thetas = Thetas(digits, Here(), seen.means)
    assert asyncio.run(experiment.draw_again(digits, failing, None, seen, thetas)) is None


def test_a_failed_dense_run_and_ticket_are_tried_once(digits: Task, tmp_path: Path,
                                                      cache: Path) -> None:  # fmt: skip
    datasets.prepare(digits, download=False)
    searches = found(digits, tmp_path)
    seen = see(digits, (SEED,), ONE)
    first = asyncio.run(planned(digits, searches, tmp_path, Here(), ONE, seen))
    bad = {of(first, "dense", 1.0).job.key, of(first, "ticket", 0.1).job.key}
    told = Told(lambda job: job.key in bad)
    cells = asyncio.run(scoring.score(digits, searches, tmp_path, told, ONE, seen)).cells
    assert Counter(job.key for job in told.jobs) == Counter(entry.job.key for entry in first)
    failed = [(c.kind, c.density, c.correct) for c in cells if c.status != "ok"]
    assert failed == [("dense", 1.0, {}), ("ticket", 0.1, {})]


# --- what is stored --------------------------------------------------------------------------


def test_nothing_is_trained_twice(digits: Task, tmp_path: Path, cache: Path) -> None:
    """A second run takes its own cells from its folder, the shared ones from the cache."""
    datasets.prepare(digits, download=False)
    seen = see(digits, (SEED,), ONE)
    ran: list[tuple[str, bool]] = []

    def go(folder: Path, name: str) -> tuple[Sequence[Cell], Told]:
        told, searches = Told(), found(digits, folder, name)
        ran.clear()
        cells = asyncio.run(
            scoring.score(
                digits, searches, folder, told, ONE, seen,
                note=lambda what, steps, now: ran.append((what, now)),
            )
        ).cells  # fmt: skip
        return cells, told

    cells, told = go(tmp_path / "a", "erk")
    assert len(told.jobs) == len(cells) == 9
    again, told = go(tmp_path / "a", "erk")
    assert told.jobs == []
    assert again == cells
    assert {now for _, now in ran} == {False}
    _, told = go(tmp_path / "b", "magnitude_init")
    own = {"ticket": 3, "shuffled": 1, "reinit": 1, "reinit-signs": 1}
    assert Counter(what for what, now in ran if now) == own
    assert len(told.jobs) == 6


def test_the_frozen_dense_run_is_not_trained(digits: Task, tmp_path: Path) -> None:
    """With published seeds dense is the reference's own, seed by seed."""
    searches = found(digits, tmp_path)
    seen = see(digits, (SEED,), ONE)
    cells = asyncio.run(scoring.score(digits, searches, tmp_path, Told(), ONE, seen)).cells
    (dense,) = [cell for cell in cells if cell.kind == "dense"]
    frozen = [dense.model_copy(update={"correct": {"held_out": (7,)}}),
              dense.model_copy(update={"seed": 5})]  # fmt: skip
    (tmp_path / "cells").rename(tmp_path / "other")
    told = Told()
    cells = asyncio.run(
        scoring.score(digits, searches, tmp_path, told, ONE, seen, known=frozen)
    ).cells
    assert told.jobs
    assert [cell for cell in cells if cell.kind == "dense"] == frozen[:1]
    assert not [job for job in told.jobs if job.masks is None]


def test_frozen_random_controls_are_not_trained_where_they_are_wanted(
    digits: Task, tmp_path: Path
) -> None:
    """Those of the reference in their places; none that this plan does not ask for."""
    searches = found(digits, tmp_path)
    seen = see(digits, (SEED,), ALL)
    scored = asyncio.run(scoring.score(digits, searches, tmp_path, Told(), ALL, seen))
    every = scored.cells
    seven = {"correct": {"held_out": (7,)}}
    frozen = [c.model_copy(update=seven) for c in every if c.kind in ("random", "erk")]
    (tmp_path / "cells").rename(tmp_path / "other")
    for plan, rungs in ((ALL, 3), (ONE, 1)):
        told = Told()
        cells = asyncio.run(
            scoring.score(digits, searches, tmp_path, told, plan, seen, known=frozen)
        ).cells
        mine = [cell for cell in cells if cell.kind in ("random", "erk")]
        assert len(mine) == 2 * rungs and all(cell in frozen for cell in mine)
        keys = {scored.keys[cell.place] for cell in frozen}
        assert not [job for job in told.jobs if job.key in keys]
    few = [cell for cell in frozen if cell.kind == "erk"]  # then the others are trained
    cells = asyncio.run(
        scoring.score(digits, searches, tmp_path, Told(), ALL, seen, known=few)
    ).cells
    assert [c.correct for c in cells if c.kind == "erk"] == [{"held_out": (7,)}] * 3
    assert [c for c in cells if c.kind == "random"] == [c for c in every if c.kind == "random"]


KEPT = [
    ("dense", 1, ("train", "held_out", "test"), 20),
    ("ticket", 1, ("train", "held_out", "test"), 20),
    ("erk", 1, ("train", "held_out", "test"), 20),
    ("shuffled", 1, ("train", "held_out", "test"), LAST),
    ("ticket", 8, ("train", "held_out", "test"), 1),
]


@pytest.mark.parametrize(("kind", "schedule", "parts", "held"), KEPT)
def test_what_is_kept_of_a_curve(
    kind: str, schedule: int, parts: tuple[str, ...], held: int
) -> None:
    """Whole where a score needs it; the end of the held-out curve beside a test curve, and of the
    training part's in controls."""
    curve = list(range(20))
    counts = {"train": curve, "held_out": curve, "test": curve}
    kept = experiment.kept_counts(counts, kind, schedule)
    assert tuple(kept) == parts
    assert kept["held_out"] == curve[-held:]
    assert kept["train"] == (curve if held == 20 and kind != "erk" else curve[-1:])
    assert kept["test"] == (curve if schedule == 1 else curve[-1:])
    alone = experiment.kept_counts({"held_out": curve}, kind, schedule)
    assert alone["held_out"] == (curve if schedule == 1 else curve[-1:])


# --- the examples ----------------------------------------------------------------------------


def rows(examples: Examples) -> set[bytes]:
    """Inputs with their labels: of all digits no two are alike."""
    table = torch.cat([examples.x, examples.y[:, None]], 1)
    return {row.numpy().tobytes() for row in table}


@pytest.mark.parametrize("name", ["digits", "sums"])
@pytest.mark.parametrize("final", [False, True])
def test_no_example_is_trained_and_counted(
    name: str, final: bool, request: pytest.FixtureRequest
) -> None:
    task: Task = request.getfixturevalue(name)
    seen = see(task, (0, 1, SEED), Plan(final=final))
    for seed in (0, 1, SEED):
        sets = {part: rows(examples) for part, examples in seen.sets[seed].items()}
        train = rows(seen.train[seed])
        assert len(train) == len(seen.train[seed].y)
        assert not train & sets["held_out"]
        assert ("test" in sets) is final
        if final:
            assert not (train | sets["held_out"]) & sets["test"]
        assert sets["train"] == train
        assert seen.sizes()[str(seed)] == {part: len(examples) for part, examples in sets.items()}


def test_only_a_final_run_opens_the_test_split(
    digits: Task, sums: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Opened(Exception):
        pass

    def opened(task: Task, seed: int) -> None:
        raise Opened

    monkeypatch.setattr(test_split, "test_examples", opened)
    for task in (digits, sums):
        assert isinstance(see(task, (SEED,), Plan()), Seen)
        with pytest.raises(Opened):
            see(task, (SEED,), Plan(final=True))


def test_a_final_run_names_a_missing_test_file(digits: Task, cache: Path) -> None:
    datasets.prepare(digits, download=False)
    for path in cache.rglob("*test*"):
        path.unlink()
    assert see(digits, (0,), Plan()).sizes() == {"0": {"held_out": 143, "train": 1290}}
    with pytest.raises(DataError, match=r"fold0\.test\.safetensors is not there; run `lthbench da"):
        see(digits, (0,), Plan(final=True))


def test_a_short_real_run(sums: Task, tmp_path: Path, cache: Path) -> None:
    """Every cell of one seed, trained: what is counted fits the sets and the grid."""
    searches = found(sums, tmp_path)
    seen = see(sums, (SEED,), ONE)
    cells = asyncio.run(scoring.score(sums, searches, tmp_path, Here(), ONE, seen)).cells
    assert [cell.status for cell in cells] == ["ok"] * 8
    sizes = seen.sizes()[str(SEED)]
    for cell in cells:
        subject = cell.kind in ("dense", "ticket")
        assert set(cell.correct) == {"held_out", "train"}
        assert (cell.effective_nodes is not None) is (cell.kind == "ticket")
        assert cell.flops_inference is not None and cell.distance is not None
        batch = sums.recipe.batch_size(sizes["train"])
        assert cell.flops_training == 3 * cell.flops_inference * batch * sums.recipe.steps
        assert cell.distance > 0
        for part, counts in cell.correct.items():
            assert len(counts) == (len(sums.grid) if subject or part != "train" else 1)
            assert all(0 <= count <= sizes[part] for count in counts)
        assert cell.kept == cell.requested
