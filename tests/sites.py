"""A small leaderboard with everything that a site must show, hostile text included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lthbench.io.paths import digest, write_whole
from lthbench.leaderboard.analysis import files as evidence
from lthbench.leaderboard.analysis import power, schema, verdicts
from lthbench.leaderboard.board import ledger as ledgers
from lthbench.leaderboard.board.ledger import Ledger
from lthbench.protocol.task import load_task
from lthbench.records.schema import Record, build, file_bytes
from tests.boards import LITE, Method, board_record, synthetic_board

METHODS = 8
TASKS = LITE
HOSTILE = (
    "</script><script>document.title='taken'</script>",
    "<img src=x onerror=\"document.title='taken'\">",
    "\u202egnp.exe\u202c \u2066x\u2069",
    "line\none\r\nline two\t\u2028three",
    "{{ 7 * 7 }} {% include 'base.html.j2' %}",
    "javascript:document.title='taken'",
    "' onmouseover='document.title=1' \"<!--",
    "\x00\x1b[31m\ufffe",
)
HOSTILE_NAME = "a..-_.Hostile"


def few_draws(patch: pytest.MonkeyPatch) -> None:
    """The board's power from a few draws: half of a site's time goes there otherwise."""
    patch.setattr(power, "SIMULATED", 4)
    patch.setattr(power, "LEAST", 4)
    patch.setattr(power, "DRAWN", 50)


def site_board(folder: Path) -> Path:
    """Methods on all tasks of suite lite; one retracted, one superseded, one challenged entry, and
    a listed one whose every text is hostile."""
    synthetic_board(folder, METHODS * len(TASKS), TASKS)
    path = folder / "ledger.jsonl"
    ledger = ledgers.read(path)
    first = [line for line in ledger.lines if line["act"] == "accept"]
    gone, older, doubted = first[-1], first[-3], first[5]
    ledger = _act(ledger, "retract", gone, why="<b>Its seeds were picked</b>")
    number = METHODS - 1
    method = Method(older["method"], "init", False, 0.5, 3.0, 2)
    newer = add(folder, board_record(older["task"], 100 + number, method=method))
    ledger = ledgers.append(ledger, "accept", newer, older["task"], older["method"], nonce="0" * 64)
    ledger = ledgers.append(
        ledger, "supersede", newer, older["task"], older["method"], of=older["entry"]
    )
    by = {"what": "level 2 refused", "z": 7.25, "seed": 3}
    ledger = _act(ledger, "challenge", doubted, why="cells do not agree", by=by)
    again = {"kind": "<i>ticket", "density": 0.512, "seed": 1, "schedule": 4, "equal": False,
             "z": {"test": -0.42}, "bend": {"test": 1.25}}  # fmt: skip
    report = {"what": "<b>8 cells</b> trained again", "cells": [again, "no cell"], "statistic": 0.1}
    ledger = _act(ledger, "level", first[1], level=3, beacon=ledger.head, report=report)
    ledgers.write(path, ledger)
    add(folder, hostile())
    _compare_masks(folder, first[1], first[1 + len(TASKS)])
    return folder


def _compare_masks(folder: Path, one: Any, other: Any) -> None:
    """Save evidence of two entries: an excess overlap that is there on every rung."""

    def side(line: Any) -> schema.Side:
        gap = verdicts.estimate([0.01, 0.02, 0.015, 0.012, 0.018])
        return schema.Side(
            id=f"{line['method']}--{line['entry'][:8]}",
            method=line["method"],
            record=line["entry"],
            division="init",
            margin=0.005,
            untrained=None,
            shuffled=gap,
            reinit=gap,
        )

    dice = np.random.Generator(np.random.Philox(1))
    seeds = tuple(range(5))
    layer = schema.LayerRow(
        name="<i>neck</i>.weight", size=30000, density_a=0.3, density_b=0.2, ratio=2.5,
        chance=0.4, other_seeds=0.35, same_start=0.3, z=12.5,
    )  # fmt: skip
    rungs = [
        schema.rung_of(
            density,
            seeds,
            tuple(
                tuple(float(0.1 + 0.4 * (i == j) + dice.normal(0, 0.02)) for j in seeds)
                for i in seeds
            ),
            None,
            tuple(float(0.35 + dice.normal(0, 0.02)) for _ in seeds),
            verdicts.estimate([0.1, 0.12, 0.11, 0.1, 0.12]),
            (layer,),
        )
        for density in (0.512, 0.2097152, 0.08589934592)
    ]
    sides = sorted((side(one), side(other)), key=lambda found: found.id)
    saved = schema.build(
        one["task"],
        load_task(one["task"]).digest,
        (sides[0], sides[1]),
        seeds,
        "",
        rungs,
        (schema.Missing(what="stability", why="takes trainings"),),
    )
    evidence.write(saved, folder / "evidence")


def add(folder: Path, record: Record) -> str:
    """Put a record's file where it belongs; returns its digest."""
    raw = file_bytes(record)
    name = f"{record.method.name}--{digest(raw)[:8]}.json"
    write_whole(folder / "records" / record.task.name / name, raw)
    return digest(raw)


def hostile() -> Record:
    """A record of which everything that others may write is an attack."""
    method = Method(HOSTILE_NAME, "init", False, 0.4, 1.0, 0)
    plain = board_record(TASKS[0], 90, method=method)
    table = plain.model_dump(mode="json")
    texts = dict(
        zip(("name", "version", "paper", "authors", "licence", "code"), HOSTILE, strict=False)
    )
    cells = [dict(cell) for cell in table["cells"]]
    for cell, text in zip(cells[1:], HOSTILE, strict=False):
        cell |= {"status": "failed", "reason": text, "correct": {}}
    changes: dict[str, Any] = {
        "method": {
            **table["method"],
            "described": texts,
            "options": {text[:40]: text for text in HOSTILE},
        },
        "cells": cells,
        "environment": {text[:40]: text for text in HOSTILE},
        "times": {text[:40]: text for text in HOSTILE},
    }
    return build({**table, **changes})


def _act(ledger: Ledger, act: str, line: Any, **keys: Any) -> Ledger:
    return ledgers.append(ledger, act, line["entry"], line["task"], line["method"], **keys)
