"""Records of the leaderboard with something changed, written as one who cheats would write them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from lthbench.io.paths import canonical_json, digest
from lthbench.protocol.constants import RANDOM
from lthbench.protocol.task import load_task
from tests.scoring import aggregates
from tests.searching import ROOT
from tests.submitted import carried
from tests.synthetic import as_file, as_table

Json = dict[str, Any]
Edit = Callable[[Json], object]


@cache
def shipped_records() -> tuple[Path, ...]:
    """Every record of the leaderboard."""
    return tuple(sorted((ROOT / "leaderboard").glob("records/*/*.json")))


@cache
def _bytes(kind: str) -> bytes:
    if kind == "measured":
        return canonical_json(measured(table_of("small")))
    fits: dict[str, Callable[[Json], bool]] = {
        "small": lambda table: table["task"]["name"] == "mlp-digits",
        "compressed": lambda table: any(c["schedule"] > 1 for c in table["cells"]),
        "untrained": lambda table: any(c["kind"] == "untrained" for c in table["cells"]),
    }
    if kind == "carried":
        return canonical_json(carried()[1].model_dump(mode="json"))
    found = [as_table(path.read_bytes()) for path in shipped_records()]
    return min((canonical_json(table) for table in found if fits[kind](table)), key=len)


def table_of(kind: str = "small") -> Json:
    """The table of the smallest record of a kind: small, compressed, untrained, the small one as if
    all were measured that is measured today; or carried, which is valid in the home of
    `tests.submitted.carried` alone."""
    table: Json = json.loads(_bytes(kind))
    return table


def measured(table: Json) -> Json:
    """A record of before with what it does not tell made up, but of the reference's own runs."""
    task = load_task(table["task"]["name"])
    train = 1293
    for sizes in table["sizes"].values():
        sizes["train"] = train
    table["cells"] += [
        {**one, "kind": "reinit-signs", "weights": digest(one["weights"].encode())}
        for one in table["cells"]
        if one["kind"] == "reinit" and one["schedule"] == 1
    ]
    for one in table["cells"]:
        if one["kind"] in ("dense", *RANDOM):
            continue
        steps = task.recipe.steps // one["schedule"] - one["start"]
        one["flops_inference"] = 2 * one["kept"]
        one["flops_training"] = 6 * one["kept"] * task.recipe.batch_size(train) * steps
        one["distance"], one["correct"]["train"] = 1.5, [train]
        one["effective_nodes"] = None if one["effective"] is None else 100
    order = ("seed", "density", "kind", "schedule")
    table["cells"].sort(key=lambda one: [-one[k] if k == "density" else one[k] for k in order])
    return {**table, "aggregates": aggregates(table)}


def written(folder: Path, table: Json, *, scored: bool = False) -> Path:
    """A record's file under the name that its bytes ask for.

    Args:
        scored: with aggregates that follow from it, as one who knows the scorer would write it.
    """
    if scored:
        table = {**table, "aggregates": aggregates(table)}
    raw = canonical_json(as_file(table))
    path = (
        folder / str(table["task"]["name"]) / f"{table['method']['name']}--{digest(raw)[:8]}.json"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return path


def changed(table: Json, edit: Edit) -> Json:
    """A copy with an edit made in it."""
    again = copy.deepcopy(table)
    edit(again)
    return again


def cells(table: Json, kind: str, **facts: Any) -> list[Json]:
    """The cells of a kind, with these facts."""
    return [
        cell
        for cell in table["cells"]
        if cell["kind"] == kind and all(cell[key] == value for key, value in facts.items())
    ]


def cell(table: Json, kind: str, **facts: Any) -> Json:
    """The first of them."""
    return cells(table, kind, **facts)[0]
