"""Records as an attacker would write them: each is refused in a line, or changes nothing.

Against `lthbench validate`, which must neither raise anything but its own errors, nor use much
memory, nor take what it should not.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lthbench.errors import RecordError
from lthbench.io import paths
from lthbench.io.paths import canonical_json, digest
from lthbench.leaderboard.bundle import archive
from lthbench.leaderboard.validation.validate import check_bundle, check_record, validate
from lthbench.records import schema as records
from lthbench.records.schema import difference
from tests.rewritten import Json, cell, changed, table_of, written
from tests.scoring import aggregates
from tests.strategies import moderate
from tests.submitted import DIGITS, at_home, carried, house
from tests.synthetic import as_file, as_table

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("small", "compressed", "untrained", "carried")
Place = tuple[str | int, ...]

# Runs a command and writes the peak of its memory into a file.
WATCH = """
import pathlib, resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
pathlib.Path(sys.argv[1]).write_text(str(peak))
sys.exit(status)
"""

# What may be told otherwise and changes no score, no rank and no place: of the machine, of the
# method's options, of a control's draw, counts that no score reads, and what a bundle's file is
# compared with when it is fetched.
OPEN = re.compile(
    r"(environment|times|method\.options)\..*|bundle\.size"
    r"|(transfer\.)?cells\.\d+\.attempt"
    r"|transfer\.cells\.\d+\.distance"
    r"|(transfer\.)?cells\.\d+\.correct\.\w+\.\d+"
)


def leaves(tree: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield from leaves(value, (*place, key))
    elif isinstance(tree, list):
        for number, value in enumerate(tree):
            yield from leaves(value, (*place, number))
    else:
        yield place, tree


def put(table: Json, place: Place, value: Any) -> None:
    inner: Any = table
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the tiny task has a reference too, so that a record of carried tickets is valid."""
    monkeypatch.setattr(paths, "PACKAGE", carried()[0])


TABLES = {kind: table_of(kind) for kind in KINDS}
NUMBERS = {
    kind: [(p, v) for p, v in leaves(table) if type(v) in (int, float)]
    for kind, table in TABLES.items()
}
LEAVES = {kind: list(leaves(table)) for kind, table in TABLES.items()}
# A place of each sort as likely as any other: most leaves are counts.
SORTS = {
    kind: sorted({re.sub(r"\.\d+", "", ".".join(map(str, p))) for p, _ in numbers})
    for kind, numbers in NUMBERS.items()
}


@st.composite
def edited_numbers(draw: st.DrawFn) -> tuple[str, Place, int | float]:
    """A record, one of its numbers, and what is written in its place."""
    kind = draw(st.sampled_from(KINDS))
    sort = draw(st.sampled_from(SORTS[kind]))
    same = [(p, v) for p, v in NUMBERS[kind] if re.sub(r"\.\d+", "", ".".join(map(str, p))) == sort]
    place, value = draw(st.sampled_from(same))
    by = (
        st.sampled_from([1, -1, 2, 10])
        if type(value) is int
        else st.sampled_from([1e-4, -0.5, 1.0])
    )
    other = st.sampled_from([0, -1, 1e308, -0.0, 10**18, 10**400, 0.5])
    return kind, place, draw(by.map(lambda step: value + step) | other)


@settings(moderate, max_examples=60)
@given(edited=edited_numbers())
def test_an_edited_number_is_refused_or_changes_no_score(
    edited: tuple[str, Place, int | float], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Under its old name always; under its new one unless nothing reads the number."""
    kind, place, value = edited
    folder = tmp_path_factory.mktemp("edited")
    before = written(folder, TABLES[kind])
    table = changed(TABLES[kind], lambda table: put(table, place, value))
    if canonical_json(table) == before.read_bytes():
        return
    before.write_bytes(canonical_json(table))
    refused(before)
    path = written(folder / "renamed", table)
    try:
        check_record(path)
    except RecordError as error:
        assert "\n" not in str(error)
    else:
        old, new = (aggregates(t) for t in (TABLES[kind], table))
        assert difference(old, new, "aggregates") is None
        if place[0] == "aggregates":  # the same number but for rounding
            assert difference(new, table["aggregates"], "aggregates") is None
        else:
            assert OPEN.fullmatch(".".join(map(str, place)))


def refused(path: Path) -> str:
    """The one line that a file is refused with, by `validate` and by `check_record`."""
    (finding,) = validate([path]).findings
    assert not finding.ok
    assert finding.what.isprintable() and finding.path.isprintable()
    assert len(finding.what) <= 400
    with pytest.raises(RecordError):
        check_record(path)
    return finding.what


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(st.characters(codec=None), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


@st.composite
def mangled(draw: st.DrawFn) -> tuple[str, list[tuple[Place, Any]]]:
    """A record with anything in up to three of its places."""
    kind = draw(st.sampled_from(KINDS))
    places = st.sampled_from(LEAVES[kind]).map(lambda leaf: leaf[0])
    cut = places.flatmap(lambda p: st.integers(1, len(p)).map(lambda n: p[:n]))
    return kind, draw(st.lists(st.tuples(cut, ANYTHING), min_size=1, max_size=3))


@settings(moderate, max_examples=60)
@given(drawn=mangled(), scored=st.booleans())
def test_anything_anywhere_ends_in_a_line(
    drawn: tuple[str, list[tuple[Place, Any]]],
    scored: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    kind, edits = drawn
    folder = tmp_path_factory.mktemp("mangled")

    def edit(table: Json) -> None:
        for place, value in edits:
            try:
                put(table, place, value)
            except (KeyError, IndexError, TypeError):  # an earlier edit took the place away
                continue

    table = changed(TABLES[kind], edit)
    path = folder / "mlp-digits" / "imp--00000000.json"
    path.parent.mkdir()
    path.write_bytes(json.dumps(table).encode())
    refused(path)
    try:
        path = written(folder, table, scored=scored)
    except Exception:  # what cannot be written is no attack
        return
    (finding,) = validate([path]).findings
    assert finding.what.isprintable()
    if finding.ok:
        assert (
            difference(aggregates(as_table(path.read_bytes())), table["aggregates"], "") is None
            or scored
        )


# --- bytes -----------------------------------------------------------------------------------

WHOLE = canonical_json(as_file(TABLES["small"]))


def instead(old: bytes, new: bytes) -> bytes:
    assert old in WHOLE
    return WHOLE.replace(old, new, 1)


NINES = b"9" * 5000
BYTES: dict[str, bytes] = {
    "nothing": b"",
    "a brace": b"{",
    "null": b"null\n",
    "a list": b"[]\n",
    "text": b'"record"\n',
    "zeros": b"\x00" * 1000,
    "a byte order mark": b"\xef\xbb\xbf" + WHOLE,
    "UTF-16": WHOLE.decode().encode("utf-16"),
    "no UTF-8": instead(b'"shown":"test"', b'"shown":"te\xff\xfest"'),
    "an overlong slash": instead(b'"shown":"test"', b'"shown":"te\xc0\xaf"'),
    "half a character": WHOLE[:-1].rstrip(b"}") + b'"\xe2\x80',
    "a lone surrogate": instead(b'"shown":"test"', b'"shown":"\\ud800"'),
    "a lone surrogate in a text": instead(b'"described":{', b'"described":{"a":"\\udfff",'),
    "NaN": instead(b'"chance":0.1', b'"chance":NaN'),
    "infinity": instead(b'"chance":0.1', b'"chance":Infinity'),
    "minus infinity": instead(b'"chance":0.1', b'"chance":-Infinity'),
    "1e999": instead(b'"chance":0.1', b'"chance":1e999'),
    "1e308": instead(b'"chance":0.1', b'"chance":1e308'),
    "NaN in the open": instead(b'"aggregates":{', b'"aggregates":{"a":NaN,'),
    "1e999 in the open": instead(b'"aggregates":{', b'"aggregates":{"a":1e999,'),
    "NaN as an option": instead(b'"options":{', b'"options":{"a":NaN,'),
    "5,000 digits": instead(b'"steps":1500', b'"steps":' + NINES),
    "5,000 digits as a count": instead(b'"seed":0', b'"seed":' + NINES),
    "5,000 digits as an option": instead(b'"options":{', b'"options":{"a":' + NINES + b","),
    "5,000 digits in the open": instead(b'"aggregates":{', b'"aggregates":{"a":' + NINES + b","),
    "5,000 digits of a fraction": instead(b'"chance":0.1', b'"chance":0.1' + NINES),
    "an exponent of 5,000 digits": instead(b'"chance":0.1', b'"chance":1e' + NINES),
    "-0": instead(b'"cost":12.0', b'"cost":-0.0'),
    "-0 as a number of steps": instead(b'"steps":1500', b'"steps":-0'),
    "-0 as an option": instead(b'"rate":0.2', b'"rate":-0.0'),
    "hexadecimal": instead(b'"steps":1500', b'"steps":0x5dc'),
    "octal": instead(b'"steps":1500', b'"steps":01500'),
    "a comment": b"/* */" + WHOLE,
    "a key twice": instead(b'"final":true', b'"final":false,"final":true'),
    "a key twice, escaped": instead(b'"final":true', b'"\\u0066inal":false,"final":true'),
    "a cell's key twice": instead(b'"kind":"dense"', b'"kind":"dense","kind":"dense"'),
    "a cell's key as usual": instead(b'"kind":"dense"', b'"attempt":0,"kind":"dense"'),
    "an aggregate twice": instead(b'"aggregates":{', b'"aggregates":{"complete":false,'),
    "two records": WHOLE + WHOLE,
    "a record and a space": WHOLE + b" ",
    "a record without its newline": WHOLE[:-1],
    "carriage returns": WHOLE[:-1] + b"\r\n",
    "deep lists": b"[" * 200_000 + b"]" * 200_000,
    "deep tables": b'{"a":' * 200_000 + b"1" + b"}" * 200_000,
    "deep in the open": instead(
        b'"aggregates":{', b'"aggregates":{"a":' + b"[" * 50_000 + b"]" * 50_000 + b","
    ),
    "less deep in the open": instead(
        b'"aggregates":{', b'"aggregates":{"a":' + b"[" * 150 + b"]" * 150 + b","
    ),
    "deep in an option": instead(
        b'"options":{', b'"options":{"a":' + b"[" * 900 + b"]" * 900 + b","
    ),
    "many keys": b"{" + b",".join(b'"%d":0' % n for n in range(150_000)) + b"}",
    "many empty cells": instead(b'"cells":[', b'"cells":[' + b"{}," * 600_000),
    "many strange cells": instead(
        b'"cells":[', b'"cells":[{' + b",".join(b'"%d":0' % n for n in range(150_000)) + b"},"
    ),
    "many bad options": instead(
        b'"options":{', b'"options":{' + b"".join(b'"%d":[],' % n for n in range(150_000))
    ),
    "many bad sizes": instead(
        b'"sizes":{', b'"sizes":{' + b"".join(b'"%d":{"a":0},' % n for n in range(120_000))
    ),
    "fewer keys": b"{" + b",".join(b'"%d":0' % n for n in range(records.KEYS)) + b"}",
    "many lists": b"[" + b"[]," * 600_000 + b"[]]",
    "many tables in the open": instead(
        b'"aggregates":{', b'"aggregates":{"a":[' + b"{}," * 600_000 + b"{}],"
    ),
    "many seeds": instead(b'"seeds":[', b'"seeds":[' + b",".join(
        b"%d" % n for n in range(9, 200_000)) + b","),
    "many rungs": instead(b'"ladder":[', b'"ladder":[' + b"0.5," * 300_000),
    "a key without end": instead(b'"described":{', b'"described":{"' + b"a" * 10**6 + b'":"",'),
    "a text without end": instead(b'"described":{', b'"described":{"a":"' + b"a" * 10**6 + b'",'),
    "a key of lines": instead(b'"described":{', b'"described":{"a\\nb":"",'),
    "a key that is unknown and hostile": b'{"\\u202e<script>\\n\\u0000":1,' + WHOLE[1:],
}  # fmt: skip


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_no_record(name: str, tmp_path: Path) -> None:
    """Under the name that they ask for: nothing but what they are is against them."""
    data = BYTES[name]
    path = tmp_path / "mlp-digits" / f"imp--{digest(data)[:8]}.json"
    path.parent.mkdir()
    path.write_bytes(data)
    refused(path)


@pytest.mark.slow
def test_all_of_them_at_once_take_little_memory(tmp_path: Path) -> None:
    """By the command, with 100 MB of JSON among them: no traceback, below a gigabyte."""
    folder = tmp_path / "records" / "mlp-digits"
    folder.mkdir(parents=True)
    for data in BYTES.values():
        (folder / f"imp--{digest(data)[:8]}.json").write_bytes(data)
    with (folder / "imp--00000001.json").open("wb") as file:
        for _ in range(100):
            file.write(b"[" + b"[]," * 349_524 + b"[]]\n")
    command = [sys.executable, "-m", "lthbench", "validate", "--json", str(tmp_path)]
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as err:
        # Linux starts a child's peak at its parent's, and a pytest process holds two gigabytes:
        # hence a small process between, which tells the command's own.
        watched = [sys.executable, "-c", WATCH, str(tmp_path / "peak"), *command]
        status = subprocess.run(watched, cwd=ROOT, stdout=out, stderr=err).returncode
    assert status == 1
    assert b"Traceback" not in (tmp_path / "err").read_bytes()
    found = json.loads((tmp_path / "out").read_bytes())
    assert len(found["findings"]) == len(set(BYTES.values())) + 1
    assert not any(finding["ok"] for finding in found["findings"])
    scale = 1 if sys.platform == "darwin" else 1024
    assert 2**24 < int((tmp_path / "peak").read_text()) * scale < 2**30


# --- names and texts -------------------------------------------------------------------------

NAMES = (
    "<script>alert(1)</script>", "imp\n", "imp\nREFUSED", "a\u202eb", "\u200eimp", "imp\u200b",
    "../imp", "/etc/passwd", "imp/..", "imp\\..", ".imp", "-imp", "", " imp", "imp ", "im p",
    "imp\x00", "\x1b[2Jimp", "ímp", "ｉｍｐ", "i" * 62, "imp;ls", "$(ls)", "`ls`", "imp'\"", "%2e",
    "CON:", "im\u0301p", "＜b＞", "imp&amp;", "{{7*7}}", "__proto__ ",
    "con", "NUL", "Com1.x", "lpt9", "imp.",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_methods_name_is_plain(name: str, tmp_path: Path) -> None:
    table = changed(TABLES["small"], lambda t: t["method"].update(name=name, described={}))
    raw = canonical_json(table)
    path = tmp_path / "mlp-digits" / "imp--00000000.json"
    path.parent.mkdir()
    path.write_bytes(raw)
    assert "method.name" in refused(path)


TEXTS: tuple[tuple[str, Any], ...] = (
    ("described", {"paper": "a\u202eb"}), ("described", {"paper": "a\u2066b"}),
    ("described", {"paper": "line\nline"}), ("described", {"paper": "\x1b[31m"}),
    ("described", {"paper": "a\u3164b"}), ("described", {"authors": "a\u2800b"}),
    ("described", {"authors": "a\ufe0fb"}), ("options", {"rate": "a\u115fb"}),
    ("described", {"paper": "a\u200bb"}), ("described", {"paper": "a\u2028b"}),
    ("described", {"paper": "a\x00b"}), ("described", {"paper": "a\ue000b"}),
    ("described", {"paper": "<script>alert(1)</script>"}),
    ("described", {"authors": "<img src=x>"}),
    ("described", {"authors": "</script>"}), ("described", {"paper": "<!--"}),
    ("described", {"code": "http://example.org"}), ("described", {"code": "javascript:alert(1)"}),
    ("described", {"code": "JavaScript:alert(1)"}), ("described", {"code": "data:text/html,x"}),
    ("described", {"code": "see ftp://example.org"}), ("described", {"name": "snip"}),
    ("described", {"<b>": "x"}), ("described", {"a b": "x"}), ("described", {"": "x"}),
    ("described", {f"k{n}": "x" for n in range(41)}), ("described", {"paper": "x" * 401}),
    ("options", {"a\u202eb": 1}), ("options", {"<b>": 1}), ("options", {"rate": "a\nb"}),
    ("options", {"rate": 2**63}), ("options", {"rate": -0.0}), ("options", {"rate": "x" * 401}),
    ("options", {f"k{n}": 1 for n in range(41)}), ("options", {"rate": [1]}),
    ("options", {"rate": None}),
)  # fmt: skip


@pytest.mark.parametrize(("key", "value"), TEXTS, ids=lambda value: ascii(value)[:40])
def test_a_methods_texts_are_plain(key: str, value: Any, tmp_path: Path) -> None:
    path = written(tmp_path, changed(TABLES["small"], lambda t: t["method"].update({key: value})))
    assert refused(path).startswith(f"method.{key}")


@pytest.mark.parametrize("value", ["a\u202eb", "a\nb", "\x1b[31m", "x" * 121])
def test_a_machines_texts_are_plain(value: str, tmp_path: Path) -> None:
    for table in ("environment", "times"):
        path = written(tmp_path, changed(TABLES["small"], lambda t: t[table].update(a=value)))  # noqa: B023
        assert refused(path).startswith(table)
    where = changed(TABLES["small"], lambda t: t.update(environments={"1": {"a": value}}))
    assert refused(written(tmp_path, where)).startswith("environments.1.a")


@pytest.mark.parametrize("seconds", [-1.0, 1e10, 1e308, -0.0])
def test_times_are_times(seconds: float, tmp_path: Path) -> None:
    table = changed(TABLES["small"], lambda t: t["times"].update(find_seconds=seconds))
    assert refused(written(tmp_path, table)).startswith("times")


def test_a_reason_may_have_lines_but_no_directions(tmp_path: Path) -> None:
    def edit(reason: str) -> Callable[[Json], None]:
        return lambda t: cell(t, "shuffled").update(status="failed", correct={}, reason=reason)

    fine = changed(TABLES["small"], edit("an error:\n\tno memory <b>"))
    check_record(written(tmp_path, fine, scored=True))
    for reason in ("a\u202eb", "a\x1b[31m", "a\rb"):
        bad = changed(TABLES["small"], edit(reason))
        assert "cannot be seen" in refused(written(tmp_path, bad, scored=True))


URLS = (
    "http://example.org/b.zip", "https://", "https:///etc/passwd", "file:///etc/passwd",
    "https://a b", "https://a\nb", "https://a\u202eb", "https://<b>", "javascript:alert(1)",
    'https://a"onmouseover=', "https://" + "a" * 400, "//example.org", "ftp://example.org",
)  # fmt: skip


@pytest.mark.parametrize("url", URLS, ids=ascii)
def test_a_bundles_address_is_https(url: str, tmp_path: Path) -> None:
    bundle = {"sha256": "b" * 64, "size": 10, "urls": [url]}
    path = written(tmp_path, changed(TABLES["small"], lambda t: t.update(bundle=bundle)))
    assert refused(path).startswith("bundle.urls.0")


@pytest.mark.parametrize(
    "facts",
    [{"size": 0}, {"size": -1}, {"size": 2**28 + 1}, {"size": 1.5}, {"sha256": "B" * 64},
     {"sha256": ""}, {"urls": ["https://example.org"] * 5}, {"urls": None}, {"more": 1}],
    ids=str,
)  # fmt: skip
def test_a_bundles_facts(facts: Json, tmp_path: Path) -> None:
    bundle = {"sha256": "b" * 64, "size": 10, "urls": [], **facts}
    path = written(tmp_path, changed(TABLES["small"], lambda t: t.update(bundle=bundle)))
    assert refused(path).startswith("bundle.")


# --- masks -----------------------------------------------------------------------------------


def test_swapped_masks_are_refused(tmp_path: Path) -> None:
    """One ticket's digest in another's place no longer fits the controls beside it."""

    def swap(table: Json) -> None:
        a, b = cell(table, "ticket", seed=0), cell(table, "ticket", seed=1)
        a["masks"], b["masks"] = b["masks"], a["masks"]

    assert "other masks than its ticket" in refused(
        written(tmp_path, changed(TABLES["small"], swap), scored=True)
    )


def test_masks_swapped_with_all_that_tells_of_them_need_the_bundle(tmp_path: Path) -> None:
    """A record alone can say anything of masks; beside its bundle it cannot."""
    lived = house()
    found = archive.read(lived.bundle)
    members = {
        name: bytes(data) for name, data in found.members.items() if name != archive.MANIFEST
    }
    table = as_table(members[f"{DIGITS}/record.json"])
    ours, theirs = (cell(table, "ticket", seed=seed)["masks"] for seed in (0, 1))
    other = {ours: theirs, theirs: ours}
    for one in table["cells"]:
        one["masks"] = other.get(one["masks"], one["masks"])
    members[f"{DIGITS}/record.json"] = canonical_json(as_file(table))
    path = tmp_path / "swapped.zip"
    path.write_bytes(archive.contain(members))
    with at_home(lived.share, lived.cache):
        alone = written(tmp_path, table)
        check_record(alone)
        with pytest.raises(RecordError, match="masks of the record is not the ticket's"):
            check_bundle(path)


# --- files that are none ---------------------------------------------------------------------


def test_a_symbolic_link_is_no_record(tmp_path: Path) -> None:
    path = written(tmp_path, TABLES["small"])
    link = tmp_path / "other" / "mlp-digits" / path.name
    link.parent.mkdir(parents=True)
    link.symlink_to(path)
    assert "symbolic link" in refused(link)
    link.unlink()
    link.symlink_to("/dev/zero")
    assert "symbolic link" in refused(link)
    link.unlink()
    link.symlink_to("nowhere")
    assert "symbolic link" in refused(link)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "mlp-digits"
    folder.mkdir()
    os.mkfifo(folder / "imp--00000000.json")
    (folder / "imp--00000001.json").mkdir()
    found = validate([tmp_path])
    assert [f.ok for f in found.findings] == [False, False]
    with pytest.raises(RecordError, match="not an ordinary file"):
        records.read_bytes(folder / "imp--00000000.json")


def test_a_hostile_file_name_is_shown_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mlp-digits" / "a\u202e\n<b>.json"
    path.parent.mkdir()
    path.write_bytes(WHOLE)
    refused(path)
    assert "\u202e" not in validate([tmp_path]).text()
