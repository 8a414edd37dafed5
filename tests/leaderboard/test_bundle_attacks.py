"""Attacks on whoever reads a bundle or a record: each is refused in one line and leaves nothing.

Every attack starts from a sound bundle, and changes what it must and nothing else: where it goes
deeper than the zip, the zip and its manifest are made anew, so that it is that rule which refuses.
"""

from __future__ import annotations

import io
import json
import os
import re
import resource
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lthbench.cli.main import main
from lthbench.errors import RecordError
from lthbench.io import canonical_tensors, canonical_zip
from lthbench.io.paths import canonical_json, digest
from lthbench.io.untrusted import DEPTH, canonical
from lthbench.leaderboard.bundle import archive, ticket_member
from lthbench.leaderboard.validation.validate import check_bundle, check_record
from lthbench.records.schema import BUNDLE_LIMIT, read_record
from tests import fuzz
from tests.commands import run
from tests.searching import ROOT
from tests.submitted import DIGITS, MODADD, at_home, house
from tests.synthetic import as_table

TICKET = f"{DIGITS}/tickets/seed0/0500000.safetensors"  # of origin init
SIGNS = f"{DIGITS}/tickets/seed0/0200000.safetensors"
FREE = f"{DIGITS}/tickets/seed0/0100000.safetensors"
RECORD, ANSWERS, CURVES = (
    f"{DIGITS}/{n}" for n in ("record.json", "answers.safetensors", "curves.safetensors")
)


@cache
def sound() -> bytes:
    return house().bundle.read_bytes()


@cache
def members() -> Mapping[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(sound())) as file:
        return {name: file.read(name) for name in file.namelist() if name != archive.MANIFEST}


def rebuilt(changes: Mapping[str, bytes | None]) -> bytes:
    """The zip and the manifest of changed members; None takes one away."""
    whole = {**members(), **changes}
    return archive.contain({name: data for name, data in whole.items() if data is not None})


def with_manifest(change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The same members with another manifest."""
    with zipfile.ZipFile(io.BytesIO(sound())) as file:
        whole = {name: file.read(name) for name in file.namelist()}
    table = json.loads(whole[archive.MANIFEST])
    changed = change(table)
    whole[archive.MANIFEST] = changed if isinstance(changed, bytes) else canonical_json(table)
    return canonical_zip.write(whole)


def everything_in(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def refused(
    data: bytes, folder: Path, rule: str = ".", check: Callable[[Path], Any] = archive.read
) -> str:
    """The one line that a bundle of these bytes is refused with; it leaves nothing."""
    path = folder / "b.zip"
    path.write_bytes(data)
    before = everything_in(folder.parent)
    with at_home(house().share, house().cache), pytest.raises(RecordError) as caught:
        check(path)
    assert everything_in(folder.parent) == before
    said = one_line(str(caught.value)).removeprefix(str(path))  # which names the test
    assert re.search(rule, said), said
    return said


def one_line(said: str) -> str:
    assert said.isprintable() and len(said) < 900, said
    return said


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with nothing beside it, so that a member that leaves it is seen."""
    (tmp_path / "inner").mkdir()
    return tmp_path / "inner"


def test_the_sound_one_is_read(place: Path) -> None:
    """And it is the same when it is made again: attacks differ from it in what they say alone."""
    (place / "b.zip").write_bytes(sound())
    assert archive.read(place / "b.zip").tasks == (DIGITS, MODADD)
    assert rebuilt({}) == sound() == with_manifest(lambda table: None)


# --- names ------------------------------------------------------------------------------------


def named(name: str, data: bytes = b"x") -> bytes:
    """The zip with a member of any name more, as the writer would have it if it did not look.

    A name that the writer would not spell so comes in place of one of the same length, in the
    zip's two lists.
    """
    plain = name.isascii() and name.isprintable()
    stand_in = name if plain else "z" * len(name.encode())
    whole = canonical_zip._pack({**members(), archive.MANIFEST: b"{}", stand_in: data})
    assert whole.count(stand_in.encode()) >= 2
    return whole.replace(stand_in.encode(), name.encode())


@pytest.mark.parametrize(
    "name",
    [
        "../outside", "../../outside", "a/../../outside", "/etc/cron.d/outside", "a/..", "..",
        "a/./b", "./a", "..\\outside", "a\\..\\..\\outside", "\\\\host\\share", "C:outside",
        "C:\\outside", "~/outside?", "a//b", "a/", "/", "name\nwith lines", "nul\0byte",
        "tab\there",
        "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "$(touch outside)", "`id`",
        "-rf *", "a b", "\u202egpj.exe", "\u200bhidden", "naïve", "con\x1b[2Jsole", "&amp;",
        "a" * 201, "/".join("a" * 120),
    ],
)  # fmt: skip
def test_names_that_are_none(place: Path, name: str) -> None:
    """Paths that leave their folder, other systems' paths, markup, marks of direction."""
    said = refused(named(name), place, "name|path that leaves")
    assert said.isascii() and "outside" not in {p.name for p in place.parent.rglob("*")}


@pytest.mark.parametrize("name", [RECORD, RECORD.upper(), "METHOD.py", "Manifest.json"])
def test_names_that_are_there_twice(place: Path, name: str) -> None:
    """In these letters or in others: some file systems take them for one."""
    stand_in = "z" * len(name)
    data = canonical_zip.write({**members(), archive.MANIFEST: b"{}", stand_in: b"x"})
    refused(data.replace(stand_in.encode(), name.encode()), place, "there twice")


def test_names_out_of_order(place: Path) -> None:
    data = sound().replace(b"environment.json", b"zzzzzzzzzzz.json")
    refused(data, place, "not in the order")


def test_a_file_that_is_a_folder(place: Path) -> None:
    refused(named(DIGITS), place, "a file and a folder|not in the order")


@pytest.mark.parametrize(
    "name",
    [
        "setup.py", "__init__.py", f"{DIGITS}/notes.txt", f"{DIGITS}/tickets/seed0/x.safetensors",
        f"{DIGITS}/tickets/seed01/0500000.safetensors",
        f"{DIGITS}/tickets/seed-1/0500000.safetensors",
        f"{DIGITS}/tickets/seed0/0500000.pt", "other/record.json", "UPPER/record.json", "a/b/c/d",
        f"{DIGITS}/tickets/seed9/0500000.safetensors",
        f"{DIGITS}/tickets/seed0/0333333.safetensors",
        "conftest.py", f"{DIGITS}/answers.pkl",
    ],
)  # fmt: skip
def test_files_that_nothing_reads(place: Path, name: str) -> None:
    """A bundle carries what is looked at, and nothing on the side."""
    refused(rebuilt({name: members()[TICKET]}), place)


def test_files_that_are_missing(place: Path) -> None:
    for name in members():
        refused(rebuilt({name: None}), place)


# --- the zip ----------------------------------------------------------------------------------


def patched(signature: bytes, at: int, form: str, value: int, data: bytes = b"") -> bytes:
    """The sound zip with one field of a header set, of the first that has this signature."""
    whole = bytearray(data or sound())
    begin = whole.index(signature)
    struct.pack_into(form, whole, begin + at, value)
    return bytes(whole)


CENTRAL, LOCAL, END = b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06"


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ((CENTRAL, 38, "<L", 0o120777 << 16), "plain zip"),
        ((CENTRAL, 38, "<L", 0o100755 << 16), "plain zip"),
        ((CENTRAL, 38, "<L", 0o104644 << 16), "plain zip"),
        ((CENTRAL, 38, "<L", 0o040755 << 16), "plain zip"),
        ((CENTRAL, 38, "<L", 0o060644 << 16), "plain zip"),
        ((CENTRAL, 8, "<H", 1), "plain zip"),
        ((CENTRAL, 8, "<H", 1 << 6), "plain zip"),
        ((CENTRAL, 8, "<H", 8), "plain zip"),
        ((CENTRAL, 8, "<H", 1 << 11), "plain zip"),
        ((CENTRAL, 10, "<H", 8), "compressed"),
        ((CENTRAL, 10, "<H", 99), "compressed"),
        ((CENTRAL, 20, "<L", 0xFFFFFFFF), "plain zip|overlap"),
        ((CENTRAL, 24, "<L", 0xFFFFFFFF), "plain zip|overlap"),
        ((CENTRAL, 42, "<L", 0xFFFFFFFF), "plain zip|overlap"),
        ((CENTRAL, 20, "<L", 1), "plain zip|overlap"),
        ((CENTRAL, 24, "<L", 2**31), "plain zip|overlap"),
        ((CENTRAL, 28, "<H", 0xFFFF), "path that leaves"),
        ((CENTRAL, 30, "<H", 4), "directory is damaged"),
        ((CENTRAL, 32, "<H", 4), "directory is damaged"),
        ((CENTRAL, 42, "<L", 7), "plain zip"),
        ((CENTRAL, 12, "<L", 0), "plain zip"),
        ((CENTRAL, 16, "<L", 0), "plain zip"),
        ((LOCAL, 6, "<H", 1), "plain zip"),
        ((LOCAL, 14, "<L", 0), "plain zip"),
        ((LOCAL, 18, "<L", 1), "plain zip"),
        ((LOCAL, 28, "<H", 4), "plain zip"),
        ((LOCAL, 0, "<L", 0), "plain zip"),
        ((END, 4, "<H", 1), "plain zip"),
        ((END, 8, "<H", 1), "plain zip"),
        ((END, 10, "<H", 0xFFFF), "at most"),
        ((END, 12, "<L", 0xFFFFFFFF), "at most"),
        ((END, 12, "<L", 7), "directory is damaged"),
        ((END, 16, "<L", 7), "plain zip"),
        ((END, 20, "<H", 9), "trailing data"),
    ],
)
def test_headers_that_lie(place: Path, change: tuple[bytes, int, str, int], rule: str) -> None:
    """Links, devices, encryption, compression, zip64, sizes and places that are not true."""
    refused(patched(*change), place, rule)


def foreign(method: int = zipfile.ZIP_STORED, **changes: bytes) -> bytes:
    """The same members as another program would put them into a zip."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in {**members(), **changes}.items():
            archive.writestr(name, data)
    return file.getvalue()


def test_other_programs_zips(place: Path) -> None:
    refused(foreign(), place)
    refused(foreign(zipfile.ZIP_DEFLATED), place, "compressed")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_bombs(place: Path, method: int) -> None:
    """Nothing is unpacked, so nothing can grow: a gigabyte of zeros stays as small as it came."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method, compresslevel=1) as archive:
        for number in range(3):
            archive.writestr(f"{number}.bin", bytes(2**24))
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr("inner.zip", file.getvalue())
    assert len(file.getvalue()) < 2**20
    refused(file.getvalue(), place, "compressed")


def test_members_that_overlap(place: Path) -> None:
    """One member's bytes listed twice, as the bomb that needs no nesting does."""
    data = canonical_zip.write({"a": b"x" * 9, "b": b"y" * 9})
    second = data.rindex(CENTRAL)
    refused(data[: second + 42] + struct.pack("<L", 0) + data[second + 46 :], place, "plain zip")


@pytest.mark.parametrize("where", ["before", "after", "between", "in the directory", "twice"])
def test_bytes_that_no_member_has(place: Path, where: str) -> None:
    """Room for a second file: a script in front, a page behind, a zip in a zip's middle."""
    data, extra = sound(), b"#!/bin/sh\ntouch outside\n"
    directory = data.index(CENTRAL)
    forms = {
        "before": extra + data,
        "after": data + extra,
        "between": data[:directory] + extra + data[directory:],
        "in the directory": data[:-22] + extra + data[-22:],
        "twice": data + data,
    }
    refused(forms[where], place)


def test_bytes_between_that_the_end_knows_of(place: Path) -> None:
    """The same with an end that says where the directory lies now."""
    data, extra = sound(), b"hidden"
    begin, size = data.index(CENTRAL), len(data) - 22 - data.index(CENTRAL)
    end = struct.pack("<2L", size, begin + len(extra))
    moved = data[:begin] + extra + data[begin:-22] + data[-22:-10] + end + data[-2:]
    refused(moved, place, "plain zip")


def test_too_many_members(place: Path) -> None:
    refused(
        canonical_zip.write({f"{n:06d}": b"" for n in range(canonical_zip.MEMBERS + 1)}),
        place,
        "at most",
    )


def test_cut_short_anywhere(place: Path) -> None:
    """At the borders of every header and member, a byte before and a byte after."""
    data = sound()
    borders = {0, 1, 3, 4, 21, 22, 30, len(data) - 22, len(data) - 1}
    for signature in (LOCAL, CENTRAL, END):
        at = data.find(signature)
        while at >= 0:
            borders |= {at, at + 4, at + 30, at + 46}
            at = data.find(signature, at + 1)
    for border in sorted(borders):
        for cut in (border - 1, border, border + 1):
            if 0 <= cut < len(data):
                refused(data[:cut], place)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10**9), value=st.integers(1, 255))
def test_any_changed_byte_is_noticed(place: Path, at: int, value: int) -> None:
    """Wherever it is, whatever it becomes."""
    data = bytearray(sound())
    data[at % len(data)] ^= value
    refused(bytes(data), place)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10**9), more=st.binary(min_size=1, max_size=4), less=st.integers(0, 4))
def test_bytes_put_in_or_taken_out_are_noticed(
    place: Path, at: int, more: bytes, less: int
) -> None:
    data = sound()
    begin = at % len(data)
    changed = data[:begin] + more + data[begin + less :]
    if changed != data:
        refused(changed, place)


def test_every_byte_is_noticed() -> None:
    """Not a sample: each byte of a zip of short members changed in turn, by the zip's reader."""
    data = bytearray(canonical_zip.write({name: held[:40] for name, held in members().items()}))
    for at in range(len(data)):
        data[at] ^= 0x20
        with pytest.raises(RecordError):
            canonical_zip.read(bytes(data), "b.zip")
        data[at] ^= 0x20
    assert canonical_zip.read(bytes(data), "b.zip")


# --- manifest and environment ------------------------------------------------------------------

EXTREMES = (
    "NaN", "Infinity", "-Infinity", "1e308", "1e999", "-1e999", "-1", "0.5", "-0.0",
    "1" * 400, "1" * 5000, "-" + "9" * 30, "1E400", "0x10", "01", "true", "null", '""', "[]", "{}",
    '"\\ud800"', '"\\u0000"', '"' + "\u202e" + '"', '"' + "a" * 10**5 + '"', "[" * 50 + "]" * 50,
    "[" * 10**5 + "]" * 10**5, '{"a":' * 10**4 + "1" + "}" * 10**4, "[1,]", "'a'", "//", "",
)  # fmt: skip


@pytest.mark.parametrize("text", EXTREMES, ids=range(len(EXTREMES)))
@pytest.mark.parametrize("key", ["size", "sha256", "format", "files"])
def test_extremes_in_the_manifest(place: Path, key: str, text: str) -> None:
    """Numbers that are none, numbers without end, tables without bottom."""
    stand_in = "STANDIN"

    def change(table: dict[str, Any]) -> bytes:
        of = table["files"]["method.py"] if key in ("size", "sha256") else table
        of[key] = stand_in
        return canonical_json(table).replace(
            f'"{stand_in}"'.encode(), text.encode("utf-8", "replace")
        )

    refused(with_manifest(change), place, "manifest.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda table: table["files"].update({"ghost": {"size": 0, "sha256": digest(b"")}}),
        lambda table: table["files"].pop("method.py") and None,
        lambda table: table["files"]["method.py"].update(more=1),
        lambda table: table.update(more=1),
        lambda table: table.update(files=[]),
        lambda table: table.update(format=2),
        lambda table: table.update(format=True),
        lambda table: table["files"].update({"../ghost": {"size": 0, "sha256": digest(b"")}}),
        lambda table: b"",
        lambda table: b"\xff\xfe",
        lambda table: b"[]\n",
        lambda table: b"null",
        lambda table: canonical_json(table).replace(b'"format":1', b'"format":1,"format":1'),
        lambda table: json.dumps(table, indent=1).encode(),
        lambda table: b"\xef\xbb\xbf" + canonical_json(table),
        lambda table: canonical_json(table) + b"\n",
        lambda table: canonical_json(table).rstrip(b"\n"),
    ],
)
def test_manifests_that_do_not_fit(place: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    refused(with_manifest(change), place, "manifest.json")


@pytest.mark.parametrize(
    "data",
    [b"", b"[]\n", b'{"packages":{}}', b'{"packages":[]}\n', b'{"packages":{"a":1}}\n',
     b'{"packages":{},"x":1}\n', b'{"packages":{"a":NaN}}\n', b"{" * 10**5,
     b'{"packages":{"b":"1","a":"1"}}\n', b'{"packages":{"a":"' + b"x" * 2**20 + b'"}}\n'],
)  # fmt: skip
def test_environments_that_are_none(place: Path, data: bytes) -> None:
    refused(rebuilt({"environment.json": data}), place, "environment.json")


@pytest.mark.parametrize("data", [b"\xff", b"", b"print('another method')\n", b"#" * (2**20 + 1)])
def test_sources_that_are_not_the_methods(place: Path, data: bytes) -> None:
    refused(rebuilt({"method.py": data}), place, "method.py")


def test_json_without_bottom() -> None:
    """A depth that no file of ours has is refused before anything goes down there."""
    for depth in (1, DEPTH):
        assert canonical(b"[" * depth + b"]" * depth + b"\n", "x", 10**6) is not None
    for depth in (DEPTH + 1, 900, 10**5):
        for begin, end in ((b"[", b"]"), (b'{"a":', b"}")):
            text = begin * depth + (b"1" if end == b"}" else b"") + end * depth + b"\n"
            with pytest.raises(RecordError, match="x: JSON nested too deep"):
                canonical(text, "x", 10**6)


# --- records ----------------------------------------------------------------------------------

PLACES: tuple[tuple[str | int, ...], ...] = (
    ("schema_version",), ("method",), ("method", "name"), ("method", "options", "scale"),
    ("method", "digest"), ("method", "described"), ("task", "name"), ("task", "version"),
    ("task", "weights"), ("task", "steps"), ("task", "every"), ("task", "chance"),
    ("task", "threshold"), ("task", "ladder"), ("task", "ladder", 0), ("final",), ("seeds",),
    ("seeds", 0), ("sizes",), ("sizes", "0"), ("sizes", "0", "test"), ("cells",), ("cells", 0),
    ("cells", 1, "seed"), ("cells", 1, "density"), ("cells", 1, "kept"), ("cells", 1, "start"),
    ("cells", 1, "requested"), ("cells", 1, "effective"), ("cells", 1, "correct"),
    ("cells", 1, "correct", "test"), ("cells", 1, "correct", "test", 0), ("cells", 1, "layers"),
    ("cells", 1, "attempt"), ("cells", 1, "schedule"), ("cells", 1, "masks"),
    ("cells", 1, "reason"),
    ("searches",), ("searches", 0, "cost"), ("searches", 0, "seed"), ("reference",),
    ("reference", "margin"), ("reference", "dense", 0), ("reference", "loss_random", 0),
    ("aggregates",), ("aggregates", "rungs"), ("aggregates", "headline"), ("scorer",),
    ("environment",), ("environment", "torch"), ("times",), ("times", "find_seconds"),
    ("fingerprints",), ("bundle",), ("transfer",),
)  # fmt: skip


def edited(at: tuple[str | int, ...], text: str) -> bytes:
    """The canonical record with one value replaced by any text."""
    table = json.loads(members()[RECORD])
    of = table
    for step in at[:-1]:
        of = of[step]
    of[at[-1]] = "STANDIN"
    return canonical_json(table).replace(b'"STANDIN"', text.encode("utf-8", "replace"))


# Nothing follows from these, and each is what might stand there.
OPEN = {
    ("method", "options", "scale"), ("method", "described"), ("environment",), ("times",),
    ("environment", "torch"), ("times", "find_seconds"),
}  # fmt: skip
PLAIN = {"-1", "0.5", "true", '""', "{}"}


@pytest.mark.parametrize("text", EXTREMES, ids=range(len(EXTREMES)))
def test_extremes_in_a_record(place: Path, text: str) -> None:
    """In every place of it; in a bundle, and as the file of an entry."""
    sound_table = json.loads(members()[RECORD])
    folder = place / DIGITS
    folder.mkdir()
    for at in PLACES:
        data = edited(at, text)
        if text in PLAIN and at in OPEN:
            continue
        try:
            if canonical_json(json.loads(data)) == canonical_json(sound_table):
                continue  # what stood there already
        except (ValueError, RecursionError):
            pass
        as_file = folder / f"mixed--{digest(data)[:8]}.json"
        as_file.write_bytes(data)
        with at_home(house().share, house().cache), pytest.raises(RecordError) as caught:
            check_record(as_file)
        one_line(str(caught.value))
        refused(rebuilt({RECORD: data}), place, check=check_bundle)
        as_file.unlink()


HOSTILE = (
    "<script>alert(1)</script>", "\u202egnp.exe", "a\nb", "a\r\nb", "\x1b[31mred", "\x00",
    "\u2028line", "\u200bzero", "</script><img src=x onerror=alert(1)>", "javascript:alert(1)",
    "\ud83d", "../../etc/passwd", "a" * 500, "${jndi:ldap://x}", "{{7*7}}", "%s%n", "'; --",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_in_a_record(place: Path, text: str) -> None:
    """As names, keys and values: refused in one line of ASCII, or held as text and no more."""
    quoted = json.dumps(text)
    for at in (("method", "name"), ("task", "name"), ("cells", 1, "kind"), ("cells", 1, "status"),
               ("cells", 1, "origin"), ("shown",), ("task", "kind")):  # fmt: skip
        assert refused(rebuilt({RECORD: edited(at, quoted)}), place).isascii()
    for key in ("cells", "sizes", "environment", "times", "aggregates", "fingerprints"):
        table = json.loads(members()[RECORD])
        of = table[key][1] if key == "cells" else table[key]
        of[text] = {} if key in ("sizes", "aggregates") else "x"
        data = json.dumps(table, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        path = place / "record.json"
        path.write_bytes(data.encode("utf-8", "surrogatepass"))
        with at_home(house().share, house().cache), pytest.raises(RecordError) as caught:
            check_record(path)
        one_line(str(caught.value))
        if key in ("cells", "aggregates"):
            with pytest.raises(RecordError) as caught:
                read_record(path)
            one_line(str(caught.value))


def test_numbers_edited_by_hand(place: Path) -> None:
    """A half point more, and the aggregates computed anew: the curves and the answers tell."""
    from tests.scoring import aggregates

    table = json.loads(members()[RECORD])
    cell = next(c for c in table["cells"] if c["kind"] == "ticket")
    cell["correct"]["test"][-1] += 2
    refused(rebuilt({RECORD: canonical_json(table)}), place, "does not follow from the cells")
    table["aggregates"] = aggregates(as_table(canonical_json(table)))
    refused(rebuilt({RECORD: canonical_json(table)}), place, "not what the record has of it")
    held = dict(canonical_tensors.loads(members()[CURVES], "")[1])
    name = f"ticket/{cell['density']!r}/{cell['seed']}/1/test"
    held[name] = held[name].copy()
    held[name][-1] += 2
    lied = rebuilt({RECORD: canonical_json(table), CURVES: canonical_tensors.dumps({}, held)})
    (place / "b.zip").write_bytes(lied)
    archive.read(place / "b.zip")  # agrees with itself; only the labels tell
    with at_home(house().share, house().cache), pytest.raises(RecordError, match="are right"):
        check_bundle(place / "b.zip")


def test_a_record_of_looser_types(place: Path) -> None:
    """A whole number where a record has a real one: the same value, and another file."""
    table = json.loads(members()[RECORD])
    table["times"]["find_seconds"] = 1
    refused(rebuilt({RECORD: canonical_json(table)}), place, "not in canonical form")


def test_a_record_of_two_methods(place: Path) -> None:
    """Or of another task than its folder's, or one that names a bundle."""
    table = json.loads(members()[RECORD])
    other = {**table, "method": {**table["method"], "name": "another"}}
    refused(rebuilt({RECORD: canonical_json(other)}), place, "two methods")
    refused(rebuilt({RECORD: members()[f"{MODADD}/record.json"]}), place, "not of tiny-digits")
    circle = {**table, "bundle": {"sha256": "0" * 64, "size": 9, "urls": []}}
    refused(rebuilt({RECORD: canonical_json(circle)}), place, "names a bundle")


SAYS: Mapping[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "a name": (lambda m: m.update(name="imp", described={**m["described"], "name": "imp"}),
               "method.name: imp, but its source's METHOD says mixed"),
    "a name alone": (lambda m: m.update(name="imp"), "method.name: imp, but its source"),
    "authors": (lambda m: m["described"].update(authors="A. Thief"),
                r"described.authors: 'A. Thief', but its source's METHOD says 'A. Nobody'"),
    "nobody": (lambda m: m["described"].pop("authors"), "described.authors: nothing, but its sour"),
    "a licence": (lambda m: m["described"].update(licence="none"), "described.licence: 'none', b"),
    "a paper": (lambda m: m["described"].update(paper="P"), "described.paper: 'P', but .* nothing"),
    "code": (lambda m: m["described"].update(code="https://a.org"), "described.code: 'https"),
    "a version": (lambda m: m["described"].update(version="2"), "described.version: '2', but"),
    "nothing": (lambda m: m.update(described={}), "described.authors: nothing, but"),
    "an option more": (lambda m: m["options"].update(speed=1), "options.speed: its source has no"),
    "an option less": (lambda m: m.update(options={}), "options: no scale, which its source has"),
    "another type": (lambda m: m["options"].update(scale=1), "scale: 1, but its source wants flo"),
}  # fmt: skip


@pytest.mark.parametrize("said", SAYS)
def test_a_record_says_what_its_source_says(place: Path, said: str) -> None:
    """Every record of the bundle claims it, so that they agree with each other: the source tells.

    It is a finding of level 0, in `validate` as in `verify`, and no mistake in the command.
    """
    change, rule = SAYS[said]
    tables = {name: json.loads(members()[name]) for name in (RECORD, f"{MODADD}/record.json")}
    for table in tables.values():
        change(table["method"])
    data = rebuilt({name: canonical_json(table) for name, table in tables.items()})
    refused(data, place, rule, check_bundle)
    for verb in ("validate", "verify"):
        with at_home(house().share, house().cache):
            done = run(verb, str(place / "b.zip"), cwd=place)
        assert done.returncode == 1 and re.search(rule, done.stdout), done


def test_an_option_s_value_is_the_claimant_s(place: Path) -> None:
    """Another value of an option that the source has is what may be asked for."""
    tables = {name: json.loads(members()[name]) for name in (RECORD, f"{MODADD}/record.json")}
    for table in tables.values():
        table["method"]["options"]["scale"] = 0.25
    (place / "b.zip").write_bytes(rebuilt({n: canonical_json(t) for n, t in tables.items()}))
    with at_home(house().share, house().cache):
        check_bundle(place / "b.zip")


@pytest.mark.parametrize(
    ("more", "rule"),
    [
        ("#" * 2**16, "member method.py: 6[0-9],[0-9]{3} bytes; at most 64 kB"),
        (f"MASK = {'0' * 4097!r}", "member method.py:[0-9]+: a literal of 4,099 bytes; at most 4"),
        ("MASK = [" + "1, " * 2000 + "]", "member method.py:[0-9]+: a literal of 6,002 bytes"),
        ("def (", "member method.py:[0-9]+: SyntaxError"),
        ("find_tickets = METHOD = {}", "member method.py:[0-9]+: METHOD is there twice"),
    ],
)  # fmt: skip
def test_a_source_that_is_none(place: Path, more: str, rule: str) -> None:
    """One that carries masks, or cannot be read: with every digest right."""
    source = members()["method.py"] + more.encode() + b"\n"
    changes: dict[str, bytes | None] = {"method.py": source}
    for name in (RECORD, f"{MODADD}/record.json"):
        table = json.loads(members()[name])
        table["method"]["digest"] = digest(source)
        changes[name] = canonical_json(table)
    refused(rebuilt(changes), place, rule, check_bundle)


# --- tickets, answers, curves -----------------------------------------------------------------


def reheaded(
    name: str, change: Callable[[dict[str, Any]], Any], left: bytes | None = None
) -> bytes:
    """A member with another safetensors header, as bytes or as a changed table."""
    data = members()[name]
    (size,) = struct.unpack("<Q", data[:8])
    table = json.loads(data[8 : 8 + size])
    changed = change(table)
    text = changed if isinstance(changed, bytes) else json.dumps(
        table, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).encode()  # fmt: skip
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + (data[8 + size :] if left is None else left)


def of_first(**changes: Any) -> Callable[[dict[str, Any]], None]:
    def change(table: dict[str, Any]) -> None:
        table[next(name for name in table if name != "__metadata__")].update(changes)

    return change


def last(offsets: Callable[[int, int], list[Any]]) -> Callable[[dict[str, Any]], None]:
    def change(table: dict[str, Any]) -> None:
        spec = max((s for n, s in table.items() if n[0] != "_"), key=lambda s: s["data_offsets"])
        spec["data_offsets"] = offsets(*spec["data_offsets"])

    return change


def more(name: str) -> Callable[[dict[str, Any]], None]:
    """An empty array more, which takes no bytes."""
    return lambda table: table.update({name: {"data_offsets": [0, 0], "dtype": "U8", "shape": [0]}})


def minus_times_minus(table: dict[str, Any]) -> None:
    """A shape of two negative numbers, whose product is the array's size."""
    spec = next(spec for name, spec in table.items() if name != "__metadata__")
    spec["shape"] = [-1, *(-n for n in spec["shape"])]


def header(**changes: Any) -> Callable[[dict[str, Any]], None]:
    """A change of the ticket's own header, which stands as text in the metadata."""

    def change(table: dict[str, Any]) -> None:
        told = json.loads(table["__metadata__"]["header"])
        for key, value in changes.items():
            told.pop(key) if value is ... else told.update({key: value})
        text = json.dumps(told, sort_keys=True, separators=(",", ":"))
        table["__metadata__"]["header"] = text

    return change


@pytest.mark.parametrize(
    "change",
    [
        of_first(dtype="F64"), of_first(dtype="I8"), of_first(dtype="BF16"), of_first(dtype="BOOL"),
        of_first(dtype=7), of_first(dtype=None), of_first(dtype="U8\u202e"), of_first(dtype=["U8"]),
        of_first(shape=[-1]), of_first(shape=[2**62]), of_first(shape=[2**31] * 8),
        of_first(shape=[0]), of_first(shape=[]), of_first(shape=[1.0]), of_first(shape=[True]),
        of_first(shape="12"), of_first(shape=None), of_first(shape=[[1]]), of_first(shape=[1] * 99),
        of_first(data_offsets=[0, 2**63]), of_first(data_offsets=[-8, 0]),
        of_first(data_offsets=[0]), of_first(data_offsets=[0, 1, 2]), of_first(data_offsets=None),
        of_first(data_offsets=[0.0, 1.0]), of_first(data_offsets=[8, 0]), of_first(more=1),
        last(lambda a, b: [0, b - a]), last(lambda a, b: [a + 1, b + 1]),
        last(lambda a, b: [a, b + 1]),
        last(lambda a, b: [a, b - 1]), last(lambda a, b: [b, a]),
        more("../../x"), more("a\nb"), more("<b>"), more("x"), more("\u202e"),
        lambda table: table.update({"x": []}), lambda table: table.update({"x": "y"}),
        lambda table: table.pop("__metadata__") and None,
        lambda table: table.update(__metadata__={}),
        lambda table: table.update(__metadata__={"header": 1}),
        lambda table: table.update(__metadata__={"header": "{}", "more": "x"}),
        lambda table: table.update(__metadata__={"header": "[]"}),
        lambda table: table.update(__metadata__={"header": "[" * 10**5}),
        lambda table: table.update(__metadata__={"header": '{"a":NaN}'}),
        lambda table: table.update(__metadata__={"header": '{"a": 1}'}),
        lambda table: table.clear(),
        lambda table: b"[]", lambda table: b"null", lambda table: b"\xff" * 16, lambda table: b"",
        lambda table: b"[" * 10**5, lambda table: b'{"a":' * 10**5,
        lambda table: json.dumps(table).encode(),
        lambda table: canonical_json(table)[:-1].ljust(2**14), minus_times_minus,
        lambda table: b" " + canonical_json(table)[:-1],
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", [FREE, ANSWERS])
def test_safetensors_that_lie(place: Path, name: str, change: Callable[..., Any]) -> None:
    """Offsets that overlap or reach out, shapes without end, types that are none."""
    refused(rebuilt({name: reheaded(name, change)}), place)


def test_a_truth_is_no_length(place: Path) -> None:
    """JSON's true is Python's 1, and the factors are arrays of one."""
    data = reheaded(SIGNS, of_first(shape=[True]))
    assert b'"dtype":"F64","shape":[true]' in data
    refused(rebuilt({SIGNS: data}), place, "its shape is none")


@pytest.mark.parametrize("name", [TICKET, ANSWERS, CURVES])
@pytest.mark.parametrize("length", [0, 1, 2**31, 2**63, 2**64 - 1])
def test_safetensors_of_false_length(place: Path, name: str, length: int) -> None:
    data = struct.pack("<Q", length) + members()[name][8:]
    refused(rebuilt({name: data}), place)
    refused(rebuilt({name: data[:5]}), place)
    refused(rebuilt({name: members()[name] + b"\0"}), place)
    refused(rebuilt({name: members()[name][:-1]}), place)
    refused(rebuilt({name: b"\x80\x04cos\nsystem\n"}), place)  # a pickle


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (header(kept=1), "keep"), (header(kept=True), "kept"), (header(kept=-5), "kept"),
        (header(kept=1.5), "kept"), (header(kept=10**30), "keep"), (header(density=0.2), "density"),
        (header(density=1), "density"), (header(density="0.5"), "density"),
        (header(origin="trained"), "origin"), (header(origin="rewind", start=3), "is not the"),
        (header(origin="final"), "does not hold"), (header(origin="signs"), "does not hold"),
        (header(origin=["init"]), "origin"), (header(origin=None), "origin"),
        (header(start=-1), "start"), (header(start=10**13), "start"), (header(start=0.0), "start"),
        (header(start=5), "start of the record"), (header(trained=1), "trained"),
        (header(masks="0" * 64), "digest"), (header(masks=""), "masks"),
        (header(masks=None), "masks"),
        (header(weights="x"), "weights"), (header(weights=3), "weights"),
        (header(shapes=[]), "shapes"),
        (header(shapes={}), "different names"), (header(shapes={"a": [2**31]}), "shapes"),
        (header(shapes={"a": [2**30]}), "at most"), (header(shapes={"a": [-1]}), "shapes"),
        (header(shapes={"a": [0]}), "shapes"), (header(shapes={"a": [2] * 9}), "shapes"),
        (header(cost=1.0), "unknown"), (header(density=...), "missing"),
        (header(kept=...), "missing"),
        (header(**{"a\nb": 1}), "unknown"),
    ],
)  # fmt: skip
def test_tickets_that_lie(place: Path, change: Callable[..., Any], rule: str) -> None:
    """Counts, densities, origins and digests that are not the masks'."""
    refused(rebuilt({TICKET: reheaded(TICKET, change)}), place, rule)


def remade(
    name: str, change: Callable[[dict[str, Any], dict[str, Any]], None], **told: Any
) -> bytes:
    """A ticket's file made again after its masks and weights were changed."""
    density = int(name[-19:-12]) / 1e6
    header, masks, weights = ticket_member.loads(members()[name], "", density)
    masks = {n: mask.copy() for n, mask in masks.items()}
    weights = {n: values.copy() for n, values in weights.items()}
    change(masks, weights)
    return ticket_member.dumps({**header, **told}, masks, weights)


def flipped(masks: dict[str, Any], weights: dict[str, Any]) -> None:
    first = next(iter(masks.values())).reshape(-1)
    first[[np.flatnonzero(first)[0], np.flatnonzero(~first)[0]]] ^= True


def test_masks_that_are_others(place: Path) -> None:
    """One bit moved; with the digest that is its own; another seed's; another rung's."""
    refused(rebuilt({TICKET: remade(TICKET, flipped)}), place, "digest")
    _, masks, _ = ticket_member.loads(members()[TICKET], "", 0.5)
    masks = {name: mask.copy() for name, mask in masks.items()}
    flipped(masks, {})
    own = remade(TICKET, flipped, masks=ticket_member.mask_digest(masks))
    refused(rebuilt({TICKET: own}), place, "masks of the record is not the ticket's")
    other = TICKET.replace("seed0", "seed1")
    refused(rebuilt({TICKET: members()[other]}), place, "masks of the record is not the ticket's")
    refused(rebuilt({TICKET: members()[SIGNS]}), place, "density")


def test_bits_beyond_the_end(place: Path) -> None:
    """Room for a few hidden bits, which no count would show."""
    header, held = canonical_tensors.loads(
        members()[f"{MODADD}/tickets/seed0/0500000.safetensors"], ""
    )
    sizes = {name: int(np.prod(shape)) for name, shape in header["shapes"].items()}
    name = next((n for n, size in sizes.items() if size % 8), None)
    if name is None:
        shapes = {"a": [3]}
        told = {**header, "shapes": shapes, "kept": 1}
        data = canonical_tensors.dumps(told, {"mask/a": np.array([0b10000001], np.uint8)})
        with pytest.raises(RecordError, match="beyond a mask's end"):
            ticket_member.loads(data, "x", header["density"])
        return
    held = {n: a.copy() for n, a in held.items()}
    held[f"mask/{name}"][-1] |= 1
    data = canonical_tensors.dumps(header, held)
    refused(rebuilt({f"{MODADD}/tickets/seed0/0500000.safetensors": data}), place, "beyond")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (TICKET, lambda m, w: w.update({"kept/head.weight": np.zeros(3, np.float32)})),
        (TICKET, lambda m, w: w.update({"whole/head.bias": np.zeros(10, np.float32)})),
        (TICKET, lambda m, w: w.update({"secret": np.zeros(9, np.uint8)})),
        (SIGNS, lambda m, w: w.update({"factor/head.weight": np.array([-1.0])})),
        (SIGNS, lambda m, w: w.update({"factor/head.weight": np.array([np.nan])})),
        (SIGNS, lambda m, w: w.update({"factor/head.weight": np.array([np.inf])})),
        (SIGNS, lambda m, w: w.update({"factor/head.weight": np.ones(2)})),
        (SIGNS, lambda m, w: w.update({"factor/head.weight": np.ones((1, 1))})),
        (SIGNS, lambda m, w: w.update({"factor/head.weight": np.ones(1, np.float32)})),
        (SIGNS, lambda m, w: w.pop("factor/head.weight") and None),
        (SIGNS, lambda m, w: w.update({"kept/head.weight": np.zeros(3, np.float32)})),
        (FREE, lambda m, w: w.pop("kept/head.weight") is None),
        (FREE, lambda m, w: w.update({"kept/head.weight": w["kept/head.weight"][:-1]})),
        (
            FREE,
            lambda m, w: w.update({"kept/head.weight": w["kept/head.weight"] * np.float32("inf")}),
        ),
        (FREE, lambda m, w: w.update({"kept/head.weight": w["kept/head.weight"].astype("f8")})),
        (FREE, lambda m, w: w.update({"whole/head.bias": np.full(10, np.nan, np.float32)})),
        (FREE, lambda m, w: w.update({"whole/head.weight": np.zeros((10, 16), np.float32)})),
    ],
)
def test_weights_that_may_not_be_there(place: Path, name: str, change: Callable[..., Any]) -> None:
    """Trained values beside a ticket that starts at theta_0; values that are no numbers."""
    refused(rebuilt({name: remade(name, change)}), place, "needs|finite|negative")


@pytest.mark.parametrize("name", [ANSWERS, CURVES])
def test_answers_and_curves_that_do_not_fit(place: Path, name: str) -> None:
    """Of cells that there are none of, of another length, of another type, with a header."""
    _, held = canonical_tensors.loads(members()[name], "")
    first = next(iter(held))
    other = np.zeros(3, np.float32)
    for changed in (
        canonical_tensors.dumps({"more": 1}, held),
        canonical_tensors.dumps({}, {**held, first: other}),
        canonical_tensors.dumps({}, {**held, first: held[first].reshape(1, -1)}),
        canonical_tensors.dumps({}, {**held, "ticket/0.123/0/1/test": held[first]}),
        canonical_tensors.dumps({}, {**held, "../../x": held[first]}),
        canonical_tensors.dumps({}, {**held, first: held[first][:-1]}),
        canonical_tensors.dumps({}, {**held, first: held[first] * 0}) if name == CURVES else b"",
        canonical_tensors.dumps(
            {}, {**held, first: held[first] * 0 + 99}
        ),  # no class, or too many correct
        canonical_tensors.dumps({}, dict([*held.items()][1:])) if name == CURVES else b"",
    ):
        refused(rebuilt({name: changed}), place)


# --- size, memory, the command line -----------------------------------------------------------

LIMITED = """
import sys
sys.path.insert(0, {root!r})
from pathlib import Path
from lthbench.leaderboard.bundle import archive
from lthbench.leaderboard.validation import validate
from lthbench.records import schema
from lthbench.errors import RecordError
path = Path({path!r})
tried = {tried}
try:
    tried(path)
except RecordError as error:
    said = str(error)
else:
    said = "TAKEN"
status = Path("/proc/self/status").read_text()  # what getrusage tells counts the parent's too
print(int(status.split("VmHWM:")[1].split()[0]) // 1024, said)
"""


def memory_of(path: Path, tried: str) -> tuple[int, str]:
    """Megabytes that a process of its own took to refuse a file, and what it said."""
    if not Path("/proc/self/status").is_file():
        pytest.skip("no /proc here that tells how much memory a process took")
    text = LIMITED.format(root=str(ROOT), path=str(path), tried=tried)
    done = subprocess.run(
        [sys.executable, "-c", text], capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (60, 60)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-500:]
    megabytes, said = done.stdout.split(" ", 1)
    return int(megabytes), one_line(said.rstrip("\n"))


def large_json(path: Path, form: str, size: int) -> None:
    pieces = {"nested": b"[", "numbers": b"1,", "keys": b'"k":1,', "text": b"a"}
    begin = {"nested": b"", "numbers": b"[", "keys": b"{", "text": b'{"a":"'}[form]
    with path.open("wb") as file:
        file.write(begin)
        for _ in range(size >> 20):
            file.write(pieces[form] * (2**20 // len(pieces[form])))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["nested", "numbers", "keys", "text"])
def test_a_hundred_megabytes_of_json(place: Path, form: str) -> None:
    """As a record, and as a record and a manifest in a bundle: in less than a gigabyte."""
    path = place / "large.json"
    large_json(path, form, 100 * 2**20)
    for tried in ("validate.check_record", "schema.read_record"):
        megabytes, said = memory_of(path, tried)
        assert megabytes < 200 and "larger than" in said
    data = path.read_bytes()
    (place / "b.zip").write_bytes(rebuilt({RECORD: data}))
    megabytes, said = memory_of(place / "b.zip", "archive.read")
    assert megabytes < 600 and "at most" in said
    (place / "b.zip").write_bytes(canonical_zip.write({**members(), archive.MANIFEST: data}))
    megabytes, said = memory_of(place / "b.zip", "archive.read")
    assert megabytes < 600 and "at most" in said


@pytest.mark.slow
def test_as_large_as_may_be(place: Path) -> None:
    """A record of two megabytes, a manifest of eight, masks of more weights than any network."""
    large_json(place / "r.json", "nested", 2**21 - 2**10)
    for form in ("nested", "numbers", "keys"):
        large_json(place / "r.json", form, 2**20)
        assert memory_of(place / "r.json", "schema.read_record")[0] < 700
        data = (place / "r.json").read_bytes()
        large = canonical_zip.write({**members(), archive.MANIFEST: data * 7})
        (place / "b.zip").write_bytes(large)
        megabytes, said = memory_of(place / "b.zip", "archive.read")
        assert megabytes < 1000 and said != "TAKEN"
    told = json.loads(
        json.loads(members()[TICKET][8:][: struct.unpack("<Q", members()[TICKET][:8])[0]])[
            "__metadata__"
        ]["header"]
    )
    wide = {**told, "shapes": {"a": [ticket_member.WEIGHTS]}, "kept": ticket_member.WEIGHTS}
    ones = np.full(ticket_member.WEIGHTS // 8, 255, np.uint8)
    bits = canonical_tensors.dumps(wide, {"mask/a": ones})
    most = BUNDLE_LIMIT - len(bits) - 2 * 2**20
    filled = rebuilt({TICKET: bits, f"{MODADD}/curves.safetensors": bytes(most)})
    (place / "b.zip").write_bytes(filled)
    megabytes, said = memory_of(place / "b.zip", "archive.read")
    assert megabytes < 1000 and said != "TAKEN"
    (place / "b.zip").write_bytes(bytes(BUNDLE_LIMIT + 1))
    megabytes, said = memory_of(place / "b.zip", "archive.read")
    assert megabytes < 1000 and "larger than 256 MB" in said


@pytest.mark.parametrize("kind", ["folder", "fifo", "device", "missing", "link to nothing", "loop"])
def test_what_is_no_file(place: Path, kind: str) -> None:
    """Nothing is waited for, and nothing endless is read."""
    path = place / "b.zip"
    if kind == "folder":
        path.mkdir()
    if kind == "fifo":
        os.mkfifo(path)
    if kind == "device":
        path.symlink_to("/dev/zero")
    if kind == "link to nothing":
        path.symlink_to(place / "nowhere")
    if kind == "loop":
        path.symlink_to(path)
    with pytest.raises(RecordError) as caught:
        archive.read(path)
    one_line(str(caught.value))


@pytest.mark.parametrize(
    "attack", ["slip", "bomb", "link", "truncated", "deep", "weights", "markup", "nan"]
)
def test_the_command_line(
    place: Path, attack: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`lthbench validate` says no, in words, with exit code 1; nothing is left."""
    attacks: dict[str, Callable[[], bytes]] = {
        "slip": lambda: named("../outside"),
        "bomb": lambda: foreign(zipfile.ZIP_DEFLATED, bomb=bytes(2**24)),
        "link": lambda: patched(CENTRAL, 38, "<L", 0o120777 << 16),
        "truncated": lambda: sound()[:-9],
        "deep": lambda: rebuilt({RECORD: b"[" * 10**5}),
        "weights": lambda: rebuilt({SIGNS: remade(SIGNS, lambda m, w: w.clear())}),
        "markup": lambda: rebuilt({RECORD: edited(("method", "name"), '"<script>"')}),
        "nan": lambda: rebuilt({RECORD: edited(("times", "find_seconds"), "NaN")}),
    }
    path = place / "b.zip"
    path.write_bytes(attacks[attack]())
    before = everything_in(place.parent)
    monkeypatch.setattr(sys, "argv", ["lthbench", "validate", str(path)])
    with at_home(house().share, house().cache), pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 1
    assert len(said.err.splitlines()) == 1 and "Traceback" not in said.err + said.out
    assert "<script>" not in said.out + said.err
    assert everything_in(place.parent) == before


def test_the_command_line_in_a_process_of_its_own(place: Path) -> None:
    """One of them as it is called: `python -m lthbench validate`."""
    (place / "b.zip").write_bytes(named("../outside"))
    done = subprocess.run(
        [sys.executable, "-m", "lthbench", "validate", str(place / "b.zip")],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert "path that leaves its folder" in done.stdout


# --- the fuzzer -------------------------------------------------------------------------------


def test_some_cases_of_the_fuzzer(place: Path) -> None:
    """The first of a seed, which reach every kind; the sound ones among them are taken."""
    found = fuzz.fuzz(0, 0, place, range(60))
    assert found.findings == []
    assert sum(found.cases.values()) == 60 and len(found.cases) > 8
    assert found.taken.keys() <= found.cases.keys()


@pytest.mark.slow
def test_thirty_seconds_of_the_fuzzer(place: Path) -> None:
    """`python -m tests.fuzz` goes on for ten minutes."""
    found = fuzz.fuzz(30, 1, place)
    assert found.findings == [] and found.cases


def test_the_fuzzer_finds(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that raises anything else, or takes what it should not, is found and told."""
    monkeypatch.setattr(archive, "_check_manifest", lambda *args: None)
    found = fuzz.fuzz(0, 0, place, range(60))
    assert any("Wrong: " in finding for finding in found.findings)
    assert "--seed 0 --case" in found.findings[0] and list(place.glob("seed0-case*.zip"))
    monkeypatch.undo()

    def broken(path: Path) -> None:
        raise KeyError(path)

    monkeypatch.setattr(fuzz, "read_record", broken)
    found = fuzz.fuzz(0, 0, place, range(20))
    assert any("KeyError" in finding for finding in found.findings)
