"""Zip files in one canonical form: stored members, sorted names, one date, nothing else.

`read` accepts only the bytes that `write` produces for the same members. So nothing can hide in a
comment, an extra field or between members, nothing is decompressed that could grow without bound,
and a changed byte is always noticed.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from lthbench.errors import RecordError
from lthbench.io.untrusted import NEXT, shown

MEMBERS = 20_000
NAME = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
NAME_LENGTH = 200
LOCAL = struct.Struct("<4s5H3L2H")
CENTRAL = struct.Struct("<4s6H3L5H2L")
END = struct.Struct("<4s4H2LH")
VERSION, UNIX, DATE = 20, 3 << 8, 1 << 5 | 1  # 1 January 1980
MODE = 0o100644  # a plain file
Data = bytes | memoryview


@dataclass(frozen=True)
class _Listed:
    """A member as listed in the central directory of a zip."""

    name: str
    size: int
    offset: int


def write(members: Mapping[str, Data]) -> bytes:
    """Return the zip of these members; RecordError for a name that `read` would refuse."""
    _check_names(sorted(members), "bundle")
    return b"".join(_parts(members))


def _parts(members: Mapping[str, Data]) -> Iterator[Data]:
    directory, position = [], 0
    for name in sorted(members):
        data, raw = members[name], name.encode("ascii")
        facts = (VERSION, 0, 0, 0, DATE, zlib.crc32(data), len(data), len(data), len(raw), 0)
        yield LOCAL.pack(b"PK\x03\x04", *facts) + raw
        yield data
        listed = CENTRAL.pack(b"PK\x01\x02", UNIX | VERSION, *facts, 0, 0, 0, MODE << 16, position)
        directory.append(listed + raw)
        position += LOCAL.size + len(raw) + len(data)
    whole = b"".join(directory)
    yield whole
    count = len(directory)
    yield END.pack(b"PK\x05\x06", 0, 0, count, count, len(whole), position, 0)


def read(data: bytes, place: str) -> dict[str, memoryview]:
    """Return the members of a zip, as views of its bytes.

    Raises:
        RecordError: naming the member and the rule.
    """
    view = memoryview(data)
    listed = _directory(view, place)
    _check_names([member.name for member in listed], place)
    members: dict[str, memoryview] = {}
    position = 0
    for member in listed:
        where = f"{place}: member {shown(member.name)}"
        if member.offset != position:
            raise RecordError(f"{where}: does not follow on the member before it; {NEXT}")
        begin = position + LOCAL.size + len(member.name)
        position = begin + member.size
        if position > len(view) - END.size:
            raise RecordError(f"{where}: reaches beyond the file, which may be cut short; {NEXT}")
        members[member.name] = view[begin:position]
    position = 0
    for part in _parts(members):
        if view[position : position + len(part)] != part:
            raise RecordError(f"{place}: byte {position} or soon after it was changed; {NEXT}")
        position += len(part)  # ends where the file ends: only the end is known so far
    return members


def _directory(view: memoryview, place: str) -> list[_Listed]:
    if len(view) < END.size or bytes(view[:4]) not in (b"PK\x03\x04", b"PK\x05\x06"):
        raise RecordError(f"{place}: no zip, or bytes stand before it; {NEXT}")
    signature, *disks, count, size, offset, comment = END.unpack(view[-END.size :])
    if signature != b"PK\x05\x06" or comment:
        raise RecordError(f"{place}: cut short, or a comment or bytes stand after it; {NEXT}")
    if count == 0xFFFF or 0xFFFFFFFF in (size, offset):
        raise RecordError(f"{place}: a zip64; a bundle is a plain zip; {NEXT}")
    if disks != [0, 0, count]:
        raise RecordError(f"{place}: a zip in several parts; a bundle is one; {NEXT}")
    if count > MEMBERS:
        raise RecordError(f"{place}: {count} members, at most {MEMBERS} are read; {NEXT}")
    if offset + size + END.size != len(view):
        raise RecordError(f"{place}: cut short, or bytes stand before its directory; {NEXT}")
    listed = []
    for _ in range(count):
        member, offset = _listed(view, offset, place)
        listed.append(member)
    if offset != len(view) - END.size:
        raise RecordError(f"{place}: its directory holds more than it lists; {NEXT}")
    return listed


def _listed(view: memoryview, at: int, place: str) -> tuple[_Listed, int]:
    """Read the directory's member at a position; also return the position after it."""
    if at + CENTRAL.size > len(view) - END.size or bytes(view[at : at + 4]) != b"PK\x01\x02":
        raise RecordError(f"{place}: its directory is damaged; {NEXT}")
    fields = CENTRAL.unpack(view[at : at + CENTRAL.size])
    flags, method = fields[3:5]
    packed, size, length, extra, comment = fields[8:13]
    attributes, offset = fields[15:]
    begin = at + CENTRAL.size
    raw = bytes(view[begin : min(begin + length, len(view) - END.size)])
    name = raw.decode("latin-1")  # every byte is a character; only ASCII passes
    where = f"{place}: member {shown(name)}"
    kind = attributes >> 16 & 0o170000
    refusals = (
        (len(raw) < length, "its name reaches beyond the directory"),
        (flags & 1, "encrypted; nothing in a bundle is"),
        (flags & 8, "its size stands after it; in a bundle it stands before"),
        (method, "compressed; members of a bundle are stored as they are"),
        (0xFFFFFFFF in (packed, size, offset), "of a zip64; a bundle is a plain zip"),
        (extra or comment, "has an extra field or a comment"),
        (packed != size, "of two sizes; members of a bundle are stored as they are"),
        (kind == 0o120000, "a symbolic link; a bundle holds plain files alone"),
        (attributes != MODE << 16 or flags, "not a plain file as `lthbench submit` writes them"),
    )
    if said := next((said for refused, said in refusals if refused), None):
        raise RecordError(f"{where}: {said}; {NEXT}")
    return _Listed(name, size, offset), begin + length


def _check_names(names: list[str], place: str) -> None:
    for name in names:
        if why := _unfit(name):
            raise RecordError(f"{place}: member {shown(name)}: {why}; {NEXT}")
    folded = sorted(name.casefold() for name in names)
    if twice := next((a for a, b in pairwise(folded) if a == b), None):
        raise RecordError(f"{place}: member {shown(twice)}: there twice (or in two cases); {NEXT}")
    if names != sorted(names):
        raise RecordError(f"{place}: its members are not in the order of their names; {NEXT}")
    known = set(names)
    for name in names:
        parts = name.split("/")
        above = ("/".join(parts[:n]) for n in range(1, len(parts)))
        if file := next((folder for folder in above if folder in known), None):
            raise RecordError(f"{place}: member {shown(file)}: a file and a folder; {NEXT}")


def _unfit(name: str) -> str | None:
    """Return why a name is not allowed for a member; None if it is."""
    parts = name.split("/")
    if name.startswith("/") or "\\" in name or ":" in name or ".." in parts or "." in parts:
        return "a path that leaves its folder"
    if len(name) > NAME_LENGTH:
        return f"a name longer than {NAME_LENGTH} characters"
    if not NAME.fullmatch(name):
        return "a name that is not letters, digits and _ . - between single slashes"
    return None
