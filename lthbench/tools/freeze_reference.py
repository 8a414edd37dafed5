"""Freeze a task's reference from IMP's final evaluation of it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from lthbench.errors import RecordError
from lthbench.io.paths import canonical_json, digest, shipped, write_whole
from lthbench.protocol.constants import RANDOM
from lthbench.protocol.design import Place
from lthbench.records import aggregate, metrics, transfer_score
from lthbench.records.aggregate import Table
from lthbench.records.reference import PROVISIONAL_BELOW, Floors, Noise, Reference, Values
from lthbench.records.schema import Record, TransferEntry, file_bytes, read_record


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
    table = record.model_dump(mode="json")
    dense = tuple(c for c in record.cells if c.kind == "dense" and c.schedule == 1)
    return Reference(
        schema_version=2,
        task=record.task.name,
        version=record.task.version,
        task_digest=record.task.digest,
        provisional=len(record.seeds) < PROVISIONAL_BELOW,
        seeds=record.seeds,
        values={
            "held_out": _values(record, table, "held_out"),
            "test": _values(record, table, "test"),
        },
        dense=dense,
        controls=tuple(c for c in record.cells if c.kind in RANDOM and c.status == "ok"),
        transfer=_transferred(record),
        noise=noise,
        noise_at=noise_at or None,
        sizes=record.sizes,
        environment=record.environment,
        environments=record.environments,
        record=digest(canonical_json(_without_reference(table))),
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


def _at_targets(
    record: Record, table: Table, part: str
) -> dict[str, dict[str, list[float]]] | None:
    """Return scores of erk and IMP, one per seed, by depth and rung."""
    moved = _transferred(record)
    found: dict[str, dict[str, list[float]]] = {}
    for cell in moved.cells if moved else ():  # in order of seeds
        name = "imp" if cell.kind == "direct" else cell.kind
        if cell.status != "ok":
            raise RecordError(f"{name} at depth {cell.depth}, seed {cell.seed}: it failed")
        rung = found.setdefault(transfer_score.key(cell.depth, cell.density), {})
        score = aggregate.score_of(table, cell.model_dump(mode="json"), part)
        rung.setdefault(name, []).append(score)
    return found or None


def _without_reference(table: Table) -> dict[str, object]:
    """Return only a record's cells: the reference changes its scores, not what was trained."""
    names = ("method", "task", "seeds", "cells", "sizes", "transfer")
    return {name: table[name] for name in names if name in table}


def _values(record: Record, table: Table, part: str) -> Values:
    cells = {cell.place: cell for cell in record.cells}

    def of(kind: str, density: float) -> list[float]:
        chosen = [cells.get(Place(kind, density, seed)) for seed in record.seeds]
        ok = [cell.model_dump(mode="json") for cell in chosen if cell and cell.status == "ok"]
        if len(ok) < len(chosen):
            raise RecordError(f"{kind} at density {density:.4g}: a seed is missing or failed")
        return [aggregate.score_of(table, cell, part) for cell in ok]

    ladder = record.task.ladder
    weights = metrics.log_density_weights(ladder)
    dense = of("dense", 1.0)

    def loss(kind: str) -> tuple[float, ...]:
        rows = zip(*(of(kind, density) for density in ladder), strict=True)
        return tuple(metrics.loss_points(dense, [list(row) for row in rows], weights).tolist())

    return Values(
        dense=tuple(dense),
        margin=metrics.margin(dense, min(sets[part] for sets in record.sizes.values())),
        loss_random=loss("erk"),
        loss_imp=loss("ticket"),
        transfer=_at_targets(record, table, part),  # type: ignore[arg-type]
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


def _floors(table: Mapping[str, object], rungs: int) -> Floors:
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
