"""Freeze a task's reference from IMP's final evaluation of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lthbench.errors import RecordError
from lthbench.io.paths import canonical_json, digest, shipped, write_whole
from lthbench.protocol.constants import RANDOM
from lthbench.records import metrics, runs, transfer_score
from lthbench.records.reference import PROVISIONAL_BELOW, Floors, Noise, Reference, Values
from lthbench.records.schema import Record, TransferEntry, file_bytes, read_record

# What was trained; the reference changes a record's scores alone.
TRAINED = {"method", "task", "seeds", "cells", "sizes", "transfer"}


def build(
    record: Record, noise: Floors | None = None, noise_at: dict[str, Floors] | None = None
) -> Reference:
    """Build the reference from IMP's final record; erk's tickets are the record's erk controls.

    Args:
        record: IMP's final record.
        noise: Measured by `lthbench.tools.noise_floor`, as stored in a reference.
        noise_at: The same by depth, at the transfer targets.
    """
    if record.method.name != "imp" or not record.final or record.controls != "all":
        raise RecordError("a reference is made from `lthbench evaluate imp --final --controls all`")
    dense = tuple(c for c in record.cells if c.kind == "dense" and c.schedule == 1)
    return Reference(
        schema_version=2,
        task=record.task.name,
        version=record.task.version,
        task_digest=record.task.digest,
        provisional=len(record.seeds) < PROVISIONAL_BELOW,
        seeds=record.seeds,
        values={"held_out": _values(record, "held_out"), "test": _values(record, "test")},
        dense=dense,
        controls=tuple(c for c in record.cells if c.kind in RANDOM and c.status == "ok"),
        transfer=_transferred(record),
        noise=noise,
        noise_at=noise_at or None,
        sizes=record.sizes,
        environment=record.environment,
        environments=record.environments,
        record=digest(canonical_json(record.model_dump(mode="json", include=TRAINED))),
    )


def searched_at_targets(record: Record) -> bool:
    """Whether IMP has tickets of its own at the targets, as with `--direct`."""
    moved = record.transfer
    return moved is not None and any(cell.kind == "direct" for cell in moved.cells)


def _transferred(record: Record) -> TransferEntry | None:
    """Return what later records share: erk at the targets, and IMP's own tickets there."""
    moved = record.transfer
    if moved is None or not searched_at_targets(record):
        return None
    cells = tuple(cell for cell in moved.cells if cell.kind in ("erk", "direct"))
    return moved.model_copy(update={"cells": cells})


def _at_targets(record: Record, part: str) -> dict[str, dict[str, list[float]]] | None:
    """Return scores of erk and IMP, one per seed, by depth and rung."""
    moved = record.transfer
    if moved is None or not searched_at_targets(record):
        return None
    found: dict[str, dict[str, list[float]]] = {}
    for cell in moved.cells:  # in order of seeds
        name = {"erk": "erk", "direct": "imp"}.get(cell.kind)
        if name and cell.status != "ok":
            raise RecordError(f"{name} at depth {cell.depth}, seed {cell.seed}: it failed")
        if name:
            rung = found.setdefault(transfer_score.key(cell.depth, cell.density), {})
            rung.setdefault(name, []).append(runs.score_of(record, cell, part))
    return found


def _values(record: Record, part: str) -> Values:
    def of(kind: str, density: float) -> list[float]:
        chosen = [
            c
            for seed in record.seeds
            for c in record.cells
            if (c.kind, c.density, c.schedule, c.seed) == (kind, density, 1, seed)
        ]
        if len(chosen) != len(record.seeds) or any(c.status != "ok" for c in chosen):
            raise RecordError(f"{kind} at density {density:.4g}: a seed is missing or failed")
        return [runs.score_of(record, cell, part) for cell in chosen]

    ladder = record.task.ladder
    weights = metrics.log_density_weights(ladder)
    dense = of("dense", 1.0)

    def loss(kind: str) -> tuple[float, ...]:
        rows = zip(*(of(kind, density) for density in ladder), strict=True)
        return tuple(metrics.loss_points(dense, [list(row) for row in rows], weights).tolist())

    sizes = [sets[part] for sets in record.sizes.values()]
    return Values(
        dense=tuple(dense),
        margin=metrics.margin(dense, min(sizes)),
        loss_random=loss("erk"),
        loss_imp=loss("ticket"),
        transfer=_at_targets(record, part),  # type: ignore[arg-type]
    )


def _noise(path: Path, record: Record) -> tuple[Floors, dict[str, Floors]] | tuple[()]:
    """Return the noise floors measured beside a record, if any."""
    if not path.is_file():
        return ()
    rungs = len(record.task.ladder)
    try:
        made = json.loads(path.read_bytes())
        same = made["task"] == record.task.digest
        own = _floors(made["floors"], rungs)
        moved = {
            depth: _floors(table, len(record.transfer.densities) if record.transfer else 0)
            for depth, table in made.get("targets", {}).items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(
            f"{path}: damaged, or of other rungs; run lthbench dev noise again"
        ) from error
    if not same:
        raise RecordError(f"{path}: floors of another protocol; run lthbench dev noise again")
    return own, moved


def _floors(table: Mapping[str, Any], rungs: int) -> Floors:
    """Parse the floors of both sets; ValueError if a set or a rung is missing."""
    found = {part: Noise.model_validate_json(json.dumps(table[part])) for part in table}
    if set(found) != {"held_out", "test"} or any(
        (len(noise.score), len(noise.curve)) != (rungs, rungs) for noise in found.values()
    ):
        raise ValueError("other sets or rungs")
    return found  # type: ignore[return-value]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write leaderboard/reference/<task>.json from a record."""
    parser = argparse.ArgumentParser(prog="lthbench dev reference")
    parser.add_argument("folder", type=Path, help="OUT/<task> of IMP's final evaluation")
    folder = parser.parse_args(arguments).folder
    record = read_record(folder / "record.json")
    reference = build(record, *_noise(folder / "noise.json", record))
    path = shipped("leaderboard") / "reference" / f"{record.task.name}.json"
    write_whole(path, file_bytes(reference))
    print(path)
