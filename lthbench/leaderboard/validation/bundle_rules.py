"""Rules of a bundle beyond its form: the rules of its records, and agreement with the answers."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from lthbench.errors import MethodError, RecordError
from lthbench.io.untrusted import shown
from lthbench.leaderboard.bundle import archive
from lthbench.leaderboard.bundle.archive import Bundle
from lthbench.leaderboard.validation.record_rules import rules
from lthbench.method import publishable
from lthbench.method.source import Declared, declared
from lthbench.protocol import datasets, test_split
from lthbench.protocol.design import Place
from lthbench.protocol.task import Task, load_task
from lthbench.records.reference import Reference, load_reference
from lthbench.records.schema import Carried, Cell, Record, Run


def check(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return a bundle's tasks, and what could not be checked about them.

    Raises:
        RecordError: If a rule is broken; names the member and the rule.
    """
    bundle = archive.read(path)
    remarks: list[str] = []
    said = _source(bundle)
    for name in bundle.tasks:
        record = archive.record(bundle, name)
        try:
            publishable.check_says(record.method, said)
            rules(record)
            task = load_task(name)
            _complete(bundle, record, load_reference(task))
            if datasets.prepared(task):
                _agree(bundle, record, task)
            else:
                remarks.append(f"accuracies of {name} not checked (no data)")
        except RecordError as error:
            raise RecordError(f"{shown(str(path), 200)}: {name}: {error}") from error
    return bundle.tasks, tuple(remarks)


def _source(bundle: Bundle) -> Declared:
    """Return the method's declaration, read from the source without running it."""
    place = f"{shown(str(bundle.path), 200)}: member {archive.SOURCE}"
    source = archive.source(bundle)
    try:
        publishable.check_source(source, place)
        return declared(source, place)
    except MethodError as error:
        said = str(error).removeprefix(place)
        raise RecordError(f"{place}{shown(said, 300)}") from error


def _complete(bundle: Bundle, record: Record, reference: Reference | None) -> None:
    """Check that every scored run has its answers, and the reference's own runs have none."""
    answers = archive.answers(bundle, record.task.name)
    frozen = {cell.place for cell in reference.cells} if reference else set()
    for name, run in _scored(record):
        if name not in answers and not _is_frozen(run, frozen):
            raise RecordError(f"answers: none of {name}, which was scored")


def _agree(bundle: Bundle, record: Record, task: Task) -> None:
    """Check that the answers on the test split are correct as often as the record says."""
    answers = archive.answers(bundle, record.task.name)
    labels = {seed: test_split.test_examples(task, seed).y for seed in record.seeds}
    for name, run in _scored(record):
        if name not in answers:
            continue
        right = int((answers[name] == labels[run.seed]).sum())
        if right != run.correct["test"][-1]:
            raise RecordError(
                f"answers: {name}: {right} are right, but the record counts "
                f"{run.correct['test'][-1]}"
            )


def _scored(record: Record) -> Iterator[tuple[str, Run]]:
    return ((name, run) for name, run in archive.runs(record) if run.status == "ok")


def _is_frozen(run: Run, frozen: Collection[Place]) -> bool:
    """Return whether a run may be the reference's own, which no evaluation retrains."""
    if isinstance(run, Cell):
        return run.place in frozen
    return isinstance(run, Carried) and run.kind == "erk"
