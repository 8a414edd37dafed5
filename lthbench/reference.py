"""The frozen reference of a task: dense, imp and erk, which every score is read against.

Made from the record of `lthbench evaluate imp --final`, whose dense runs and erk controls it takes,
so that IMP's record and the reference are one run: `python -m lthbench.reference OUT/<task>`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from lthbench import scores, stats
from lthbench.errors import RecordError
from lthbench.paths import canonical_json, digest, shipped, write_whole
from lthbench.record import Cell, Frozen, Hex, Record, Short, read_record
from lthbench.task import Strict, Task

PROVISIONAL_BELOW = 10  # seeds


class Values(Strict):
    """What the scores read, on one set of examples."""

    dense: tuple[float, ...]
    margin: float
    loss_random: tuple[float, ...]
    loss_imp: tuple[float, ...]


class Reference(Strict):
    """One task's reference on both sets, with the dense runs that records pair with."""

    schema_version: Literal[1]
    task: Short
    version: int
    task_digest: Hex
    provisional: bool
    seeds: tuple[int, ...]
    values: dict[Literal["held_out", "test"], Values]
    dense: tuple[Cell, ...]
    sizes: dict[str, dict[str, int]]
    environment: dict[str, Short]
    record: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # digest of IMP's comparable record

    @property
    def digest(self) -> str:
        return digest(canonical_json(self.model_dump(mode="json")))

    def frozen(self, shown: Literal["held_out", "test"]) -> Frozen:
        """What a record holds of it."""
        values = self.values[shown]
        return Frozen(
            digest=self.digest,
            provisional=self.provisional,
            dense=values.dense,
            margin=values.margin,
            loss_random=values.loss_random,
        )


def load_reference(task: Task) -> Reference | None:
    """The task's reference; None if there is none for this very protocol."""
    path = shipped("leaderboard") / "reference" / f"{task.name}.json"
    if not path.is_file():
        return None
    try:
        reference = Reference.model_validate(json.loads(path.read_bytes()))
    except (ValidationError, ValueError) as error:
        raise RecordError(f"{path}: not a reference: {str(error).splitlines()[0]}") from error
    return reference if reference.task_digest == task.digest else None


def build(record: Record) -> Reference:
    """The reference from IMP's final record; erk's tickets are the record's erk controls."""
    if record.method.name != "imp" or not record.final or record.controls != "all":
        raise RecordError(
            "a reference is made from `lthbench evaluate imp --final` on a ranked suite"
        )
    table = record.model_dump(mode="json")
    dense = tuple(c for c in record.cells if c.kind == "dense" and c.schedule == 1)
    return Reference(
        schema_version=1,
        task=record.task.name,
        version=record.task.version,
        task_digest=record.task.digest,
        provisional=len(record.seeds) < PROVISIONAL_BELOW,
        seeds=record.seeds,
        values={"held_out": _values(table, "held_out"), "test": _values(table, "test")},
        dense=dense,
        sizes=record.sizes,
        environment=record.environment,
        record=digest(canonical_json(_without_reference(table))),
    )


def _without_reference(table: Mapping[str, Any]) -> dict[str, Any]:
    """A record's cells alone: the reference changes its scores, not what was trained."""
    return {name: table[name] for name in ("method", "task", "seeds", "cells", "sizes")}


def _values(table: Mapping[str, Any], part: str) -> Values:
    def of(kind: str, density: float) -> list[float]:
        chosen = [
            c
            for seed in table["seeds"]
            for c in table["cells"]
            if (c["kind"], c["density"], c["schedule"], c["seed"]) == (kind, density, 1, seed)
        ]
        if len(chosen) != len(table["seeds"]) or any(c["status"] != "ok" for c in chosen):
            raise RecordError(f"{kind} at density {density:.4g}: a seed is missing or failed")
        return [scores.score_of(table, cell, part) for cell in chosen]

    ladder = table["task"]["ladder"]
    weights = stats.log_density_weights(ladder)
    dense = of("dense", 1.0)
    mean = sum(dense) / len(dense)

    def loss(kind: str) -> tuple[float, ...]:
        rows = zip(*(of(kind, density) for density in ladder), strict=True)
        return tuple(stats.loss_points(mean, [list(row) for row in rows], weights).tolist())

    sizes = [sets[part] for sets in table["sizes"].values()]
    arithmetic = table["task"]["kind"] == "generalisation"
    return Values(
        dense=tuple(dense),
        margin=stats.margin(dense, min(sizes), arithmetic),
        loss_random=loss("erk"),
        loss_imp=loss("ticket"),
    )


def main() -> None:
    """Write leaderboard/reference/<task>.json from a record."""
    parser = argparse.ArgumentParser(prog="python -m lthbench.reference")
    parser.add_argument("folder", type=Path, help="OUT/<task> of IMP's final evaluation")
    record = read_record(parser.parse_args().folder / "record.json")
    reference = build(record)
    path = shipped("leaderboard") / "reference" / f"{record.task.name}.json"
    write_whole(path, canonical_json(reference.model_dump(mode="json")))
    print(path)


if __name__ == "__main__":
    main()
