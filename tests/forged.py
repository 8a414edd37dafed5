"""Bundles that are not what a method's evaluation left: each as consistent as a forger can make it.

A forger may rewrite every file of a bundle, and every digest and aggregate in it: what they cannot
do is make a network answer better than it does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lthbench import arrays, controls, masks, networks, packed, testset
from lthbench import bundle as bundles
from lthbench.record import build, file_bytes
from lthbench.scores import REINITS
from lthbench.task import Task, load_task

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
        found = bundles.read(path)
        members = {n: bytes(data) for n, data in found.members.items() if n != bundles.MANIFEST}
        answers = {n: np.array(a) for n, a in bundles.answers(found, name).items()}
        curves = {n: np.array(c) for n, c in bundles.curves(found, name).items()}
        record = bundles.record(found, name).model_dump(mode="json")
        members = {n: d for n, d in members.items() if n.partition("/")[0] in (name, n)}
        return Forger(path, load_task(name), members, record, answers, curves)

    def cells(self, **wanted: Any) -> list[Table]:
        """The record's cells that are so."""
        return [c for c in self.record["cells"] if all(c[k] == v for k, v in wanted.items())]

    def ticket(self, seed: int, density: float) -> packed.Ticket:
        return bundles.ticket(bundles.read(self.path), self.task.name, seed, density)

    def put(self, seed: int, density: float, ticket: packed.Ticket) -> None:
        """A ticket's file, its digest and counts made to fit."""
        header, chosen, weights = ticket
        kept = sum(int(mask.sum()) for mask in chosen.values())
        header = {**header, "masks": packed.mask_digest(chosen), "kept": kept}
        name = f"{self.task.name}/tickets/seed{seed}/{packed.rung_name(density)}.safetensors"
        self.members[name] = packed.dumps(header, chosen, weights)

    def tell(self, seed: int, density: float, ticket: packed.Ticket) -> None:
        """The same in the record: the cells of the ticket and of the controls drawn from it."""
        torn = {name: torch.from_numpy(np.array(mask)) for name, mask in ticket[1].items()}
        shuffled, _ = controls.shuffled(torn, seed)
        alive = networks.effective(self.task.network, self.task.network.depth, dict(torn))
        flops = networks.sparse_flops(self.task.network, self.task.network.depth, torn)
        for cell in self.cells(seed=seed, density=density):
            if cell["kind"] in ("ticket", "untrained", *REINITS):
                cell["masks"] = masks.digest(torn)
                steps = cell["flops_training"] // cell["flops_inference"]
                cell["flops_inference"], cell["flops_training"] = flops, steps * flops
            if cell["kind"] == "shuffled":
                cell["masks"] = masks.digest(shuffled)
            if cell["kind"] in ("ticket", "untrained") and cell["schedule"] == 1:
                cell["layers"], cell["effective"] = masks.counts(torn), masks.kept(alive)
                cell["effective_nodes"] = networks.effective_nodes(alive)

    def raised(self, cell: Table, by: int) -> None:
        """So many more right answers at the end (or fewer), in every file that tells of them."""
        name = f"{cell['kind']}/{cell['density']!r}/{cell['seed']}/{cell['schedule']}"
        truth, given = testset.test_examples(self.task, cell["seed"]).y, self.answers[name]
        if by >= 0:
            changed = np.flatnonzero(given != truth)[:by]
            given[changed] = truth[changed]
        else:
            changed = np.flatnonzero(given == truth)[:-by]
            given[changed] = (truth[changed] + 1) % self.task.data.classes
        moved = len(changed) if by >= 0 else -len(changed)
        cell["correct"]["test"][-1] += moved
        self.curves[f"{name}/test"][-1] += moved

    def made(self, path: Path) -> Path:
        """The forged bundle: aggregates computed again, a manifest that fits."""
        table = {k: v for k, v in self.record.items() if k not in ("aggregates", "scorer")}
        self.members[f"{self.task.name}/{bundles.RECORD}"] = file_bytes(build(table))
        for file, held in ((bundles.ANSWERS, self.answers), (bundles.CURVES, self.curves)):
            self.members[f"{self.task.name}/{file}"] = arrays.dumps({}, held)
        path.write_bytes(bundles.contain(self.members))
        return path


def moved_bit(ticket: packed.Ticket) -> packed.Ticket:
    """The same ticket with one kept weight given up for its neighbour that was pruned."""
    header, chosen, weights = ticket
    name = sorted(chosen)[0]
    flat = np.array(chosen[name]).reshape(-1)
    off = int(np.flatnonzero(flat)[0])
    flat[[off, int(np.flatnonzero(~flat)[0])]] = False, True
    return header, {**chosen, name: flat.reshape(chosen[name].shape)}, weights
