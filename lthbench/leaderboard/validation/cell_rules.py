"""The rules of one run: its counts, its curves, its start, and the related runs."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lthbench.errors import RecordError
from lthbench.io.untrusted import shown
from lthbench.protocol.constants import (
    CARRIED,
    DRAWS,
    LAST,
    REINITS,
    SHARED,
    SUBJECTS,
    TICKETS,
    UNTRAINED,
)
from lthbench.protocol.design import Place
from lthbench.protocol.task import Task, matching
from lthbench.records.schema import Cell, Record, Run

TENSOR = re.compile(r"[A-Za-z0-9_.]{1,120}")
Cells = Mapping[Place, Cell]


def check_run(run: Run, task: Task, record: Record) -> None:
    """Check status, counts and curves of one run, at any depth."""
    kind: str = run.kind  # type: ignore[attr-defined]
    if (run.status == "ok") == bool(run.reason):
        raise RecordError(f"is {run.status}, reason {shown(run.reason)!r}")
    _check_measures(run, kind, task, record)
    if run.status == "missing":
        nothing = (run.kept, run.effective, run.layers, run.masks, run.correct)
        if kind not in (*TICKETS, CARRIED) or nothing != (0, None, {}, None, {}):
            raise RecordError("missing, but something is told of it")
    elif run.kept != run.requested:
        raise RecordError(
            f"keeps {run.kept} weights, its rung is {run.requested}; counts are exact"
        )
    if (run.masks is None) != (run.status == "missing" or kind == "dense"):
        raise RecordError(f"masks {'missing' if run.masks is None else 'of nothing'}")
    if run.attempt >= DRAWS or (run.attempt and kind in SUBJECTS):
        raise RecordError(f"attempt {run.attempt}; controls are drawn {DRAWS} times")
    if run.sketch and (kind != "ticket" or run.schedule > 1 or run.masks is None):
        raise RecordError("has a sketch of its masks, which tickets alone have")
    _check_draws(run)
    lengths = _lengths(run, kind, task, record)
    for part, length in lengths.items():
        found = len(run.correct.get(part, ()))
        if found > length or (run.status == "ok" and found < length):
            raise RecordError(f"{found} counts of {part}, {length} evaluations are kept of it")
    if run.status == "ok" and (lost := lengths.keys() - run.correct):
        raise RecordError(f"no counts of {min(lost)}")
    if extra := run.correct.keys() - lengths:
        raise RecordError(f"counts of {shown(min(extra))}, which are not kept")


def _check_draws(run: Run) -> None:
    """Check that a control is redrawn only after diverged draws, which are stored with it."""
    if len(run.failed_draws) != run.attempt:
        raise RecordError(
            f"attempt {run.attempt} after {len(run.failed_draws)} failed draws; it must hold "
            "every draw before its own, each of which diverged"
        )
    before = {(draw.masks, draw.weights) for draw in run.failed_draws}
    if len(before | {(run.masks, run.weights)}) <= run.attempt:
        raise RecordError("two of its draws have the same masks and weights; each is another")


def _check_measures(run: Run, kind: str, task: Task, record: Record) -> None:
    """Check that the other measures of a run are complete or absent, and match what it did."""
    forward, whole = run.flops_inference, run.flops_training
    told = [value is not None for value in (forward, whole)]
    if len(set(told)) > 1 or (run.status == "missing" and any(told)):
        raise RecordError("tells of its operations in part, or though it is missing")
    if (run.distance is None) != (not told[0] or run.status != "ok"):
        raise RecordError("distance must be told of every run that ended and is measured, alone")
    if forward is None or whole is None:
        if run.effective_nodes is not None:
            raise RecordError("tells of its nodes, but not of its operations")
        return
    steps = 0 if kind in UNTRAINED else task.recipe.steps // run.schedule - run.start
    train = record.sizes[str(run.seed)].get("train", 0)
    if train and whole != 3 * forward * task.recipe.batch_size(train) * steps:
        raise RecordError(
            f"flops_training {whole}: must be 3 * {forward} of inference * "
            f"{task.recipe.batch_size(train)} examples * {steps} steps"
        )
    if not steps and run.distance:
        raise RecordError(f"distance {run.distance:g} without a step")


def _lengths(run: Run, kind: str, task: Task, record: Record) -> dict[str, int]:
    """Return how many counts of each set a record keeps (defined by `score`)."""
    parts, arithmetic = record.sizes[str(run.seed)], task.score.kind != "accuracy"
    if run.flops_inference is None and not arithmetic:  # it was not counted then
        parts = {part: size for part, size in parts.items() if part != "train"}
    if run.schedule > 1:
        return dict.fromkeys(parts, 1)
    every = task.score.every
    whole = 1 if kind in UNTRAINED else task.recipe.steps // every - run.start // every
    subject = kind in SUBJECTS
    kept = dict.fromkeys(parts, whole)
    if "train" in kept and not (subject and arithmetic):
        kept["train"] = 1
        if run.flops_inference is None:
            del kept["train"]
    if not subject and kind not in ("erk", "direct"):
        kept["held_out"] = min(whole, LAST)
    return kept


def check_origin(cell: Cell, task: Task) -> None:
    """Check where training may start, by origin."""
    own = cell.kind in SHARED or cell.status == "missing"
    if own and (cell.origin, cell.start) != ("init", 0):
        raise RecordError(f"starts from {cell.origin} at step {cell.start}, not theta_0")
    limit = task.search.rewind_limit
    least = 1 if cell.origin == "rewind" else 0
    most = 0 if cell.origin in ("init", "scaled") else limit
    if not least <= cell.start <= most:
        raise RecordError(
            f"origin {cell.origin} at step {cell.start}; {task.name} rewinds to {limit}"
        )


class Layers:
    """The kept counts of tensors, which must fit one network."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.names: frozenset[str] | None = None
        self.sizes: dict[str, int] = {}  # of tensors that some ticket keeps whole
        self.most: dict[str, int] = {}

    def check(self, cell: Cell) -> None:
        """Check one cell's counts; only tickets have them."""
        own = cell.kind in TICKETS and cell.schedule == 1
        if not own or cell.status == "missing":
            if cell.layers or cell.effective is not None or cell.effective_nodes is not None:
                raise RecordError("tells of its tensors, which tickets alone do")
            return
        if cell.effective is None or sum(cell.layers.values()) != cell.kept:
            raise RecordError(f"its tensors keep {sum(cell.layers.values())} weights, it "
                              f"keeps {cell.kept}")  # fmt: skip
        if (cell.effective_nodes is None) != (cell.flops_inference is None):
            raise RecordError("its effective nodes must be told if anything is measured")
        if bool(cell.effective) != bool(cell.effective_nodes) and cell.effective_nodes is not None:
            raise RecordError(
                f"{cell.effective} effective weights, but {cell.effective_nodes} effective nodes"
            )
        names = frozenset(cell.layers)
        if self.names is None:
            self._check_names(names)
            self.names = names
        if names != self.names:
            raise RecordError("has other tensors than the tickets before it")
        for name, kept in cell.layers.items():
            self.most[name] = max(kept, self.most.get(name, 0))

    def _check_names(self, names: frozenset[str]) -> None:
        patterns = self.task.network.prunable
        strange = [n for n in names if not TENSOR.fullmatch(n) or not matching((n,), patterns)]
        if strange:
            raise RecordError(f"{shown(min(strange))!r} is no prunable tensor")

    def check_shuffle(self, cell: Cell, ticket: Cell) -> None:
        """Check which tensors are their own shuffle: those that are full or empty."""
        own = set(cell.own_shuffle)
        if list(cell.own_shuffle) != sorted(own) or not own <= ticket.layers.keys():
            raise RecordError("own_shuffle names no tensors of the ticket, in order")
        empty = {name for name, kept in ticket.layers.items() if not kept}
        for name in own - empty:
            size = self.sizes.setdefault(name, ticket.layers[name])
            if size != ticket.layers[name] or self.most[name] > size:
                raise RecordError(
                    f"{name} is its own shuffle with {ticket.layers[name]} weights, "
                    "but it is neither full nor empty"
                )
        if not empty <= own:
            raise RecordError(f"{min(empty - own)} is empty, and so its own shuffle")
        if (cell.masks == ticket.masks) != (own == ticket.layers.keys()):
            raise RecordError(
                "masks are the ticket's own, so that nothing was shuffled"
                if cell.masks == ticket.masks
                else "every tensor is its own shuffle, yet the masks differ"
            )


def beside_its_ticket(cell: Cell, cells: Cells, layers: Layers) -> None:
    """Check what a control, or a run of another schedule, shares with its ticket or dense run."""
    if cell.own_shuffle and cell.kind != "shuffled":
        raise RecordError("own_shuffle is told of shuffled controls alone")
    if cell.kind in SHARED:
        return
    if cell.kind == "ticket" and cell.schedule == 1:
        return
    ticket = cells[Place("ticket", cell.density, cell.seed)]
    missing = (cell.status == "missing", ticket.status == "missing")
    if missing[0] != missing[1]:
        raise RecordError("missing, or not, other than its ticket")
    if (cell.origin, cell.start) != (ticket.origin, ticket.start):
        raise RecordError(f"starts from {cell.origin}, its ticket from {ticket.origin}")
    if cell.kind == "shuffled":
        layers.check_shuffle(cell, ticket)
    elif cell.masks != ticket.masks:
        raise RecordError("has other masks than its ticket")
    if cell.kind == "untrained" and (cell.layers, cell.effective, cell.effective_nodes) != (
        ticket.layers,
        ticket.effective,
        ticket.effective_nodes,
    ):
        raise RecordError("has other tensors than its ticket")
    _check_weights(cell, ticket, cells)


def _check_weights(cell: Cell, ticket: Cell, cells: Cells) -> None:
    """Check that a cell starts from its ticket's weights, or as a control from others."""
    if cell.kind in REINITS:
        first = cells[Place(cell.kind, cell.density, cell.seed)]
        if cell.weights == ticket.weights:
            raise RecordError("starts from the ticket's own weights")
        if cell.attempt == first.attempt and cell.weights != first.weights:
            raise RecordError("starts from other weights than with the whole schedule")
    elif cell.weights != ticket.weights:
        raise RecordError("starts from other weights than its ticket")
