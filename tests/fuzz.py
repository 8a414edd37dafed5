"""Fuzzes the readers of bundles and of records: `python -m tests.fuzz [--seconds 600] [--seed N]`.

Each case starts from a sound bundle or record and is broken by bytes (bits, cuts, splices) or by
what they mean (values of JSON, headers and arrays of safetensors, members), after which the zip and
its manifest are made again, so that the rules behind them are reached. A finding is:

- any exception but the one line of a LthbenchError;
- bytes that are taken though they differ from the sound ones in the zip's form, or are not what
  would be written again for what was read from them.

A case follows from the seed and its number alone: `--case K` runs one again, alone. What made it
is kept, with the bytes, in the folder `--keep`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from lthbench.errors import LthbenchError
from lthbench.io import canonical_tensors, canonical_zip
from lthbench.io.paths import canonical_json, digest
from lthbench.leaderboard.bundle import archive, ticket_member
from lthbench.leaderboard.validation.validate import check_bundle, check_record
from lthbench.records.schema import file_bytes, read_record
from lthbench.seeds import generator
from tests.submitted import DIGITS, MODADD, at_home, house
from tests.synthetic import as_file

Members = dict[str, bytes]
Draw = np.random.Generator

NUMBERS: tuple[Any, ...] = (
    0, 1, -1, 2**31, 2**32 - 1, 2**53, 2**63, 2**64, -(2**63), 10**30, 0.0, -0.0, 0.5, 1.0,
    1e-300, 1e308, 1.7976931348623157e308, 5e-324,
)  # fmt: skip
TEXTS = (
    "", "a", "../..", "<script>", "\u202e", "\u2028", "\n", "\x00", "NaN", "x" * 500, "ß", "\ud800",
    "0" * 64, "f" * 64, "init", "rewind", "signs", "free", "final", "ok", "missing", "test",
)  # fmt: skip
RAW = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 400, "1" * 5000, "01", "1.", "+1",
    "[" * 2000 + "]" * 2000, "[" * 10**5, '{"a":' * 2000 + "1" + "}" * 2000, '{"a":1,"a":1}',
    '"\\ud800"', '"\x01"', "tru", "", "[1,2,]", '"' + "y" * 10**5 + '"',
)  # fmt: skip
STANDIN = "stand-in-for-what-json-cannot-say"


# --- what is broken ---------------------------------------------------------------------------


@cache
def sound(task: str) -> Mapping[str, bytes]:
    """A bundle's members for one task, without what differs from run to run."""
    home = house()
    whole = archive.read(home.bundle)
    table = json.loads(bytes(whole.members[f"{task}/record.json"]))
    table |= {"times": {"find_seconds": 1.0}, "environment": {"torch": "2"}}
    if task == MODADD:  # a record that was joined from two machines
        table["environments"] = {"1": {"torch": "3"}}
    members = {n: bytes(data) for n, data in whole.members.items() if n.split("/")[0] == task}
    members |= {n: bytes(whole.members[n]) for n in (archive.SOURCE,)}
    members[f"{task}/record.json"] = canonical_json(table)
    members[archive.ENVIRONMENT] = canonical_json({"packages": {"torch": "2"}})
    return members


@cache
def sound_bundle(task: str) -> bytes:
    return archive.contain(dict(sound(task)))


def pick(draw: Draw, things: Sequence[Any]) -> Any:
    return things[int(draw.integers(len(things)))]


def bytes_of(draw: Draw, data: bytes) -> bytes:
    """Bytes with some bits turned, cut, doubled, moved, or other bytes in their place."""
    broken = bytearray(data)
    for _ in range(int(draw.integers(1, 4))):
        if not broken:
            break
        at, size = int(draw.integers(len(broken))), int(draw.integers(1, 65))
        way = int(draw.integers(7))
        if way == 0:
            broken[at] ^= 1 << int(draw.integers(8))
        elif way == 1:
            broken[at : at + size] = draw.bytes(size)
        elif way == 2:
            del broken[at : None if draw.random() < 0.5 else at + size]
        elif way == 3:
            broken[at:at] = broken[at : at + size]
        elif way == 4:
            broken[at : at + 4] = int(pick(draw, (0, 1, 2**31, 2**32 - 1))).to_bytes(4, "little")
        elif way == 5:
            other = int(draw.integers(len(broken)))
            broken[at : at + size] = broken[other : other + size]
        else:
            broken[at : at + 1] = pick(draw, (b"\0", b"\xff", b"PK\x03\x04", b"PK\x05\x06", b'"'))
    return bytes(broken)


def places(tree: Any) -> list[tuple[Any, Any]]:
    """Every table or list of a tree with every key of it."""
    found: list[tuple[Any, Any]] = []
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        keys = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in keys:
            found.append((node, key))
            if isinstance(value, (dict, list)) and value:
                waiting.append(value)
    return found


def table_of(draw: Draw, table: Any) -> bytes:
    """A JSON value edited in a place or two, as canonical bytes if it is to look sound."""
    whole = [json.loads(json.dumps(table))]
    raw: list[str] = []
    end = b"\n"
    for _ in range(int(draw.integers(1, 3))):
        way = int(draw.integers(9))
        if way == 8 and draw.random() < 0.1:
            end = b""  # all as it was but for the line's end
        elif whole and not edited(draw, whole, way):
            node, key = pick(draw, places(whole))
            node[key] = f"{STANDIN}{len(raw)}"
            raw.append(pick(draw, RAW))
    try:
        text = json.dumps(*whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        data = text.encode("utf-8", "surrogatepass") + end
    except (ValueError, TypeError):  # nothing is left, or twice as much
        return b"[]"
    for number, other in enumerate(raw):
        data = data.replace(f'"{STANDIN}{number}"'.encode(), other.encode("utf-8", "surrogatepass"))
    return data


def edited(draw: Draw, whole: list[Any], way: int) -> bool:
    """Whether a place of the value could be edited in this way."""
    node, key = pick(draw, places(whole))
    value = node[key]
    match way:
        case 0 | 1 | 2:
            others: Any = (NUMBERS, TEXTS, (None, True, False, [], {}, [[]], {"a": {}}))[way]
            node[key] = pick(draw, others)
        case 3 if isinstance(value, (int, float)) and not isinstance(value, bool):
            node[key] = value + pick(draw, (1, -1, 0.5, 1e-12))
        case 4:
            del node[key]
        case 5:
            other, name = pick(draw, places(whole))
            node[key] = json.loads(json.dumps(other[name]))
        case 6 if isinstance(node, dict):
            node[pick(draw, TEXTS)] = value
        case 7 if isinstance(node, list):
            node.insert(key, value)
        case _:
            return False
    return True


def safetensors_of(draw: Draw, data: bytes) -> bytes:
    """A safetensors file with another header, or with other arrays in a sound form."""
    length = int.from_bytes(data[:8], "little")
    way = int(draw.integers(4))
    if way == 0:
        text = table_of(draw, json.loads(data[8 : 8 + length])).rstrip(b"\n")
        text += b" " * (-len(text) % 8)
        return len(text).to_bytes(8, "little") + text + data[8 + length :]
    header, held = canonical_tensors.loads(data, "fuzz")
    changed = {name: array.copy() for name, array in held.items()}
    if way == 1:
        try:
            told = json.loads(table_of(draw, header)) if draw.random() < 0.7 else header
            return canonical_tensors.dumps(told, changed)
        except (ValueError, TypeError, AttributeError, RecursionError):
            return data[:8] + bytes_of(draw, data[8:])
    name = pick(draw, list(changed))
    array = changed[name]
    if way == 2 and array.size:
        flat = array.reshape(-1)
        at = int(draw.integers(flat.size))
        if array.dtype.kind == "f":
            near = float(flat[at]) + 1
            flat[at] = pick(draw, (np.nan, np.inf, -1.0, 0.0, -0.0, 1e-45, 3e38, near))
        else:
            flat[at] ^= 1 << int(draw.integers(8))
    else:
        twice = np.concatenate([array.ravel()] * 2)
        resized = pick(draw, (array[:-1], array.reshape(1, -1), twice))
        other = pick(draw, [n for n in [*changed, "x", "mask/x", "kept/x", "a/b"] if n != name])
        edits: tuple[Callable[[], Any], ...] = (
            lambda: changed.pop(name),
            lambda: changed.update({other: array}),
            lambda: changed.update({name: resized}),
            lambda: changed.update({name: array.astype(pick(draw, ("u1", "<i4", "<f4", "<f8")))}),
        )
        with np.errstate(all="ignore"):
            pick(draw, edits)()
    return canonical_tensors.dumps(header, changed)


def member_of(draw: Draw, name: str, data: bytes) -> bytes:
    """A member, broken as a file of its kind is."""
    if draw.random() < 0.2:
        return bytes_of(draw, data)
    if name.endswith(".json"):
        try:
            return table_of(draw, json.loads(data))
        except ValueError:
            return bytes_of(draw, data)
    if name.endswith(".safetensors"):
        try:
            return safetensors_of(draw, data)
        except LthbenchError:
            return bytes_of(draw, data)
    return bytes_of(draw, data)


def members_of(draw: Draw, members: Members) -> tuple[Members, str]:
    """Members of which one is broken, missing, more, or in another's place; and what was done."""
    whole = dict(members)
    name = pick(draw, sorted(whole))
    way = draw.random()
    if way < 0.84:
        whole[name] = member_of(draw, name, whole[name])
        return whole, f"broken {name.rsplit('/', 1)[-1]}"
    if way < 0.88:
        del whole[name]
        return whole, "missing"
    if way < 0.94:
        other = pick(draw, sorted(whole))
        whole[name], whole[other] = whole[other], whole[name]
        return whole, "swapped"
    stem, _, last = name.rpartition("/")
    names = (f"{stem}/x{last}", f"a/{last}", name.upper(), last, f"{name}x", name.replace("0", "1"))
    whole[pick(draw, names).lstrip("/")] = whole[name]
    return whole, "more"


# --- what is tried ----------------------------------------------------------------------------


@dataclass
class Found:
    """What came of all cases."""

    cases: Counter[str] = field(default_factory=Counter)
    taken: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)
    slowest: tuple[float, int] = (0.0, 0)

    def text(self) -> str:
        """A line for each kind of case."""
        lines = [f"{sum(self.cases.values())} cases, {len(self.findings)} findings"]
        kinds = sorted(self.cases.items())
        lines += [f"  {kind}: {n}, taken {self.taken[kind]}" for kind, n in kinds]
        seconds, case = self.slowest
        return "\n".join([*lines, f"  slowest: case {case}, {seconds:.2f} s"])


# What no reader may take, whatever it was changed to.
FORBIDDEN = ("bytes", "manifest", "missing", "more", "swapped", "broken method.py")


class Wrong(Exception):
    """What was read should not have been."""


def bundle_case(draw: Draw, path: Path) -> tuple[str, bool]:
    """Break a bundle and read it; what was done, and whether it was taken."""
    task = pick(draw, (DIGITS, MODADD))
    way = draw.random()
    done, data = "bytes", b""
    if way < 0.25:
        data = bytes_of(draw, sound_bundle(task))
    elif way < 0.35:
        members = dict(sound(task))
        files = {n: {"sha256": digest(d), "size": len(d)} for n, d in members.items()}
        manifest = member_of(draw, archive.MANIFEST, canonical_json({"files": files, "format": 1}))
        data, done = canonical_zip.write({**members, archive.MANIFEST: manifest}), "manifest"
    else:
        members, done = members_of(draw, dict(sound(task)))
        try:
            data = archive.contain(members)
        except LthbenchError:
            return f"bundle, {done}", False  # the writer refuses its name
    path.write_bytes(data)
    taken = _read_bundle(path, data)
    if data == sound_bundle(task):
        if not taken:
            raise Wrong("the sound one was refused")
        return "bundle, unchanged", True
    if taken and done in FORBIDDEN:
        raise Wrong(f"taken: {done}")
    return f"bundle, {done}", taken


def _read_bundle(path: Path, data: bytes) -> bool:
    """Whether a bundle is taken; all of it is read, and read by the rules of level 0."""
    try:
        whole = archive.read(path)
    except LthbenchError as error:
        one_line(error)
        return False
    again: Members = {archive.ENVIRONMENT: bytes(whole.members[archive.ENVIRONMENT])}
    again[archive.SOURCE] = archive.source(whole).encode()
    for task in whole.tasks:
        record = archive.record(whole, task).model_dump(mode="json")
        again[f"{task}/record.json"] = canonical_json(as_file(record))
        again[f"{task}/answers.safetensors"] = canonical_tensors.dumps(
            {}, archive.answers(whole, task)
        )
        again[f"{task}/curves.safetensors"] = canonical_tensors.dumps(
            {}, archive.curves(whole, task)
        )
        for seed, density in archive.tickets(whole, task):
            rung = ticket_member.rung_name(density)
            held = ticket_member.dumps(*archive.ticket(whole, task, seed, density))
            again[f"{task}/tickets/seed{seed}/{rung}.safetensors"] = held
    if archive.contain(again) != data:
        raise Wrong("what was read is not what stands there")
    try:
        check_bundle(path)
    except LthbenchError as error:
        one_line(error)
        return False
    return True


def record_case(draw: Draw, folder: Path) -> tuple[str, bool]:
    """Break a record and read it as an entry's file."""
    task = pick(draw, (DIGITS, MODADD))
    data = sound(task)[f"{task}/record.json"]
    by_bytes = draw.random() < 0.2
    broken = bytes_of(draw, data) if by_bytes else table_of(draw, json.loads(data))
    path = folder / task / f"mixed--{digest(broken)[:8]}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(broken)
    kind = "record, " + ("bytes" if by_bytes else "values")
    kind = "record, unchanged" if broken == data else kind
    try:
        try:
            read_record(path)
        except LthbenchError as error:
            one_line(error)
            as_read = False
        else:
            as_read = True
        record = check_record(path)
    except LthbenchError as error:
        one_line(error)
        return kind, False
    finally:
        path.unlink()
    if not as_read:
        raise Wrong("the rules take what the reader refuses")
    if file_bytes(record) != broken:
        raise Wrong("what was read is not what stands there")
    return kind, True


def one_line(error: LthbenchError) -> None:
    said = str(error)
    if "\n" in said or not said.isprintable():
        raise Wrong(f"not one line: {said!r:.200}")


def one(seed: int, case: int, folder: Path, found: Found) -> None:
    """One case: what is broken, and how, follows from the two numbers alone."""
    draw = generator(seed, "fuzz", case)
    path = folder / "b.zip"
    began = time.monotonic()
    try:
        kind, taken = bundle_case(draw, path) if draw.random() < 0.6 else record_case(draw, folder)
        found.cases[kind] += 1
        found.taken[kind] += taken
    except Exception as error:
        found.cases["with a finding"] += 1
        last = traceback.format_exception(error)[-2:]
        found.findings.append(f"python -m tests.fuzz --seed {seed} --case {case}\n{''.join(last)}")
        if path.exists():
            path.rename(folder / f"seed{seed}-case{case}.zip")
    found.slowest = max(found.slowest, (time.monotonic() - began, case))


def fuzz(seconds: float, seed: int, keep: Path, cases: Sequence[int] | None = None) -> Found:
    """Run cases for so many seconds, or those that are named."""
    found, home = Found(), house()
    keep.mkdir(parents=True, exist_ok=True)
    with at_home(home.share, home.cache):
        end = time.monotonic() + seconds
        for case in cases if cases is not None else range(10**9):
            if cases is None and time.monotonic() >= end:
                break
            one(seed, case, keep, found)
    (keep / "b.zip").unlink(missing_ok=True)
    return found


def main() -> None:
    """Run, say what came of it, and exit with 1 if there was a finding."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--case", type=int, help="only this one")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir(), "lthbench-fuzz"))
    given = parser.parse_args()
    cases = None if given.case is None else [given.case]
    found = fuzz(given.seconds, given.seed, given.keep, cases)
    print(found.text())
    for finding in found.findings:
        print(f"\n{finding}")
    raise SystemExit(bool(found.findings))


if __name__ == "__main__":
    main()
