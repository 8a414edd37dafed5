"""What a record claims of itself, its task and its reference, put beside what is shipped."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lthbench import names, visible
from lthbench.errors import RecordError
from lthbench.paths import canonical_json, digest, shipped
from lthbench.record import Frozen, Record
from lthbench.reference import Reference, load_reference
from lthbench.task import Task, load_suite, load_task, suite_names, task_names
from lthbench.untrusted import shown

NEXT = "make the record by `lthbench evaluate METHOD --final` on a ranked suite"
LONGEST = 1e9  # seconds
KEY = re.compile(r"[A-Za-z0-9_.-]{1,60}")
MARKUP = re.compile(r"<(?![^<>\s@]+@[^<>\s@]+>)")  # anything but a mail address in brackets
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(?:javascript|data|vbscript):", re.IGNORECASE)
TABLE_LIMIT = 40  # keys of the open tables: options, descriptions, environment, times
INTEGER_LIMIT = 2**63


@dataclass(frozen=True)
class Known:
    """What is shipped of a task, beside which a record is put."""

    task: Task
    reference: Reference
    frozen: Frozen
    fingerprints: Mapping[str, str]


def check(record: Record) -> Known:
    """What a record says outside of its cells; quick, whatever the record holds.

    Raises:
        RecordError: naming the place, the value and the rule.
    """
    known = _known(record.task.name)
    _is_final(record)
    _has_controls(record)
    _is_of_the_task(record, known)
    _is_of_the_reference(record, known)
    _texts(record)
    _open_tables(record)
    return known


def _known(name: str) -> Known:
    if name not in task_names():
        raise RecordError(f"task {shown(name)!r}: no task of that name is shipped; {NEXT}")
    files = (shipped("tasks") / f"{name}.toml", shipped("leaderboard") / f"reference/{name}.json")
    stamps = [(str(f), f.stat().st_mtime_ns, f.stat().st_size) for f in files if f.is_file()]
    return _loaded(name, tuple(stamps))


@lru_cache(maxsize=64)
def _loaded(name: str, stamps: tuple[tuple[str, int, int], ...]) -> Known:
    """The task and its reference, read again when their files change."""
    task = load_task(name)
    reference = load_reference(task)
    if reference is None:
        raise RecordError(
            f"task {name}: has no frozen reference for its present protocol, so that nothing can "
            "be scored against it; records are accepted once it has one"
        )
    generated = {"generated": digest(canonical_json({"data": task.data.canonical()}))}
    return Known(
        task,
        reference,
        reference.frozen("test"),
        task.data.fingerprints or generated,
    )


def _is_final(record: Record) -> None:
    if not record.final or record.shown != "test":
        raise RecordError(f"final: development seeds are no result; {NEXT}")
    if record.seeds != tuple(range(len(record.seeds))) or not record.seeds:
        raise RecordError(
            f"seeds: {shown(str(list(record.seeds)), 60)}, must be the published ones, 0, 1, …"
        )


def _has_controls(record: Record) -> None:
    """As many as a ranked suite asks for on this task, or all."""
    suites = [load_suite(name) for name in suite_names()]
    asked = {suite.controls for suite in suites if suite.ranked and record.task.name in suite.tasks}
    if record.controls not in (allowed := {"all", *asked}):
        enough = " or ".join(f'"{controls}"' for controls in sorted(allowed))
        raise RecordError(f"controls: {record.controls!r}, must be {enough}; {NEXT}")


def _is_of_the_task(record: Record, known: Known) -> None:
    task, entry = known.task, record.task
    untrained = any(cell.kind == "untrained" for cell in record.cells)
    wanted = {
        "version": task.version,
        "digest": known.reference.task_digest,
        "kind": task.score.kind,
        "schedule": task.recipe.schedule,
        "chance": task.chance,
        "threshold": task.score.threshold,
        "steps": task.recipe.steps,
        "every": task.score.every,
        "seeds": task.seeds,
        "weights": known.reference.dense[0].kept,
        "ladder": task.ladder.untrained if untrained else task.ladder.trained,
    }
    for key, value in wanted.items():
        if getattr(entry, key) != value:
            raise RecordError(
                f"task.{key}: {shown(str(getattr(entry, key)), 40)}, but {task.name} has "
                f"{shown(str(value), 40)}; records of another protocol do not mix"
            )
    if record.fingerprints != known.fingerprints:
        raise RecordError(
            f"fingerprints: not those of {task.name}'s data; run `lthbench data verify {task.name}`"
        )


def _is_of_the_reference(record: Record, known: Known) -> None:
    reference, task = known.reference, known.task
    # By their texts: -0 is another number than 0 here.
    if record.reference is None or repr(record.reference) != repr(known.frozen):
        raise RecordError(
            f"reference: not the frozen reference of {task.name}; "
            "run `lthbench evaluate` again with this version: what is trained is kept"
        )
    if record.sizes.keys() != {str(seed) for seed in record.seeds}:
        raise RecordError("sizes: must tell of every seed of the record, and of no other")
    parts = next(iter(reference.sizes.values())).keys()
    for seed in record.seeds:
        found = record.sizes[str(seed)]
        alike = str(seed % task.data.folds if task.data.folds else seed)
        if known.task.data.source != "modular-addition" and not task.data.folds:
            alike = next(iter(reference.sizes))
        wanted = reference.sizes.get(alike)
        whole = task.data.modulus**2
        # References from before the training part was counted in every task do not tell its size.
        if "train" not in parts:
            found = {part: size for part, size in found.items() if part != "train"}
        fits = found == wanted if wanted else found.keys() == parts
        if not fits or (whole and sum(found.values()) != whole):
            raise RecordError(f"sizes: of seed {seed}: not the sets that {task.name} has there")


def _texts(record: Record) -> None:
    """No text of the record may pretend to be another line, another direction, or a page's code."""
    method = record.method
    texts: list[tuple[str, str, bool]] = []
    for place, table in (
        ("method.described", method.described),
        ("method.options", method.options),
        ("environment", record.environment),
        ("times", record.times),
    ):
        texts += ((f"{place} (a key)", key, True) for key in table)
        texts += (
            (f"{place}.{key}", value, True) for key, value in table.items() if type(value) is str
        )
    reasons = {cell.reason for cell in record.cells} | {s.reason for s in record.searches}
    if record.transfer is not None:
        reasons |= {cell.reason for cell in record.transfer.cells} | {record.transfer.reason}
    texts += (("reason", reason, False) for reason in sorted(reasons))
    for place, text, strict in texts:
        hidden = next((c for c in text if not _is_seen(c) and (strict or c not in "\n\t")), "")
        if hidden:
            raise RecordError(
                f"{shown(place)}: holds the character U+{ord(hidden):04X}, which cannot be seen "
                "or changes the direction of text; take it out"
            )
    for key, value in method.described.items():
        if MARKUP.search(key + value):
            raise RecordError(f"method.described.{shown(key)}: holds markup; write plain text")
        unsafe = [m.group() for m in SCHEME.finditer(value) if m.group().lower() != "https://"]
        if unsafe:
            raise RecordError(
                f"method.described.{shown(key)}: an address that begins with {unsafe[0]}; "
                "only https:// is taken"
            )
    if why := names.reserved(method.name):
        raise RecordError(f"method.name: {method.name} {why}; give the method another name")
    if method.described.get("name", method.name) != method.name:
        raise RecordError("method.described.name: is not the method's name; they must be equal")


def _is_seen(character: str) -> bool:
    """Whether a character is drawn, and no space but the plain one."""
    return character.isprintable() and not visible.hidden(character)


def _open_tables(record: Record) -> None:
    """The tables that a record may fill as it likes: few keys, plain names, numbers in bounds."""
    tables: dict[str, Mapping[str, Any]] = {
        "method.options": record.method.options,
        "method.described": record.method.described,
        "environment": record.environment,
        "times": record.times,
    }
    for name, table in tables.items():
        if len(table) > TABLE_LIMIT:
            raise RecordError(f"{name}: {len(table)} keys, at most {TABLE_LIMIT}")
        for key, value in table.items():
            if not KEY.fullmatch(key):
                raise RecordError(f"{name}: key {shown(key)!r}: letters, digits and _ . - alone")
            if type(value) is int and abs(value) >= INTEGER_LIMIT:
                raise RecordError(f"{name}.{key}: an integer of more than 64 bits")
            if type(value) is str and len(value) > 400:
                raise RecordError(f"{name}.{key}: {len(value)} characters, at most 400")
    for key, value in record.times.items():
        if isinstance(value, float) and not 0 <= value <= LONGEST:
            raise RecordError(f"times.{key}: {value:g} seconds")
    for name, tree in (*tables.items(), ("aggregates", record.aggregates)):
        if negative_zero(tree):
            raise RecordError(f"{name}: holds -0, which is written 0")


def negative_zero(tree: Any) -> bool:
    if isinstance(tree, float):
        return tree == 0 and math.copysign(1, tree) < 0
    if isinstance(tree, dict):
        return any(map(negative_zero, tree.values()))
    return isinstance(tree, (list, tuple)) and any(map(negative_zero, tree))
