"""Bundles that are not what a method's evaluation left: each as consistent as a forger can make it.

A forger may rewrite every file of a bundle, and every digest and aggregate in it: what they cannot
do is make a network answer better than it does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lthbench.io import canonical_tensors
from lthbench.io.paths import digest
from lthbench.leaderboard.bundle import archive, ticket_member
from lthbench.networks import families
from lthbench.protocol import test_split
from lthbench.protocol.constants import REINITS
from lthbench.protocol.task import Task, load_task
from lthbench.records.schema import build, file_bytes
from lthbench.tickets import controls, masks
from lthbench.tickets.sketch import sketch

Table = dict[str, Any]


@dataclass
class Forger:
    """A bundle of one task, taken apart."""

    path: Path
    task: Task
    members: dict[str, bytes]
    record: Table
    answers: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(path: Path, name: str) -> Forger:
        found = archive.read(path)
        members = {n: bytes(data) for n, data in found.members.items() if n != archive.MANIFEST}
        answers = {n: np.array(a) for n, a in archive.answers(found, name).items()}
        curves = {n: np.array(c) for n, c in archive.curves(found, name).items()}
        record = archive.record(found, name).model_dump(mode="json")
        members = {n: d for n, d in members.items() if n.partition("/")[0] in (name, n)}
        return Forger(path, load_task(name), members, record, answers, curves)

    def cells(self, **wanted: Any) -> list[Table]:
        """The record's cells that are so."""
        return [c for c in self.record["cells"] if all(c[k] == v for k, v in wanted.items())]

    def ticket(self, seed: int, density: float) -> ticket_member.Ticket:
        return archive.ticket(archive.read(self.path), self.task.name, seed, density)

    def put(self, seed: int, density: float, ticket: ticket_member.Ticket) -> None:
        """A ticket's file, its digest and counts made to fit."""
        header, chosen, weights = ticket
        kept = sum(int(mask.sum()) for mask in chosen.values())
        header = {**header, "masks": ticket_member.mask_digest(chosen), "kept": kept}
        name = f"{self.task.name}/tickets/seed{seed}/{ticket_member.rung_name(density)}.safetensors"
        self.members[name] = ticket_member.dumps(header, chosen, weights)

    def tell(self, seed: int, density: float, ticket: ticket_member.Ticket) -> None:
        """The same in the record: the cells of the ticket and of the controls drawn from it."""
        torn = {name: torch.from_numpy(np.array(mask)) for name, mask in ticket[1].items()}
        shuffled, _ = controls.shuffled(torn, seed)
        alive = families.effective(self.task.network, self.task.network.depth, dict(torn))
        flops = families.sparse_flops(self.task.network, self.task.network.depth, torn)
        for cell in self.cells(seed=seed, density=density):
            if cell["kind"] in ("ticket", "untrained", *REINITS):
                cell["masks"] = masks.digest(torn)
                steps = cell["flops_training"] // cell["flops_inference"]
                cell["flops_inference"], cell["flops_training"] = flops, steps * flops
            if cell["kind"] == "shuffled":
                cell["masks"] = masks.digest(shuffled)
            if cell["kind"] in ("ticket", "untrained") and cell["schedule"] == 1:
                cell["layers"], cell["effective"] = masks.counts(torn), masks.kept(alive)
                cell["sketch"] = sketch(ticket[1]) if cell["kind"] == "ticket" else None
                cell["effective_nodes"] = families.effective_nodes(alive)

    def renamed(self, name: str) -> None:
        """Under another name, whose source is another's."""
        method = self.record["method"]
        source = self.members[archive.SOURCE].replace(
            f'"{method["name"]}"'.encode(), f'"{name}"'.encode()
        )
        self.members[archive.SOURCE] = source
        described = {**method["described"], "name": name}
        method.update(name=name, digest=digest(source), described=described)

    def swap(self, share: float) -> None:
        """Of each ticket that share of its kept weights, one at least, for pruned ones."""
        dice = np.random.default_rng(0)
        for cell in self.cells(kind="ticket", schedule=1):
            header, chosen, weights = self.ticket(cell["seed"], cell["density"])
            name = max(chosen, key=lambda tensor: chosen[tensor].size)
            flat = np.array(chosen[name]).reshape(-1)
            count = max(1, round(share * cell["kept"]))
            off = dice.choice(np.flatnonzero(flat), count, replace=False)
            on = dice.choice(np.flatnonzero(~flat), count, replace=False)
            flat[off], flat[on] = False, True
            moved = header, {**chosen, name: flat.reshape(chosen[name].shape)}, weights
            self.put(cell["seed"], cell["density"], moved)
            self.tell(cell["seed"], cell["density"], moved)

    def raised(self, cell: Table, by: int) -> None:
        """So many more right answers at the end (or fewer), in every file that tells of them."""
        name = f"{cell['kind']}/{cell['density']!r}/{cell['seed']}/{cell['schedule']}"
        truth, given = test_split.test_examples(self.task, cell["seed"]).y, self.answers[name]
        if by >= 0:
            changed = np.flatnonzero(given != truth)[:by]
            given[changed] = truth[changed]
        else:
            changed = np.flatnonzero(given == truth)[:-by]
            given[changed] = (truth[changed] + 1) % self.task.data.classes
        moved = len(changed) if by >= 0 else -len(changed)
        cell["correct"]["test"][-1] += moved
        self.curves[f"{name}/test"][-1] += moved

    def counted(self, cell: Table, correct: Mapping[str, Sequence[int]]) -> None:
        """Other counts, in every file that tells of them."""
        name = f"{cell['kind']}/{cell['density']!r}/{cell['seed']}/{cell['schedule']}"
        self.raised(cell, correct["test"][-1] - cell["correct"]["test"][-1])
        for part, counts in correct.items():
            cell["correct"][part] = list(counts)
            self.curves[f"{name}/{part}"][-len(counts) :] = counts

    def choose(self, cell: Table, attempt: int, claimed: bool) -> None:
        """A shuffled control that is another draw than its first.

        Args:
            claimed: whether the draws before are there, said to have diverged.
        """
        ticket = self.ticket(cell["seed"], cell["density"])[1]
        chosen: masks.Masks = {n: torch.from_numpy(np.array(mask)) for n, mask in ticket.items()}
        draws = []
        for draw in range(attempt + 1):
            chosen, _ = controls.shuffled(chosen, cell["seed"], attempt=draw)
            draws.append({"masks": masks.digest(chosen), "weights": cell["weights"]})
        failed = draws[:-1] if claimed else []
        cell.update(draws[-1], attempt=attempt, failed_draws=failed)

    def made(self, path: Path) -> Path:
        """The forged bundle: aggregates computed again, a manifest that fits."""
        table = {k: v for k, v in self.record.items() if k not in ("aggregates", "scorer")}
        self.members[f"{self.task.name}/{archive.RECORD}"] = file_bytes(build(table))
        for file, held in ((archive.ANSWERS, self.answers), (archive.CURVES, self.curves)):
            self.members[f"{self.task.name}/{file}"] = canonical_tensors.dumps({}, held)
        path.write_bytes(archive.contain(self.members))
        return path


def moved_bit(ticket: ticket_member.Ticket) -> ticket_member.Ticket:
    """The same ticket with one kept weight given up for its neighbour that was pruned."""
    header, chosen, weights = ticket
    name = sorted(chosen)[0]
    flat = np.array(chosen[name]).reshape(-1)
    off = int(np.flatnonzero(flat)[0])
    flat[[off, int(np.flatnonzero(~flat)[0])]] = False, True
    return header, {**chosen, name: flat.reshape(chosen[name].shape)}, weights
