"""The bundle of a submission: its members, and how to read them without trusting them.

A zip in canonical form whose `manifest.json` lists the size and sha256 of every other member.
Nothing is unpacked to disk, nothing is run, and reading needs no torch.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from lthbench.errors import RecordError
from lthbench.evaluation import environment
from lthbench.io import canonical_tensors, canonical_zip
from lthbench.io.paths import canonical_json, digest
from lthbench.io.untrusted import NEXT, canonical, difference, shown
from lthbench.leaderboard.bundle import ticket_member
from lthbench.leaderboard.bundle.ticket_member import Ticket, rung_name
from lthbench.protocol.constants import METHOD_FILE
from lthbench.records import aggregate, pretrained
from lthbench.records.schema import BUNDLE_LIMIT, SIZE_LIMIT, Record, Run, file_bytes
from lthbench.records.scores import tabulate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT = 1
MANIFEST, SOURCE, ENVIRONMENT = "manifest.json", METHOD_FILE, environment.FILE
MANIFEST_LIMIT, ENVIRONMENT_LIMIT, SOURCE_LIMIT = 8 * 2**20, 2**20, 2**20
TICKET = re.compile(r"tickets/seed(0|[1-9][0-9]{0,9})/([0-9]{7})\.safetensors")
TASK = re.compile(r"[a-z0-9][a-z0-9-]{0,60}")
TASKS = 64  # maximum bytes of one bundle
RECORD, ANSWERS, CURVES = "record.json", "answers.safetensors", "curves.safetensors"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose every byte has been checked.

    Attributes:
        members: By path, views of the file's bytes.
        tasks: Tasks for which it holds a record, sorted.
    """

    path: Path
    sha256: str
    size: int
    members: Mapping[str, memoryview]
    tasks: tuple[str, ...]


def contain(members: Mapping[str, bytes]) -> bytes:
    """Return the canonical zip of these members, including their manifest."""
    files = {name: {"sha256": digest(data), "size": len(data)} for name, data in members.items()}
    manifest = canonical_json({"format": FORMAT, "files": files})
    return canonical_zip.write({**members, MANIFEST: manifest})


def read(path: Path) -> Bundle:
    """Read a bundle from disk; check its form, its digests, and each member by itself.

    A file that differs from what `contain` gives for the same members is rejected, as is a member
    that nothing reads.

    Raises:
        RecordError: If a rule is broken; names the member and the rule.
    """
    data = _bytes(path)
    place = shown(str(path), 200)
    members = canonical_zip.read(data, place)
    _check_manifest(members, place)
    folders = {name.split("/", 1)[0] for name in members if "/" in name}
    bundle = Bundle(path, digest(data), len(data), members, tuple(sorted(folders)))
    _check_members(bundle, place)
    return bundle


def _bytes(path: Path) -> bytes:
    place = shown(str(path), 200)
    try:
        if not path.is_file():
            raise RecordError(f"{place}: no such file; name a bundle, as OUT/bundle.zip")
        with path.open("rb") as file:
            data = file.read(BUNDLE_LIMIT + 1)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise RecordError(f"{place}: cannot be read: {why}") from error
    if len(data) > BUNDLE_LIMIT:
        raise RecordError(f"{place}: larger than {BUNDLE_LIMIT >> 20} MB; this is no bundle")
    return data


def _check_manifest(members: Mapping[str, memoryview], place: str) -> None:
    if MANIFEST not in members:
        raise RecordError(f"{place}: has no {MANIFEST}; {NEXT}")
    where = f"{place}: member {MANIFEST}"
    manifest = canonical(members[MANIFEST], where, MANIFEST_LIMIT)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(files, dict) or manifest.keys() != {"format", "files"}:
        raise RecordError(f"{where}: holds format and files alone; {NEXT}")
    if manifest["format"] != FORMAT or type(manifest["format"]) is not int:
        version = shown(str(manifest["format"])[:80])
        raise RecordError(f"{where}: format {version}, this reads {FORMAT}; {NEXT}")
    if unlike := sorted(files.keys() ^ (members.keys() - {MANIFEST})):
        raise RecordError(
            f"{where}: {shown(unlike[0])} is in it or in the zip, not in both; {NEXT}"
        )
    for name, facts in files.items():
        true = {"sha256": hashlib.sha256(members[name]).hexdigest(), "size": len(members[name])}
        if facts != true or type(facts["size"]) is not int:
            raise RecordError(f"{where}: size or sha256 of {shown(name)} is not the file's; {NEXT}")


def _check_members(bundle: Bundle, place: str) -> None:
    for name in (SOURCE, ENVIRONMENT):
        if name not in bundle.members:
            raise RecordError(f"{place}: has no {name}; {NEXT}")
    if not 0 < len(bundle.tasks) <= TASKS:
        count = len(bundle.tasks)
        raise RecordError(f"{place}: records of {count} tasks; from 1 to {TASKS}; {NEXT}")
    for name in bundle.members:
        task, _, rest = name.partition("/")
        known = rest in (RECORD, ANSWERS, CURVES) or TICKET.fullmatch(rest)
        fits = TASK.fullmatch(task) and known if rest else task in (MANIFEST, SOURCE, ENVIRONMENT)
        if not fits:
            raise RecordError(f"{place}: member {shown(name)}: a bundle has no such file; {NEXT}")
    _check_environment(bundle)
    source(bundle)
    first: Record | None = None
    for task in bundle.tasks:
        for rest in (RECORD, ANSWERS, CURVES):
            if f"{task}/{rest}" not in bundle.members:
                raise RecordError(f"{place}: has no {shown(task)}/{rest}; {NEXT}")
        found = record(bundle, task)
        first = first or found
        if found.method != first.method:
            raise RecordError(
                f"{place}: the records of {first.task.name} and {task} are of two methods; {NEXT}"
            )
        _check_tickets(bundle, found)
        _check_answers(bundle, found)


def _check_environment(bundle: Bundle) -> None:
    where = f"{_file(bundle)}: member {ENVIRONMENT}"
    table = canonical(bundle.members[ENVIRONMENT], where, ENVIRONMENT_LIMIT)
    packages = table.get("packages") if isinstance(table, dict) and len(table) == 1 else None
    texts = isinstance(packages, dict) and all(isinstance(v, str) for v in packages.values())
    if not texts:
        raise RecordError(f"{where}: holds packages and their versions alone; {NEXT}")


def source(bundle: Bundle) -> str:
    """Return the method's source, as text that must not be run."""
    data = bundle.members[SOURCE]
    if len(data) > SOURCE_LIMIT:
        raise RecordError(f"{_file(bundle)}: member {SOURCE}: {len(data)} bytes; at most 1 MB")
    try:
        return bytes(data).decode()
    except UnicodeDecodeError as error:
        raise RecordError(f"{_file(bundle)}: member {SOURCE}: not UTF-8; {NEXT}") from error


def record(bundle: Bundle, task: str) -> Record:
    """Read one task's record; check its schema and recompute its aggregates."""
    where = _place(bundle, task, RECORD)
    data = bundle.members[f"{task}/{RECORD}"]
    table = canonical(data, where, SIZE_LIMIT)
    try:
        found = Record.model_validate(table)
        again = file_bytes(found)
        computed = tabulate(aggregate.aggregate(found))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(str(part) for part in first["loc"]) or "record"
        what = first["msg"].removeprefix("Value error, ")
        raise RecordError(f"{where}: {shown(at)}: {shown(what, 200)}; {NEXT}") from error
    except (ValueError, KeyError, IndexError, TypeError, ArithmeticError, RecursionError) as error:
        raise RecordError(f"{where}: not a record: {shown(str(error))}; {NEXT}") from error
    if again != data:
        raise RecordError(f"{where}: not in canonical form; {NEXT}")
    if found.scorer != aggregate.VERSION:
        raise RecordError(
            f"{where}: scored by version {found.scorer}, this is {aggregate.VERSION}; "
            "evaluate again"
        )
    if place := difference(computed, found.aggregates, "aggregates"):
        raise RecordError(f"{where}: {shown(place)} does not follow from the cells; evaluate again")
    if found.task.name != task:
        raise RecordError(f"{where}: a record of {shown(found.task.name)}, not of {task}; {NEXT}")
    if found.bundle is not None:
        raise RecordError(f"{where}: names a bundle, and so cannot be in it; {NEXT}")
    if found.method.digest != digest(bytes(bundle.members[SOURCE])):
        raise RecordError(f"{where}: its method is not {SOURCE}, by digest; {NEXT}")
    return found


def tickets(bundle: Bundle, task: str) -> tuple[tuple[int, float], ...]:
    """Return seed and density of every ticket of a task, densest first."""
    names = (name.partition("/") for name in bundle.members)
    found = [TICKET.fullmatch(rest) for folder, _, rest in names if folder == task]
    ladder = {rung_name(density): density for density in record(bundle, task).task.ladder}
    pairs = [(int(match[1]), match[2]) for match in found if match]
    if strange := sorted(pair for pair in pairs if pair[1] not in ladder):
        seed, rung = strange[0]
        where = _place(bundle, task, f"tickets/seed{seed}/{rung}.safetensors")
        raise RecordError(f"{where}: no rung of the record's ladder; {NEXT}")
    return tuple(sorted(((s, ladder[r]) for s, r in pairs), key=lambda at: (at[0], -at[1])))


def ticket(bundle: Bundle, task: str, seed: int, density: float) -> Ticket:
    """Return header, masks and stored weights of one ticket.

    The weights are as stored in the bundle: none for origin "init" and "rewind"; one
    "factor/<name>" per prunable tensor for "signs" and "scaled"; otherwise "kept/<name>", the
    values of kept entries in row-major order, and "whole/<name>" for every other tensor.

    Raises:
        RecordError: If there is no such ticket, or it breaks a rule; names the member and the rule.
    """
    path = f"tickets/seed{seed}/{rung_name(density)}.safetensors"
    where = _place(bundle, task, path)
    if f"{task}/{path}" not in bundle.members:
        raise RecordError(f"{where}: not in the bundle; `lthbench verify` lists what is")
    return ticket_member.loads(bundle.members[f"{task}/{path}"], where, density)


def answers(bundle: Bundle, task: str) -> dict[str, NDArray[np.uint8]]:
    """Return the answers on the test split after the last evaluation, by cell name."""
    where = _place(bundle, task, ANSWERS)
    header, held = canonical_tensors.loads(bundle.members[f"{task}/{ANSWERS}"], where)
    if header or any(a.dtype.name != "uint8" or a.ndim != 1 for a in held.values()):
        raise RecordError(f"{where}: holds flat lists of bytes alone; {NEXT}")
    return held


def curves(bundle: Bundle, task: str) -> dict[str, NDArray[np.int32]]:
    """Return the correct answers at every evaluation, by cell name and set name."""
    where = _place(bundle, task, CURVES)
    header, held = canonical_tensors.loads(bundle.members[f"{task}/{CURVES}"], where)
    if header or any(a.dtype.name != "int32" or a.ndim != 1 for a in held.values()):
        raise RecordError(f"{where}: holds flat lists of int32 alone; {NEXT}")
    return held


def runs(record: Record) -> Iterator[tuple[str, Run]]:
    """Yield every run of a record with the name of its answers and curves in a bundle."""
    for cell in record.cells:
        yield f"{cell.kind}/{cell.density!r}/{cell.seed}/{cell.schedule}", cell
    for run in record.transfer.cells if record.transfer else ():
        yield f"carried-{run.kind}/{run.density!r}/{run.seed}/{run.depth}", run


def _place(bundle: Bundle, task: str, rest: str) -> str:
    return f"{_file(bundle)}: member {shown(task)}/{rest}"


def _file(bundle: Bundle) -> str:
    return shown(str(bundle.path), 200)


def _check_tickets(bundle: Bundle, record: Record) -> None:
    """Check for exactly one ticket per ticket cell of the record, consistent with the cell."""
    task = record.task.name
    cells = {
        (cell.seed, cell.density): cell
        for cell in record.cells
        if cell.kind == "ticket" and cell.schedule == 1 and cell.status != "missing"
    }
    held = tickets(bundle, task)
    as_it_stands = any(cell.kind == "untrained" for cell in record.cells)
    if unlike := sorted(set(held) ^ cells.keys()):
        seed, density = unlike[0]
        raise RecordError(
            f"{_file(bundle)}: {task}, seed {seed}, density {density:g}: a cell without its "
            f"ticket, or a ticket without its cell; {NEXT}"
        )
    for seed, density in held:
        header, masks, _ = ticket(bundle, task, seed, density)
        cell = cells[seed, density]
        held_whole = (
            header["origin"] in ticket_member.HELD
        )  # otherwise they are completed for the controls
        layers = {name: int(mask.sum()) for name, mask in masks.items()}
        sizes = sum(mask.size for mask in masks.values())
        pairs = {
            "masks": (cell.masks, header["masks"]),
            "kept": (cell.kept, header["kept"]),
            "origin": (pretrained.found(cell.origin), header["origin"]),
            "start": (cell.start, header["start"]),
            "layers": (cell.layers, layers),
            "number of weights": (record.task.weights, sizes),
            "training": (not as_it_stands, header["trained"]),
            "weights": (cell.weights, header["weights"] if held_whole else cell.weights),
        }
        for name, (claim, found) in pairs.items():
            if claim != found:
                raise RecordError(
                    f"{_file(bundle)}: {task}, seed {seed}, density {density:g}: {name} of the "
                    f"record is not the ticket's; {NEXT}"
                )


def _check_answers(bundle: Bundle, record: Record) -> None:
    """Check that answers and curves belong to cells, and match the record's parts of the curves."""
    task = record.task.name
    cells = dict(runs(record))
    given = answers(bundle, task)
    for name, answered in given.items():
        where = f"{_place(bundle, task, ANSWERS)}: {shown(name)}"
        if name not in cells:
            raise RecordError(f"{where} is no cell; {NEXT}")
        size = record.sizes[str(cells[name].seed)].get("test", 0)
        if len(answered) != size:
            raise RecordError(f"{where}: {len(answered)} answers to {size} examples; {NEXT}")
        if size and answered.max() * record.task.chance > 1 - record.task.chance / 2:
            raise RecordError(f"{where}: an answer that is none of the classes; {NEXT}")
    counted: dict[str, dict[str, NDArray[np.int32]]] = {name: {} for name in given}
    for place, curve in curves(bundle, task).items():
        name, _, part = place.rpartition("/")
        where = f"{_place(bundle, task, CURVES)}: {shown(place)}"
        if name not in cells or part not in record.sizes[str(cells[name].seed)]:
            raise RecordError(f"{where} is no cell; {NEXT}")
        counted.setdefault(name, {})[part] = curve
        if not _fits(curve, cells[name].correct.get(part, ()), record, cells[name].seed, part):
            raise RecordError(f"{where}: is not what the record has of it; {NEXT}")
    for name, parts in counted.items():
        where = f"{_place(bundle, task, CURVES)}: {shown(name)}"
        fits = parts.get("train")  # where no score reads more of it, counted only at the end
        whole = [c for part, c in parts.items() if part != "train" or len(c) != 1]
        if len({len(curve) for curve in whole}) > 1 or (fits is not None and not len(fits)):
            raise RecordError(f"{where}: its curves are not of one length; {NEXT}")
        if name in given and parts.keys() != record.sizes[str(cells[name].seed)].keys():
            raise RecordError(f"{where}: must have a curve for each set of examples; {NEXT}")


def _fits(
    curve: NDArray[np.int32], kept: tuple[int, ...], record: Record, seed: int, part: str
) -> bool:
    """Return whether counts are possible, and end in those that the record keeps."""
    possible = len(curve) <= record.task.steps // record.task.every
    possible &= not len(curve) or 0 <= curve.min() <= curve.max() <= record.sizes[str(seed)][part]
    ending = tuple(map(int, curve[-len(kept) :])) if kept else ()
    return bool(possible) and ending == kept
