"""What a record claims about itself, its task and its reference, against the shipped files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from lthbench.errors import RecordError
from lthbench.io.paths import canonical_json, digest, shipped
from lthbench.io.untrusted import check_table, check_text, check_zeros, shown
from lthbench.method import publishable
from lthbench.protocol.task import Task, load_suite, load_task, suite_names, task_names
from lthbench.records.reference import Reference, load_reference
from lthbench.records.schema import Frozen, Record, TaskEntry

NEXT = "make the record by `lthbench evaluate METHOD --final` on a ranked suite"
LONGEST = 1e9  # seconds


@dataclass(frozen=True)
class Known:
    """The shipped files of a task, against which a record is compared."""

    task: Task
    reference: Reference
    frozen: Frozen
    fingerprints: Mapping[str, str]


def check(record: Record) -> Known:
    """Check what a record says outside of its cells; fast for any record.

    Raises:
        RecordError: If a rule is broken; names the place, the value and the rule.
    """
    known = known_of(record.task.name)
    _is_final(record)
    check_controls(record.task.name, record.controls)
    _is_of_the_task(record, known)
    _is_of_the_reference(record, known)
    publishable.check_told(record.method)
    publishable.check_shipped(record.method)
    _texts(record)
    return known


def known_of(name: str) -> Known:
    """Return the shipped files of a task; RecordError if they do not suffice for any record."""
    if name not in task_names():
        raise RecordError(f"task {shown(name)!r}: no task of that name is shipped; {NEXT}")
    files = (shipped("tasks") / f"{name}.toml", shipped("leaderboard") / f"reference/{name}.json")
    stamps = [(str(f), f.stat().st_mtime_ns, f.stat().st_size) for f in files if f.is_file()]
    return _loaded(name, tuple(stamps))


@lru_cache(maxsize=64)
def _loaded(name: str, _stamps: tuple[tuple[str, int, int], ...]) -> Known:
    """Load the task and its reference, again whenever their files change."""
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


def check_controls(task: str, controls: str) -> None:
    """Raise RecordError for fewer controls than a ranked suite requires for this task."""
    suites = [load_suite(name) for name in suite_names()]
    asked = {suite.controls for suite in suites if suite.ranked and task in suite.tasks}
    if controls not in (allowed := {"all", *asked}):
        enough = " or ".join(f'"{controls}"' for controls in sorted(allowed))
        raise RecordError(f"controls: {controls!r}, must be {enough}; {NEXT}")


def _is_of_the_task(record: Record, known: Known) -> None:
    task, entry = known.task, record.task
    untrained = any(cell.kind == "untrained" for cell in record.cells)
    wanted = TaskEntry.of(task, known.reference.dense[0].kept, untrained=untrained)
    for key, value in wanted:
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
    # Compared as text, since -0 and 0 must differ here.
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
        # References older than the universal count of the training part lack its size.
        if "train" not in parts:
            found = {part: size for part, size in found.items() if part != "train"}
        fits = found == wanted if wanted else found.keys() == parts
        if not fits or (whole and sum(found.values()) != whole):
            raise RecordError(f"sizes: of seed {seed}: not the sets that {task.name} has there")


def _texts(record: Record) -> None:
    """Check that no text imitates another line, another direction, or a page's code."""
    check_table("environment", record.environment)
    check_table("times", record.times)
    for seed, told in (record.environments or {}).items():
        check_table(f"environments.{seed}", told)
    for key, value in record.times.items():
        if isinstance(value, float) and not 0 <= value <= LONGEST:
            raise RecordError(f"times.{key}: {value:g} seconds")
    reasons = {cell.reason for cell in record.cells} | {s.reason for s in record.searches}
    if record.transfer is not None:
        reasons |= {cell.reason for cell in record.transfer.cells} | {record.transfer.reason}
    for reason in sorted(reasons):
        check_text("reason", reason, lines=True)
    check_zeros("aggregates", record.aggregates)
