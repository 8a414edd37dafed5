"""Merging evaluations of different seeds into one, equal to a joint evaluation of all seeds.

Records yield a record; evaluation folders also yield what `lthbench submit` needs: tickets, answers
and curves. Nothing is trained.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from lthbench.errors import RecordError, ResourceError, UsageError
from lthbench.evaluation import arrivals, layout
from lthbench.evaluation.starts import Given
from lthbench.io.paths import canonical_json, refusal, write_whole
from lthbench.leaderboard.bundle import archive
from lthbench.leaderboard.bundle.build import environment as packages_of
from lthbench.leaderboard.bundle.build import source as source_of
from lthbench.records.schema import Record, TransferEntry, build, read_record, write_record

Part: TypeAlias = tuple[Path, Record]  # a record and its file
Where: TypeAlias = dict[str, str]  # an environment
COMPUTED = {"schema_version", "aggregates", "scorer", "bundle"}

# What merged records must have in common, and what to do where they differ.
COMMON = {
    "method": "join records of one source with the same options",
    "task": "join records of one version of one task",
    "final": "join records made with --final, or records made without",
    "shown": "join records made with --final, or records made without",
    "controls": "evaluate all with the same --controls",
    "fingerprints": "prepare the same data on every machine: `lthbench data verify`",
    "reference": "run `lthbench evaluate` again for the older one: what is trained is kept",
}


def merge(paths: Sequence[Path], out: Path) -> tuple[Record, ...]:
    """Merge records into a file, or evaluation folders into a folder.

    Args:
        paths: Two or more, all files or all folders.
        out: A file or folder that does not exist yet; it is written last and atomically.

    Raises:
        UsageError: If the paths do not belong together.
        RecordError: If the records differ in method, task or kind, or share a seed.
    """
    if len(paths) < 2:
        raise UsageError("merge: name two records or more, or two folders of evaluations")
    if out.exists():
        raise UsageError(f"--out {out}: is there already; name a new file or folder")
    folders = [path for path in paths if path.is_dir()]
    if folders and len(folders) < len(paths):
        (other, *_) = (path for path in paths if path not in folders)
        raise UsageError(f"{other}: no folder, {folders[0]} is one; name records or folders alone")
    if folders:
        return _joined_folders(folders, out)
    record = joined([(path, read_record(path)) for path in paths])
    write_record(out, record)
    return (record,)


def joined(parts: Sequence[Part], folders: Sequence[Path] = ()) -> Record:
    """Return one record of all seeds, with recomputed scores.

    Args:
        parts: The records.
        folders: Their evaluations of the task, whose tickets' own weights are compared over all
            seeds.

    Raises:
        RecordError: If records do not match; names two files and the difference.
    """
    _check_common(parts)
    _check_seeds(parts)
    ordered = sorted((record for _, record in parts), key=lambda record: record.seeds[:1])
    seeds = sorted(seed for record in ordered for seed in record.seeds)
    cells = sorted((c for record in ordered for c in record.cells), key=lambda c: c.place.order)
    searches = [search for record in ordered for search in record.searches]
    own, others = _environments(ordered, seeds)
    whole = ordered[0].model_copy(
        update={
            "seeds": tuple(seeds),
            "sizes": {seed: sets for record in ordered for seed, sets in record.sizes.items()},
            "cells": tuple(cells),
            "searches": tuple(sorted(searches, key=lambda search: search.seed)),
            "transfer": _transfer(parts),
            "times": _times(ordered),
            "environment": own,
            "environments": others or None,
        }
    )
    if any(record.arrivals for record in ordered):
        judged = _arrivals(parts, folders, whole)
        whole = whole.model_copy(update={"cells": judged.cells, "arrivals": judged.arrivals})
    return build(whole.model_dump(mode="json", exclude=COMPUTED))


def _arrivals(parts: Sequence[Part], folders: Sequence[Path], whole: Record) -> arrivals.Judged:
    """Decide again which tickets are pretrained: likeness to other seeds depends on all of them."""
    if not folders:
        raise RecordError(
            f"{parts[0][0]}: has tickets with weights of their own, which are compared over seeds; "
            "name the folders of the evaluations"
        )
    right: dict[arrivals.At, int] = {}
    tickets: dict[arrivals.At, Given] = {}
    for (_, record), folder in zip(parts, folders, strict=True):
        for one in record.arrivals or ():
            right[one.seed, one.density] = one.right
            tickets[one.seed, one.density] = arrivals.stored(folder, one.seed, one.density)
    alike = arrivals.alike(tickets)
    return arrivals.marked(whole.task.chance, whole.cells, whole.sizes, right, alike)


def _check_common(parts: Sequence[Part]) -> None:
    (place, first), *others = parts
    for other_place, other in others:
        for name, step in COMMON.items():
            here, there = (
                canonical_json(record.model_dump(mode="json", include={name})).strip()
                for record in (first, other)
            )
            if here != there:
                raise RecordError(
                    f"{other_place}: {name} {_told(other, name)}, {place} has "
                    f"{_told(first, name)}; {step}"
                )


def _told(record: Record, name: str) -> str:
    """Return the part of a record's field that distinguishes it from another."""
    if name == "method":
        options = json.dumps(record.method.options, sort_keys=True)
        return f"{record.method.name} {record.method.digest[:12]} {options[:60]}"
    if name == "task":
        return f"{record.task.name} version {record.task.version} {record.task.digest[:12]}"
    if name == "reference":
        return record.reference.digest[:12] if record.reference else "none"
    return "of other data" if name == "fingerprints" else str(getattr(record, name))


def _check_seeds(parts: Sequence[Part]) -> None:
    known: dict[int, Path] = {}
    for place, record in parts:
        for seed in record.seeds:
            if seed in known:
                raise RecordError(
                    f"{place}: seed {seed} is in {known[seed]} too; join records that share no "
                    "seed, as `lthbench evaluate --only-seeds` makes them"
                )
            known[seed] = place


def _transfer(parts: Sequence[Part]) -> TransferEntry | None:
    """Combine the transfer cells.

    A record includes tickets found at the targets only if every search was cheap. If only some
    records have them they are dropped, as an evaluation of all seeds would have none.
    """
    place = parts[0][0]
    moved = [record.transfer for _, record in parts]
    heads = [entry and entry.model_copy(update={"cells": ()}) for entry in moved]
    for (other_place, _), head in zip(parts, heads, strict=True):
        if head != heads[0]:
            raise RecordError(
                f"{other_place}: transfer is not as in {place}; evaluate all with --transfer, or "
                "all without"
            )
    if heads[0] is None:
        return None
    cells = [entry.cells for entry in moved if entry]
    direct = all(any(cell.kind == "direct" for cell in mine) for mine in cells)
    kept = [cell for mine in cells for cell in mine if direct or cell.kind != "direct"]
    ordered = tuple(sorted(kept, key=lambda cell: cell.place.order))
    return heads[0].model_copy(update={"cells": ordered})


def _environments(
    records: Sequence[Record], seeds: Sequence[int]
) -> tuple[Where, dict[str, Where]]:
    """Return the first seed's environment, and those of others that differ from it."""
    told = {seed: record.environment_of(seed) for record in records for seed in record.seeds}
    own = told[seeds[0]] if seeds else records[0].environment
    return own, {str(seed): where for seed, where in told.items() if where != own}


def _times(records: Sequence[Record]) -> dict[str, float | str]:
    """Sum seconds; keep texts that all share."""
    found: dict[str, float | str] = {}
    for name in sorted({name for record in records for name in record.times}):
        values = [record.times[name] for record in records if name in record.times]
        seconds = [value for value in values if not isinstance(value, str)]
        if len(seconds) == len(values):
            found[name] = sum(seconds)
        elif len(values) == len(records) and len(set(values)) == 1:
            found[name] = values[0]
    return found


# --- folders ---------------------------------------------------------------------------------


def _joined_folders(outs: Sequence[Path], out: Path) -> tuple[Record, ...]:
    """Join the folders' records by task, and their files, in a new folder."""
    claim = _claim(outs)
    by_task: dict[str, list[Part]] = {}
    for folder in outs:
        found = sorted(folder.glob("*/record.json"))
        if not found:
            raise RecordError(f"{folder}: no task is finished; {layout.AGAIN}")
        for path in found:
            by_task.setdefault(path.parent.name, []).append((path, read_record(path)))
    try:
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".merge-", dir=out.absolute().parent, ignore_cleanup_errors=True
        ) as place:
            draft = Path(place, "out")
            layout.write_claim(draft, claim)
            write_whole(draft / archive.SOURCE, source_of(outs[0]))
            write_whole(draft / archive.ENVIRONMENT, _packages(outs))
            records = tuple(_join_task(draft, name, parts) for name, parts in by_task.items())
            draft.replace(out)
    except OSError as error:
        raise ResourceError(f"{out}: cannot write: {refusal(error)}") from error
    return records


def _claim(outs: Sequence[Path]) -> layout.Claim:
    """Return whose results the folders hold, the same for all of them."""
    first, *others = ((folder, layout.read_claim(folder)) for folder in outs)
    for folder, claim in others:
        if name := claim.difference(first[1]):
            here, there = (
                json.dumps(getattr(one, name), sort_keys=True)[:60] for one in (claim, first[1])
            )
            raise RecordError(
                f"{folder}: an evaluation of {name} {here}, {first[0]} is of {there}; join "
                "folders of one method, with the same options, all with --final or all without"
            )
    return first[1]


def _packages(outs: Sequence[Path]) -> bytes:
    """Return the list of packages, with every version of those that differ."""
    found: dict[str, set[str]] = {}
    for folder in outs:
        for name, version in json.loads(packages_of(folder))["packages"].items():
            found.setdefault(name, set()).add(version)
    packages = {name: ", ".join(sorted(versions)) for name, versions in found.items()}
    return canonical_json({"packages": packages})


def _join_task(draft: Path, name: str, parts: Sequence[Part]) -> Record:
    """Write one task's record and files in the draft of a folder."""
    folder = draft / name
    for path, part in parts:
        for seed in part.seeds:
            _copy_tickets(path.parent, folder, part, seed)
    record = joined(parts, [path.parent for path, _ in parts])
    runs = dict(archive.runs(record))
    answered = []
    for path, _ in parts:
        for run in layout.stored_runs(path.parent):
            if run.name in runs:
                data = layout.stored_bytes(path.parent, run)
                write_whole(folder / "cells" / f"{run.key}.safetensors", data)
                answered.append(run)
    layout.write_answers(folder, answered)
    write_whole(folder / layout.TRAINED, _trained([path.parent for path, _ in parts]))
    write_record(folder / "record.json", record)
    return record


def _copy_tickets(source: Path, folder: Path, record: Record, seed: int) -> None:
    """Copy the files of a seed's tickets and search."""
    held = source / "tickets" / f"seed{seed}"
    if held.is_dir():
        unfinished = shutil.ignore_patterns(".tmp-*")
        shutil.copytree(held, folder / "tickets" / held.name, ignore=unfinished)
    elif any(
        cell.kind == "ticket" and cell.seed == seed and cell.status != "missing"
        for cell in record.cells
    ):
        raise RecordError(
            f"{held}: not there, with the tickets of seed {seed}; copy it from where it was made"
        )


def _trained(folders: Sequence[Path]) -> bytes:
    """Return how the cells were trained.

    No machine resumes in a folder with contributions from several machines, since its record would
    name only one of them.
    """
    tables = [layout.trained_by(folder) for folder in folders]
    names = sorted({name for table in tables for name in table})
    several = {
        name: " and ".join(sorted({str(table.get(name)) for table in tables})) for name in names
    }
    return canonical_json(several)
