"""Drawn tables of every kind that is scored, and the digest of what they must come to.

Figures are rounded to nine places: a scorer that is made faster may move the last bits alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any

from lthbench.io.paths import canonical_json, digest
from tests.scoring import aggregates
from tests.synthetic import synthetic_record

Json = dict[str, Any]
BAD = {
    ("ticket", 0.512, 0): ("diverged", "not finite"),
    ("reinit", 0.512, 1): ("failed", "no memory"),
    ("erk", 0.512, 2): ("diverged", "not finite"),
}
CONSTANT = {"schedule": "constant", "every": 600}
UNEVEN = {"ladder": [0.8, 0.512, 0.1], "steps": 2000, "every": 20}


def cases() -> Iterator[tuple[str, Json]]:
    """Name and table of each case."""
    for kind in ("accuracy", "area"):
        for seeds in (1, 2, 3, 5, 10):
            yield f"{kind} {seeds}", _plain(seeds, kind, seeds)
        yield f"{kind} bad", _plain(20, kind, 5, bad=BAD)
        yield f"{kind} development", _plain(21, kind, 4, final=False, controls="one rung")
        yield f"{kind} alone", _plain(22, kind, 3, reference=False)
        for division in ("rewind", "open", "reference"):
            yield f"{kind} {division}", _plain(23, kind, 4, division=division)
        yield f"{kind} untrained", _untrained(_plain(24, kind, 5))
        yield f"{kind} untrained bad", _untrained(_plain(25, kind, 3, bad=BAD))
        yield f"{kind} carried", _carried(_plain(26, kind, 5), Random(1), "")
        yield f"{kind} carried bad", _carried(_plain(27, kind, 5), Random(2), "diverged")
    yield "constant", _plain(28, "accuracy", 5, task=CONSTANT)
    yield "constant bad", _plain(29, "accuracy", 6, task=CONSTANT, bad=BAD)
    yield "uneven", _plain(30, "area", 7, task=UNEVEN)
    yield "alike", _alike(_plain(31, "accuracy", 5))


def golden(table: Json) -> str:
    """The first digits of the digest of a table's aggregates."""
    return digest(canonical_json(_rounded(aggregates(table))))[:16]


def _plain(seed: int, kind: Any, seeds: int, **options: Any) -> Json:
    return synthetic_record(seed, kind, seeds, **options).model_dump(mode="json")


def _untrained(table: Json) -> Json:
    """The same with each ticket read as it stands too, beside a random mask."""
    for cell in [c for c in table["cells"] if c["kind"] == "ticket" and c["schedule"] == 1]:
        counts = {part: row[len(row) // 2 :][:1] for part, row in cell["correct"].items()}
        few = {part: [row[0] // 3] for part, row in counts.items()}
        table["cells"].append({**cell, "kind": "untrained", "correct": counts})
        table["cells"].append({**cell, "kind": "untrained_random", "status": "ok", "correct": few})
    return table


def _carried(table: Json, dice: Random, status: str) -> Json:
    """The same with its first two rungs carried to two depths, and a reference's gains there."""
    rungs, targets = table["task"]["ladder"][:2], [1, 3]
    kinds = ("carried", "erk", "direct", "layers", "mask-only", "weights-only")
    moved = []
    for cell in [c for c in table["cells"] if c["kind"] == "erk" and c["density"] in rungs]:
        for depth in targets:
            for kind in kinds:
                counts = {
                    part: [max(0, n - dice.randrange(9)) for n in row]
                    for part, row in cell["correct"].items()
                }
                moved.append(
                    {**cell, "kind": kind, "depth": depth, "source": "", "correct": counts}
                )
    if status:
        for at in (0, 7):
            moved[at] = {**moved[at], "status": status, "correct": {}}
    table["transfer"] = {
        "source": 2, "targets": targets, "densities": rungs, "rule": "elastic", "reason": "",
        "sizes": {"1": 1, "3": 1}, "cells": moved,
    }  # fmt: skip
    gains = {f"{d}/{p!r}": {"erk": [0.5] * 5, "imp": [0.9, 0.8, 1.0, 0.9, 0.7]}
             for d in targets for p in rungs}  # fmt: skip
    table["reference"]["transfer"] = gains
    return table


def _alike(table: Json) -> Json:
    """The same with equal counts at every seed: no spread, and ties at every bound."""
    first = {(c["kind"], c["density"], c["schedule"]): c["correct"] for c in table["cells"]
             if c["seed"] == 0}  # fmt: skip
    for cell in table["cells"]:
        cell["correct"] = first[cell["kind"], cell["density"], cell["schedule"]]
    return table


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(item) for item in value]
    return round(value, 9) + 0.0 if isinstance(value, float) else value


if __name__ == "__main__":
    for name, table in cases():
        print(f'    "{name}": "{golden(table)}",')
