"""Synthetic records for tests: plausible counts, drawn from a seed, through `record.build`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from lthbench.io.paths import digest
from lthbench.protocol.task import Controls, controlled
from lthbench.records import metrics
from lthbench.records.schema import Carried, Record, build
from tests.scoring import score_of

Kind = Literal["accuracy", "area"]

ACCURACY: dict[str, Any] = {
    "name": "lenet300-mnist", "version": 1, "digest": digest(b"accuracy"), "kind": "accuracy",
    "schedule": "linear", "chance": 0.1, "threshold": 0.95, "steps": 12000, "every": 600,
    "weights": 266200, "ladder": [0.8**n for n in (3, 7, 11, 15, 19, 23)],
}  # fmt: skip
AREA: dict[str, Any] = {
    "name": "mlp-modadd59", "version": 1, "digest": digest(b"area"),
    "kind": "area", "schedule": "constant", "chance": 1 / 59, "threshold": 0.95,
    "steps": 1000, "every": 10, "weights": 43904, "ladder": [0.8**n for n in (3, 6, 9)],
}  # fmt: skip
SIZES = {
    "accuracy": {"held_out": 5000, "test": 10000, "train": 55000},
    "area": {"train": 1770, "held_out": 170, "test": 1541},
}
DENSE = 0.984
# Points that each kind of network loses below a density, by halvings below it.
LOSES = {
    "ticket": (0.08, 0.0035), "reinit": (0.2, 0.006), "shuffled": (0.3, 0.008),
    "reinit-signs": (0.15, 0.005), "erk": (0.3, 0.0095), "random": (0.4, 0.016),
}  # fmt: skip
Place = tuple[str, float, int]  # kind, density, seed


@dataclass(frozen=True)
class Wanted:
    """What kind of record is drawn."""

    task: Mapping[str, Any]
    seeds: tuple[int, ...]
    final: bool
    controls: Controls
    division: Literal["init", "rewind", "open", "reference"]
    compressed: bool

    @property
    def controlled(self) -> list[float]:
        """The rungs that have controls."""
        return list(controlled(self.task["ladder"], self.controls))


def synthetic_record(
    seed: int = 0,
    kind: Kind = "accuracy",
    seeds: int = 5,
    *,
    name: str = "imp",
    final: bool = True,
    reference: bool = True,
    controls: Controls = "all",
    division: Literal["init", "rewind", "open", "reference"] = "init",
    cost: float = 23.0,
    compressed: bool = True,
    task: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    described: Mapping[str, str] | None = None,
    sizes: Mapping[str, int] | None = None,
    bad: Mapping[Place, tuple[str, str]] | None = None,
) -> Record:
    """A record with counts that look like a method's, the same for the same arguments.

    Args:
        seed: of the drawn counts, not of the record.
        seeds: how many seeds; published ones with final, development ones without.
        reference: whether there is a frozen reference.
        division: of all tickets; anything but "init" starts at a later step or is free.
        task: keys of the task's entry that differ from the ordinary ones.
        sizes: examples of each set that differ from the ordinary ones.
        bad: the status and reason of cells that are not ok, by kind, density and seed.
    """
    ordinary = ACCURACY if kind == "accuracy" else AREA
    first = 0 if final else 1000
    wanted = Wanted(
        task={**ordinary, **(task or {})},
        seeds=tuple(range(first, first + seeds)),
        final=final,
        controls=controls,
        division=division,
        compressed=compressed and kind == "accuracy",
    )
    parts = {part: n for part, n in SIZES[kind].items() if final or part != "test"}
    parts |= {part: n for part, n in (sizes or {}).items() if part in parts}
    cells = [_cell(wanted, parts, seed, *place) for place in _places(wanted)]
    for cell in cells:
        place = (cell["kind"], cell["density"], cell["seed"])
        if place in (bad or {}):
            cell["status"], cell["reason"] = (bad or {})[place]
            cell["correct"] = {}
    table = {
        "method": {
            "name": name,
            "digest": digest(name.encode()),
            "options": dict(options or {"rate": 0.2}),
            "described": dict(described or {"paper": "Frankle & Carbin 2019"}),
        },
        "task": wanted.task,
        "final": final,
        "shown": "test" if final else "held_out",
        "seeds": wanted.seeds,
        "controls": controls,
        "fingerprints": {"train.x": digest(b"train.x")},
        "sizes": {str(number): dict(parts) for number in wanted.seeds},
        "cells": cells,
        "searches": [
            {"seed": number, "status": "ok", "reason": "", "cost": cost} for number in wanted.seeds
        ],
        "reference": _reference(wanted, parts, seed) if reference else None,
        "environment": {"lthbench": "0.1.0", "torch": "2.11.0", "device": "cpu", "threads": "1"},
        "times": {"find_seconds": 812.5, "score_seconds": 301.25},
    }
    return build(table)


def as_file(table: Mapping[str, Any]) -> dict[str, Any]:
    """A record's table as its file has it: of the runs what is as usual is left out."""
    usual = {
        name: list(field.default) if isinstance(field.default, tuple) else field.default
        for name, field in Carried.model_fields.items()
        if not field.is_required()
    }

    def lean(run: Any) -> Any:
        if not isinstance(run, dict):
            return run
        return {
            name: value
            for name, value in run.items()
            if name not in usual or type(value) is not type(usual[name]) or value != usual[name]
        }

    made = {**table, "cells": [lean(run) for run in table["cells"]]}
    if table.get("arrivals"):
        rows = table["arrivals"]
        made["arrivals"] = [{n: v for n, v in row.items() if v is not None} for row in rows]
    if table.get("transfer"):
        moved = table["transfer"]
        made["transfer"] = {**moved, "cells": [lean(run) for run in moved["cells"]]}
    return made


def as_table(raw: bytes) -> dict[str, Any]:
    """The whole table of a record's file, with all that it leaves out."""
    return Record.model_validate_json(raw).model_dump(mode="json")


def _places(wanted: Wanted) -> list[tuple[str, float, int, int]]:
    """Kind, density, seed and schedule of every cell, in a record's order."""
    places = []
    for seed in wanted.seeds:
        places.append(("dense", 1.0, seed, 1))
        for density in wanted.task["ladder"]:
            kinds = ["erk", "random", "reinit", "reinit-signs", "shuffled", "ticket"]
            if wanted.division == "reference":
                kinds = [kind for kind in kinds if not kind.startswith("reinit")]
            chosen = kinds if density in wanted.controlled else ["ticket"]
            places += [(kind, density, seed, 1) for kind in chosen]
        if wanted.compressed:
            rung = wanted.task["ladder"][min(1, len(wanted.task["ladder"]) - 1)]
            for schedule in (2, 4, 8):
                places.append(("dense", 1.0, seed, schedule))
                places += [(kind, rung, seed, schedule) for kind in ("reinit", "ticket")]
    return places


def _generator(*names: object) -> np.random.Generator:
    key = int(digest(repr(names).encode())[:32], 16)
    return np.random.Generator(np.random.Philox(key=key))


def _cell(
    wanted: Wanted,
    parts: Mapping[str, int],
    draw: int,
    kind: str,
    density: float,
    seed: int,
    schedule: int,
) -> dict[str, Any]:
    """One ok cell."""
    task = wanted.task
    kept = round(density * task["weights"])
    rewound = kind not in ("dense", "random", "erk") and wanted.division != "init"
    origins = {"init": "init", "rewind": "rewind", "open": "free", "reference": "final"}
    counts = _counts(task, parts, draw, kind, density, seed, schedule)
    start = task["every"] if rewound and wanted.division == "rewind" else 0
    effective = kept - kept // 100 if density < 0.02 else kept
    return {
        "seed": seed,
        "kind": kind,
        "density": density,
        "schedule": schedule,
        "requested": kept,
        "kept": kept,
        "effective": effective if kind == "ticket" else None,
        "effective_nodes": round(500 * density**0.3) if kind == "ticket" else None,
        "flops_inference": 2 * kept,
        "flops_training": 6 * kept * 60 * (task["steps"] // schedule - start),
        "distance": float(f"{20 * density**0.4 / schedule:.6g}"),
        "layers": {"hidden.0.weight": kept // 2, "head.weight": kept - kept // 2}
        if kind == "ticket"
        else {},
        "masks": None if kind == "dense" else digest(repr((kind, density, seed)).encode()),
        "weights": digest(repr(seed).encode()),
        "origin": origins[wanted.division] if rewound else "init",
        "start": start,
        "division": wanted.division if rewound else "init",
        "correct": _kept(counts, kind, task, bool(start)),
        "status": "ok",
        "reason": "",
        "attempt": 0,
        "own_shuffle": ["head.weight"] if kind == "shuffled" and density > 0.5 else [],
    }


def _kept(
    counts: Mapping[str, list[int]], kind: str, task: Mapping[str, Any], late: bool
) -> dict[str, list[int]]:
    """The curves past the start; of the training part the end alone where no score reads more."""
    subject = kind in ("dense", "ticket") and task["kind"] == "area"
    kept = {part: row if subject or part != "train" else row[-1:] for part, row in counts.items()}
    return {part: row[1:] if late and len(row) > 1 else row for part, row in kept.items()}


def _counts(
    task: Mapping[str, Any],
    parts: Mapping[str, int],
    draw: int,
    kind: str,
    density: float,
    seed: int,
    schedule: int,
) -> dict[str, list[int]]:
    """Correct answers on each set along the grid; the end alone for a compressed schedule."""
    dice = _generator("counts", draw, kind, density, seed, schedule)
    grid = np.arange(task["every"], task["steps"] + 1, task["every"]) / task["steps"]
    counts = {}
    shift = dice.normal()
    for part, size in parts.items():
        if task["kind"] == "area":
            curve = _grokking(part, kind, density, grid, shift)
        else:
            curve = _learning(task["chance"], kind, density, grid, shift, schedule)
        drawn = dice.binomial(size, np.clip(curve, 0, 1)).tolist()
        counts[part] = drawn[-1:] if schedule > 1 else drawn
    return counts


def _learning(
    chance: float, kind: str, density: float, grid: np.ndarray, shift: float, schedule: int
) -> np.ndarray:
    """Accuracy over the share of steps: towards what this kind of network reaches."""
    reached = DENSE + 0.0007 * shift - 0.0015 * math.log2(schedule)
    if kind in LOSES:
        knee, loss = LOSES[kind]
        below = max(0.0, math.log2(knee / density))
        reached += (0.001 if kind == "ticket" and density > knee else 0) - loss * below**1.6
    return reached - (reached - chance) * np.exp(-18 * grid**0.7)


def _grokking(part: str, kind: str, density: float, grid: np.ndarray, shift: float) -> np.ndarray:
    """Accuracy over the share of steps: memorises early, generalises late, sparse ones too late."""
    knee = {"dense": 0.0, "ticket": 0.3, "reinit": 0.8}.get(kind, 1.0)
    late = 0.5 + 0.02 * shift + (0.35 * max(0.0, math.log2(knee / density)) if knee else 0)
    middle = 0.05 if part == "train" else late
    return 1 / 59 + (0.998 - 1 / 59) / (1 + np.exp(-(grid - middle) / (0.15 * middle)))


def _reference(wanted: Wanted, parts: Mapping[str, int], draw: int) -> dict[str, Any]:
    """Ten dense runs and the losses of ten ERK tickets, as a frozen reference holds them."""
    shown, task = "test" if wanted.final else "held_out", wanted.task
    table = {"task": task, "shown": shown, "sizes": {"0": dict(parts)}}

    def score(kind: str, density: float, number: int) -> float:
        counts = _counts(task, parts, draw, kind, density, -1 - number, 1)
        return score_of(table, {"seed": 0, "status": "ok", "correct": counts})

    dense = [score("dense", 1.0, number) for number in range(10)]
    erk = [[score("erk", d, number) for d in task["ladder"]] for number in range(10)]
    weights = metrics.log_density_weights(task["ladder"])
    return {
        "digest": digest(b"reference"),
        "provisional": False,
        "dense": dense,
        "margin": metrics.margin(dense, parts[shown]),
        "loss_random": metrics.loss_points(dense, erk, weights).tolist(),
    }
