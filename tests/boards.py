"""Synthetic leaderboards for tests and speed scripts: a whole folder of records that hold.

Cells, curves and controls are as many as those of a real record; references, ledger, names,
digests and aggregates fit, so that `entries.load` takes the folder. Nothing was ever trained, and
the rules of level 0 would say so: divisions, layers and start weights are drawn, not a task's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lthbench.io.paths import canonical_json, digest, write_whole
from lthbench.leaderboard.board.entries import Board, Entry, State
from lthbench.leaderboard.board.ledger import Ledger
from lthbench.protocol import task as task_module
from lthbench.protocol.constants import PARTS
from lthbench.protocol.task import PUBLISHED, Task, load_task, task_names
from lthbench.records import aggregate
from lthbench.records.reference import Noise, Reference
from lthbench.records.schema import SCHEMA, Record, file_bytes, record_digest
from lthbench.records.schema import build as build_record
from lthbench.tools.freeze_reference import build as build_reference
from tests.scoring import aggregates
from tests.synthetic import ACCURACY, AREA, _generator, _grokking, _learning, as_file

# The suite `lite` of these tests (see `small_lite`): three of its tasks.
LITE = ("mlp-modadd59", "lenet300-mnist", "transformer-modadd59")
NOTHING = "0" * 64
FROZEN = 10  # seeds of a reference
# N, the prunable weights, at each depth of a task: counting them would import torch.
WEIGHTS: Mapping[str, Mapping[int, int]] = {
    "conv4-cifar10": {2: 2425024},
    "lenet300-mnist": {1: 266200, 2: 356200, 3: 446200},
    "mlp-digits": {1: 50200, 2: 140200, 3: 230200},
    "mlp-mnist1d": {1: 6400, 2: 22784, 3: 39168},
    "mlp-modadd59": {1: 27712, 2: 44096, 3: 60480},
    "resnet-mnist1d": {1: 7056},
    "resnet8-cifar10": {1: 19608},
    "resnet20-cifar10": {2: 174128, 3: 270896, 5: 464432},
    "resnet20-cifar10-160": {2: 174128, 3: 270896, 5: 464432},
    "transformer-modadd113": {1: 225664, 2: 422272, 3: 618880},
    "transformer-modadd59": {1: 56768, 2: 105920, 3: 155072},
    "vit-mnist1d": {2: 66688},
    "vit-tiny-cifar10": {4: 1780608, 6: 2665344, 8: 3550080},
    "vit-tiny-imagenette": {8: 3688320, 12: 5457792, 16: 7227264},
}
# Those whose records stay under 300 kB with what was carried to other depths.
CARRYING = ("lenet300-mnist", "mlp-digits", "mlp-modadd59", "resnet20-cifar10", "vit-tiny-cifar10")
SIGNALS = {"held_out": 400, "test": 1000, "train": 3600}
SIZES = {
    "mlp-mnist1d": SIGNALS,
    "resnet-mnist1d": SIGNALS,
    "vit-mnist1d": SIGNALS,
    "mlp-digits": {"held_out": 144, "test": 360, "train": 1293},
    "vit-tiny-imagenette": {"held_out": 947, "test": 3925, "train": 8522},
    "mlp-modadd59": {"train": 2786, "held_out": 68, "test": 627},
    "transformer-modadd59": {"train": 2439, "held_out": 104, "test": 938},
    "transformer-modadd113": {"train": 3800, "held_out": 450, "test": 4060},
}
NAMES = ("snip", "grasp", "synflow", "force", "oneshot", "sign_only", "tangent", "elastic")
PAPERS = {
    "snip": "Lee et al. 2019, arXiv:1810.02340",
    "grasp": "Wang et al. 2020, arXiv:2002.07376",
}
ORIGINS = {"init": "init", "rewind": "rewind", "open": "free", "reference": "final"}
Cell = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """One training, before its counts are drawn."""

    kind: str
    density: float
    seed: int
    schedule: int = 1
    depth: int = 0  # 0: the task's own


@dataclass(frozen=True)
class Protocol:
    """What a synthetic record needs to know of a task."""

    entry: Mapping[str, Any]
    untrained: tuple[float, ...]
    sizes: Mapping[str, int]
    fingerprints: Mapping[str, str]
    tensors: tuple[str, ...]
    carried: Mapping[str, Any] | None  # source, targets, densities and sizes
    batch: int = 60  # examples in a step
    compressed: bool = True  # whether schedules are, where an accuracy falls from a falling rate


@dataclass(frozen=True)
class Method:
    """A method that does not exist."""

    name: str
    division: str
    untrained: bool
    quality: float  # how many times sparser it stays good than another
    cost: float
    level: int


@contextmanager
def small_lite() -> Iterator[None]:
    """A suite `lite` of three tasks, of five seeds each: tests' boards are small, and the tasks
    that are shipped may change."""
    read = task_module._read

    def smaller(path: Path, model: type[task_module.Model]) -> task_module.Model:
        found = read(path, model)
        if path.name == "lite.toml":
            return found.model_copy(update={"tasks": LITE, "transfer": LITE, "controls": "all"})
        return found.model_copy(update={"seeds": PUBLISHED}) if path.stem in LITE else found

    def forget() -> None:
        for kept in (protocol, reference_of, _shared):
            kept.cache_clear()

    forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task_module, "_read", smaller)
        yield
    forget()


def synthetic_board(
    folder: Path,
    entries: int = 30,
    tasks: Sequence[str] = LITE,
    seed: int = 0,
    *,
    levels: Sequence[int] = (2, 2, 3, 2, 2, 1, 2, 0),
    listed: int = 0,
) -> Path:
    """Write `records/`, `reference/` and `ledger.jsonl`; returns the folder.

    Record number i is of method i // len(tasks) on task i % len(tasks); method 0 is imp. The same
    arguments give the same bytes, and more entries leave the others' as they are.

    Args:
        tasks: real names, or made-up ones (with "mod" in the name: of modular addition).
        levels: of the methods, in turn; 0 has no line of a level.
        listed: how many of the last records the ledger does not tell of.
    """
    for name in tasks:
        reference = reference_of(name, seed)
        path = folder / "reference" / f"{name}.json"
        write_whole(path, file_bytes(reference))
    told: dict[tuple[str, str], str] = {}
    for place in range(entries):
        name, method = (
            tasks[place % len(tasks)],
            method_of(place // len(tasks), seed, tuple(levels)),
        )
        table = _scored(_table(name, seed, method, place // len(tasks)))
        raw = canonical_json(as_file(table))
        told[name, method.name] = digest(raw)
        path = folder / "records" / name / f"{method.name}--{digest(raw)[:8]}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(raw)
    _write_ledger(folder, told, entries - listed, tasks, seed, levels)
    return folder


def board_record(
    task: str,
    number: int = 1,
    seed: int = 0,
    *,
    method: Method | None = None,
    seeds: int | None = None,
    options: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Record:
    """One record as on a board, some of its keys changed and its aggregates computed again."""
    table = _table(task, seed, method or method_of(number, seed), number, seeds)
    if options is not None:
        table["method"] = {**table["method"], "options": dict(options)}
    return build_record({**table, **changes})


def entry_of(
    record: Record, number: int = 1, level: int = 2, state: State = "accepted", **changes: Any
) -> Entry:
    """An entry of a board that no folder holds, accepted at a line of its ledger."""
    found = record_digest(record)
    name = f"{record.method.name}--{found[:8]}"
    line = {"n": number, "act": "accept", "entry": found}
    entry = Entry(
        id=name,
        digest=found,
        file=f"records/{record.task.name}/{name}.json",
        record=record,
        level=level,
        state=state,
        of=None,
        challenges=(),
        lines=() if state == "listed" else (line,),
    )
    return replace(entry, **changes)


def board_of(entries: Iterable[Entry], tasks: Sequence[str] = LITE, seed: int = 0) -> Board:
    """A board that no folder holds, with the references of its tasks."""
    ordered = sorted(entries, key=lambda entry: (entry.record.task.name, entry.id))
    return Board(tuple(ordered), Ledger(), {name: reference_of(name, seed) for name in tasks})


@cache
def method_of(number: int, seed: int, levels: tuple[int, ...] = (2,)) -> Method:
    """The method of a number: imp is the first, one in eight is untrained."""
    level = levels[number % len(levels)]
    if number == 0:
        return Method("imp", "init", False, 0.7, 23.0, level)
    dice = _generator("method", seed, number)
    division = ("init", "init", "rewind", "init", "open", "init", "rewind", "init")[number % 8]
    if number % 20 == 12:
        division = "reference"
    return Method(
        name=f"{NAMES[number % len(NAMES)]}-{number:04d}",
        division=division,
        untrained=number % 8 == 3,
        quality=float(np.exp(dice.normal(-1.2, 0.8))),
        cost=round(float(10 ** dice.uniform(-3.5, 1.4)), 6),
        level=level,
    )


@cache
def protocol(name: str) -> Protocol:
    """A task's protocol: a real one where there is one of this name, else a made-up one."""
    if name in task_names():
        return _real(load_task(name))
    made = AREA if "mod" in name else ACCURACY
    sizes = {"train": 1744, "held_out": 176, "test": 1561}
    return Protocol(
        entry={**made, "name": name, "digest": digest(name.encode())},
        untrained=(0.8, 0.64, 0.512, 0.32768),
        sizes=sizes if "mod" in name else {"held_out": 5000, "test": 10000, "train": 55000},
        fingerprints={"generated": digest(f"data {name}".encode())},
        tensors=("hidden.0.weight", "head.weight"),
        carried=None,
    )


def _real(task: Task) -> Protocol:
    weights, depth, moved = WEIGHTS[task.name], task.network.depth, task.transfer
    carried = None
    if moved and task.name in CARRYING:
        carried = {
            "source": moved.source,
            "targets": list(moved.targets),
            "densities": list(moved.densities),
            "sizes": {str(target): weights[target] for target in moved.targets},
        }
    sizes = SIZES.get(task.name, {"held_out": 5000, "test": 10000, "train": 55000})
    prints = dict(task.data.fingerprints) or {"generated": digest(f"data {task.name}".encode())}
    return Protocol(
        entry={
            "name": task.name,
            "version": task.version,
            "digest": task.digest,
            "kind": task.score.kind,
            "schedule": task.recipe.schedule,
            "chance": task.chance,
            "threshold": task.score.threshold,
            "steps": task.recipe.steps,
            "every": task.score.every,
            **({"seeds": task.seeds} if task.seeds != PUBLISHED else {}),
            "weights": weights[depth],
            "ladder": list(task.ladder.trained),
        },
        untrained=task.ladder.untrained,
        sizes=sizes,
        fingerprints=prints,
        tensors=("hidden.0.weight", "neck.weight", "head.weight"),
        carried=carried,
        batch=task.recipe.batch_size(sizes["train"]),
        compressed=bool(task.score.compressed_density),
    )


@cache
def reference_of(name: str, seed: int = 0) -> Reference:
    """The reference of a task's board, made from an IMP of ten seeds as the real ones are."""
    table = _table(name, seed, method_of(0, seed), 0, seeds=FROZEN, frozen=False)
    record = build_record(table)
    rungs = len(record.task.ladder)
    scale = 0.05 if record.task.kind == "area" else 1  # of points, or of examples
    floors = [round(scale * (3 + 0.8 * rung), 3) for rung in range(rungs)]
    noise = Noise(score=floors, curve=floors)
    return build_reference(record, {"held_out": noise, "test": noise})


# Cells


@cache
def _shared(name: str, seed: int) -> Mapping[Place, Cell]:
    """Dense runs and the controls of random masks, which all methods have in common."""
    task, ladder = protocol(name), protocol(name).entry["ladder"]
    places = [Place("dense", 1.0, s) for s in range(FROZEN)]
    if _compresses(task):
        places += [Place("dense", 1.0, s, n) for s in range(FROZEN) for n in (2, 4, 8)]
    places += [Place(k, d, s) for s in range(FROZEN) for d in ladder for k in ("erk", "random")]
    if task.carried:
        places += [
            Place("erk", d, s, depth=to)
            for s in range(FROZEN)
            for to in task.carried["targets"]
            for d in task.carried["densities"]
        ]
    return dict(zip(places, _drawn(name, places, seed, None, 0), strict=True))


def _compresses(task: Protocol) -> bool:
    falls = task.entry["kind"] == "accuracy" and task.entry["schedule"] != "constant"
    return task.compressed and falls


def _own_places(task: Protocol, method: Method, seeds: int) -> list[Place]:
    """What is trained for one method alone."""
    ladder = task.untrained if method.untrained else task.entry["ladder"]
    kinds = ["reinit", "shuffled", "ticket"]
    kinds += ["untrained", "untrained_random"] if method.untrained else ["reinit-signs"]
    if method.division == "reference":
        kinds = [kind for kind in kinds if not kind.startswith("reinit")]
    places = [Place(kind, d, s) for s in range(seeds) for d in ladder for kind in kinds]
    if _compresses(task) and not method.untrained:
        rung = ladder[min(1, len(ladder) - 1)]
        both = [kind for kind in ("reinit", "ticket") if kind in kinds]
        places += [Place(k, rung, s, n) for s in range(seeds) for n in (2, 4, 8) for k in both]
    if task.carried and not method.untrained:
        direct = ["direct"] if method.name == "imp" or method.cost < 0.05 else []
        for s in range(seeds):
            for to in task.carried["targets"]:
                for at, d in enumerate(task.carried["densities"]):
                    parts = [] if at else list(PARTS)
                    places += [Place(k, d, s, depth=to) for k in ("carried", *direct, *parts)]
    return places


def _drawn(
    name: str, places: Sequence[Place], seed: int, method: Method | None, number: int
) -> Iterator[Cell]:
    """Cells in the order of their places: one draw for all of their counts."""
    task = protocol(name)
    dice = _generator("board", seed, name, number if method else "shared")
    entry, parts = task.entry, tuple(task.sizes)
    grid = np.arange(entry["every"], entry["steps"] + 1, entry["every"]) / entry["steps"]
    shifts = dice.normal(size=len(places))
    quality = method.quality if method else 1.0
    chances = np.empty((len(places), len(parts), len(grid)))
    for row, place, shift in zip(chances, places, shifts, strict=True):
        kind, good = _looks_like(place, quality)
        for at, part in enumerate(parts):
            row[at] = (
                _standing(entry["chance"], place, quality, grid)
                if place.kind.startswith("untrained")
                else _grokking(part, kind, good, grid, shift)
                if entry["kind"] == "area"
                else _learning(entry["chance"], kind, good, grid, shift, place.schedule)
            )
    sizes = np.array([task.sizes[part] for part in parts])[None, :, None]
    counts = dice.binomial(sizes, np.clip(chances, 0, 1))
    for place, table in zip(places, counts, strict=True):
        yield _cell(task, place, dict(zip(parts, table, strict=True)), method, seed)


def _looks_like(place: Place, quality: float) -> tuple[str, float]:
    """The kind that a training learns like, and the density that it is as good as."""
    if place.kind in ("ticket", "carried", "direct"):
        return "ticket", min(1.0, place.density * quality)
    if place.kind.startswith("reinit"):
        return place.kind, min(1.0, place.density * quality**0.5)
    if place.kind in PARTS:
        return "shuffled", place.density
    return place.kind, place.density


def _standing(chance: float, place: Place, quality: float, grid: np.ndarray) -> np.ndarray:
    """Accuracy of a ticket that is not trained: best in the middle of its ladder."""
    if place.kind == "untrained_random":
        return np.full(grid.shape, chance)
    best = 0.9 * quality / (quality + 0.3)
    return np.full(grid.shape, max(chance, best - 0.5 * (place.density - 0.5) ** 2))


def _cell(
    task: Protocol,
    place: Place,
    counts: Mapping[str, np.ndarray],
    method: Method | None,
    seed: int,
) -> Cell:
    weights = task.carried["sizes"][str(place.depth)] if place.depth else task.entry["weights"]
    kept = round(place.density * weights)
    subject = place.kind in ("ticket", "untrained") and place.schedule == 1
    own = method is not None and place.kind not in (
        "direct",
        "untrained_random",
        *PARTS[:2],
    )
    division = method.division if method and own else "init"
    start = task.entry["every"] if division == "rewind" else 0
    carried = place.kind in ("carried", "weights-only")
    steps = task.entry["steps"] // place.schedule - start
    steps = 0 if place.kind.startswith("untrained") else steps
    name = repr((seed, method.name if method else "shared", place))
    share = kept // len(task.tensors)
    layers = dict.fromkeys(task.tensors, share)
    layers[task.tensors[-1]] = kept - share * (len(task.tensors) - 1)
    cell: Cell = {
        "seed": place.seed,
        "kind": place.kind,
        "density": place.density,
        "schedule": place.schedule,
        "requested": kept,
        "kept": kept,
        "effective": (kept - kept // 50 if place.density < 0.02 else kept) if subject else None,
        "effective_nodes": round(500 * place.density**0.3) if subject else None,
        "flops_inference": 2 * kept,
        "flops_training": 6 * kept * task.batch * steps,
        "distance": float(f"{20 * place.density**0.4 * steps / task.entry['steps']:.6g}"),
        "layers": layers if subject else {},
        "masks": None if place.kind == "dense" else digest(name.encode()),
        "weights": digest(repr((place.seed, place.depth, start)).encode()),
        "origin": "transferred" if carried else ORIGINS[division],
        "start": start,
        "division": division,
        "correct": _kept_counts(place, counts, bool(start), task.entry["kind"]),
        "status": "ok",
        "reason": "",
        "attempt": 0,
        "own_shuffle": [],
    }
    if place.depth:
        cell |= {"depth": place.depth, "source": ORIGINS[division] if carried else ""}
    return cell


def _kept_counts(
    place: Place, counts: Mapping[str, np.ndarray], late: bool, kind: str
) -> dict[str, list[int]]:
    """What a record keeps of the curves, as `score` keeps it."""
    if place.schedule > 1 or place.kind.startswith("untrained"):
        return {part: curve[-1:].tolist() for part, curve in counts.items()}
    subject = place.kind in ("dense", "ticket")
    curves = {p: c[1:] if late else c for p, c in counts.items()}
    if not subject or kind == "accuracy":
        curves["train"] = curves["train"][-1:]
    if not subject and place.kind not in ("erk", "direct"):
        curves["held_out"] = curves["held_out"][-5:]
    return {part: curve.tolist() for part, curve in curves.items()}


# Records


def _table(
    name: str,
    seed: int,
    method: Method,
    number: int,
    seeds: int | None = None,
    *,
    frozen: bool = True,
) -> dict[str, Any]:
    """A record's table without its aggregates. Imp is drawn with the reference's seeds always."""
    task = protocol(name)
    seeds = seeds or task.entry.get("seeds", PUBLISHED)
    drawn = FROZEN if method.name == "imp" else seeds
    places = _own_places(task, method, drawn)
    mine = dict(zip(places, _drawn(name, places, seed, method, number), strict=True))
    every = {p: c for p, c in {**_shared(name, seed), **mine}.items() if p.seed < seeds}
    if method.untrained:
        every = {
            p: c for p, c in every.items()
            if p.kind not in ("erk", "random") and (p.kind != "dense" or p.schedule == 1)
        }  # fmt: skip
    own = sorted((p for p in every if not p.depth), key=_order)
    away = sorted((p for p in every if p.depth), key=lambda p: (p.seed, p.depth, *_order(p)[1:]))
    ladder = task.untrained if method.untrained else task.entry["ladder"]
    table: dict[str, Any] = {
        "method": {
            "name": method.name,
            "digest": digest(f"source of {method.name}".encode()),
            "options": {"rate": 0.2},
            "described": {
                "name": method.name,
                "paper": PAPERS.get(method.name.partition("-")[0], "Nobody & Noone 2020"),
                "authors": "A. Nobody and B. Noone",
            },
        },
        "task": {**task.entry, "ladder": list(ladder)},
        "final": True,
        "shown": "test",
        "seeds": list(range(seeds)),
        "controls": "all",
        "fingerprints": dict(task.fingerprints),
        "sizes": {str(s): dict(task.sizes) for s in range(seeds)},
        "cells": [every[place] for place in own],
        "searches": [
            {"seed": s, "status": "ok", "reason": "", "cost": method.cost} for s in range(seeds)
        ],
        "reference": None,
        "environment": {"lthbench": "0.1.0", "torch": "2.11.0", "device": "cpu", "threads": "1"},
        "times": {"find_seconds": 812.5, "score_seconds": 301.25},
    }
    if task.carried and not method.untrained:
        cells = [every[place] for place in away]
        table["transfer"] = {**task.carried, "rule": "elastic", "reason": "", "cells": cells}
    if frozen:
        table["reference"] = reference_of(name, seed).frozen("test").model_dump(mode="json")
    return table


def _order(place: Place) -> tuple[int, float, str, int]:
    return place.seed, -place.density, place.kind, place.schedule


def _scored(table: dict[str, Any]) -> dict[str, Any]:
    whole = {**table, "schema_version": SCHEMA, "scorer": aggregate.VERSION}
    return {**whole, "aggregates": aggregates(whole)}


# The ledger


def _write_ledger(
    folder: Path,
    told: Mapping[tuple[str, str], str],
    accepted: int,
    tasks: Sequence[str],
    seed: int,
    levels: Sequence[int],
) -> None:
    """Accept the records in the order of their numbers, each with its level."""
    lines: list[bytes] = []
    head = NOTHING

    def add(act: str, name: str, method: Method, **keys: Any) -> None:
        nonlocal head
        common = {"n": len(lines) + 1, "previous": head, "act": act, "task": name}
        entry = {"entry": told[name, method.name], "method": method.name}
        lines.append(canonical_json({**common, **entry, **keys}))
        head = digest(lines[-1])

    for number in range(accepted):
        name = tasks[number % len(tasks)]
        method = method_of(number // len(tasks), seed, tuple(levels))
        add("accept", name, method, nonce=f"{number:064x}")
        if method.level:
            beacon = head if method.level > 1 else ""
            add("level", name, method, level=method.level, beacon=beacon, report={})
    write_whole(folder / "ledger.jsonl", b"".join(lines))
