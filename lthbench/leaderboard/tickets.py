"""The ticket zoo: masks and starting weights of accepted entries, as torch tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lthbench.errors import RecordError, UsageError
from lthbench.evaluation import trainings
from lthbench.leaderboard.board import entries
from lthbench.leaderboard.board.entries import Entry
from lthbench.leaderboard.bundle import archive, ticket_member
from lthbench.leaderboard.bundle.archive import Bundle
from lthbench.leaderboard.downloads.fetch import bundle_of
from lthbench.protocol.task import Task, load_task
from lthbench.records.schema import Cell, Record
from lthbench.report import formats, terms

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lthbench.networks.state import State

__all__ = ["LoadedTicket", "Zoo", "allowed", "bundle_of", "load_ticket", "opened"]

NEAR = 0.02  # of a density; rungs of a ladder are much further apart


@dataclass(frozen=True)
class LoadedTicket:
    """A ticket as torch tensors.

    Attributes:
        state_dict: Starting weights, by the names of the task's network; float32, CPU.
        masks: Boolean, by the names of the prunable tensors; True = kept.
        task: Name of the task.
        seed: Seed of the ticket.
        density: Density of the ticket.
        start: Step of the dense run from which the weights are taken.
        origin: Origin of the weights, as determined by the harness.
        trained: Whether it is to be trained; False: it was scored without training.
        note: A caveat on the weights; "" if they match the record bit for bit.
    """

    state_dict: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    task: str
    seed: int
    density: float
    start: int
    origin: str
    trained: bool
    note: str = ""

    def __repr__(self) -> str:
        """Return one line: which ticket it is, and how much it keeps, without its tensors."""
        kept = sum(int(mask.sum()) for mask in self.masks.values())
        total = sum(mask.numel() for mask in self.masks.values())
        return (
            f"LoadedTicket({self.task}, seed {self.seed}, density {self.density:.4g}, origin "
            f"{self.origin}, step {self.start}: {kept:,} of {total:,} weights kept)"
        )

    def network(self) -> nn.Module:
        """Return the task's network with these weights, pruned by `torch.nn.utils.prune`."""
        from torch.nn.utils import prune

        from lthbench.networks import families
        from lthbench.networks.state import State

        spec = load_task(self.task).network
        network = families.load(spec, spec.depth, State(self.state_dict, self.start))
        for name, mask in self.masks.items():
            module, _, parameter = name.rpartition(".")
            prune.custom_from_mask(  # type: ignore[no-untyped-call]
                network.get_submodule(module), parameter, mask
            )
        return network


def load_ticket(
    entry: str | Path, task: str | None = None, *, seed: int = 0, density: float | None = None
) -> LoadedTicket:
    """Load a ticket's masks and starting weights, checked against its record.

    >>> ticket = lthbench.load_ticket("imp--4139c785", seed=0, density=0.512)  # doctest: +SKIP
    >>> network = ticket.network()                                              # doctest: +SKIP

    Args:
        entry: An entry of the board, whose bundle is looked up in the folder LTHBENCH_BUNDLES and
            at the record's addresses; or the path of a bundle's file.
        task: Name of the task, if the bundle holds several.
        seed: Seed of the ticket.
        density: Density of a rung, to within 2 %; the sparsest by default.

    Raises:
        RecordError: If the entry, bundle or ticket does not exist, or a digest differs.
        UsageError: If the task or rung is not in the bundle, or the task must be named.
        DataError: If weights of a later step require training, and the data are not prepared.
    """
    path = Path(entry)
    if path.suffix == ".zip":
        found = archive.read(path)
        record = archive.record(found, _task_of(found, task))
    else:
        known = entries.find(entries.load(), str(entry))
        allowed(known)
        if task not in (None, known.record.task.name):
            raise UsageError(f"{known.id}: an entry of {known.record.task.name}, not of {task}")
        found, record = opened(known), known.record
    places = archive.tickets(found, record.task.name)
    return Zoo(found, record).load(seed, _rung(places, seed, density, path.name))


def opened(entry: Entry, *, allow_private: bool = False) -> Bundle:
    """Read and check an entry's bundle, which must hold the same record.

    Raises:
        RecordError: If it is unavailable, breaks a rule, or does not match the entry.
    """
    found = archive.read(bundle_of(entry, allow_private=allow_private))
    name = entry.record.task.name
    told = entry.record.model_copy(update={"bundle": None})
    if name not in found.tasks or archive.record(found, name) != told:
        raise RecordError(
            f"{entry.id}: its bundle holds another record of {name} than the board; "
            "tell the entry's authors"
        )
    return found


def allowed(entry: Entry) -> tuple[str, ...]:
    """Return caveats on an entry whose tickets are requested; retracted entries are rejected."""
    if entry.state == "retracted":
        whys = [str(line.get("why", "")) for line in entry.lines if line["act"] == "retract"]
        why = formats.plain(": ".join(["", *whys[-1:]]))
        raise RecordError(f"{entry.id}: was retracted{why}; its tickets are not given out")
    if entry.state == "listed":
        raise RecordError(f"{entry.id}: is not accepted yet; see `lthbench leaderboard`")
    if entry.state == "superseded":
        return (f"{entry.id} was superseded by {entry.of}",)
    return ()


def _task_of(found: Bundle, task: str | None) -> str:
    if task is None and len(found.tasks) == 1:
        return found.tasks[0]
    if task not in found.tasks:
        tasks = ", ".join(found.tasks)
        raise UsageError(f"{found.path}: holds tickets of {tasks}; name one of them as task")
    return task


def _rung(
    places: Sequence[tuple[int, float]], seed: int, density: float | None, name: str
) -> float:
    """Return the requested rung of a seed."""
    rungs = [at for of, at in places if of == seed]
    if not rungs:
        seeds = terms.listing(sorted({of for of, _ in places}))
        raise UsageError(f"{name}: no ticket of seed {seed}; there are seeds {seeds}")
    if density is None:
        return min(rungs)
    nearest = min(rungs, key=lambda rung: abs(rung - density))
    if not abs(nearest - density) <= NEAR * nearest:
        told = ", ".join(f"{rung:.4g}" for rung in rungs)
        raise UsageError(f"{name}: no ticket at density {density:g}; there are {told}")
    return nearest


@dataclass(frozen=True)
class Zoo:
    """The tickets of one record in a bundle; each theta_k is computed only once."""

    found: Bundle
    record: Record
    thetas: dict[tuple[int, int], State] = field(default_factory=dict)

    @cached_property
    def task(self) -> Task:
        """The record's task; RecordError if its protocol is another here."""
        told = self.record.task
        task = load_task(told.name)
        if task.digest != told.digest:
            raise RecordError(
                f"{told.name}: the record follows another version of the protocol than this "
                "lthbench has; install the one that it was made with"
            )
        return task

    def cell(self, seed: int, density: float) -> Cell:
        """Return the record's cell of a ticket."""
        wanted = ("ticket", seed, density, 1)
        return next(
            c for c in self.record.cells if (c.kind, c.seed, c.density, c.schedule) == wanted
        )

    def load(self, seed: int, density: float) -> LoadedTicket:
        """Load one ticket with its starting weights."""
        import numpy as np
        import torch

        header, masks, stored = archive.ticket(self.found, self.record.task.name, seed, density)
        state = self._state(seed, header, masks, stored)
        return LoadedTicket(
            state_dict=state.tensors(),
            masks={name: torch.from_numpy(np.array(mask)) for name, mask in masks.items()},
            task=self.task.name,
            seed=seed,
            density=density,
            start=header["start"],
            origin=header["origin"],
            trained=header["trained"],
            note=self._note(state, self.cell(seed, density)),
        )

    def _state(
        self, seed: int, header: Mapping[str, Any], masks: Mapping[str, Any], stored: Any
    ) -> State:
        from lthbench.leaderboard.bundle import start_weights
        from lthbench.networks.state import State

        state = start_weights.start_of(self.task, seed, header, masks, stored)
        if state is not None:
            return state
        theta = self._theta(seed, header["start"])
        if header["origin"] == "rewind":
            return theta
        signs = theta.tensors()
        for name in masks:
            factor = float(stored[f"factor/{name}"][0])
            signs[name] = (signs[name].sign().double() * factor).float()
        return State(signs, theta.step)

    def _theta(self, seed: int, k: int) -> State:
        """Compute theta_k from the first k steps of the seed's dense run."""
        if (seed, k) not in self.thetas:
            self.thetas[seed, k] = _trained(self.task, seed, k)
        return self.thetas[seed, k]

    def _note(self, state: State, cell: Cell) -> str:
        """Compare the weights with the digest in the record, where possible."""
        if cell.origin in ticket_member.HELD or state.digest == cell.weights:
            return ""  # for stored weights the bundle's digest suffices; pruned ones are not in it
        if cell.origin == "init":
            raise RecordError(
                f"seed {cell.seed}, density {cell.density:.4g}: the record names other initial "
                "weights than its seed's; do not use this entry, and tell its authors"
            )
        return (
            f"weights of seed {cell.seed} at step {cell.start} were computed here and differ in "
            "their last bits from those of the record, as they do on another kind of machine"
        )


def _trained(task: Task, seed: int, k: int) -> State:
    from lthbench.networks import families
    from lthbench.protocol import datasets
    from lthbench.training import dispatch
    from lthbench.training.job import as_in_a_worker

    datasets.prepare(task, download=False, test=False)
    train = trainings.examples(task, datasets.search(task, seed).train)
    theta = families.initial(task.network, task.network.depth, seed)
    job = trainings.training(task, seed, theta, None, k)
    with as_in_a_worker():
        ((_, result),) = dispatch.run([job], {seed: train})
    if result.state is None:
        raise RecordError(f"{task.name}: the dense run of seed {seed} {result.status} before {k}")
    return result.state
