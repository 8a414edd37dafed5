"""Zip files in one canonical form: stored members, sorted names, one date, nothing else.

`read` accepts only the bytes that `write` produces for the same members: it finds them by the
standard library's `zipfile`, writes them again and compares. So nothing can hide in a comment, an
extra field or between members, nothing is decompressed that could grow without bound, and a changed
byte is always noticed.
"""

from __future__ import annotations

import io
import re
import struct
import zipfile
from collections.abc import Mapping
from itertools import pairwise

from lthbench.errors import RecordError
from lthbench.io.untrusted import NEXT, shown

MEMBERS = 20_000
NAME = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*")
NAME_LENGTH = 200
LOCAL, CENTRAL, END = 30, 46, struct.Struct("<4s4H2LH")  # a zip's headers, but for names
ZIP64 = b"PK\x06\x07"  # of the locator, 20 bytes before a zip's end
UNIX, MODE = 3, 0o100644  # a plain file
Data = bytes | memoryview


def write(members: Mapping[str, Data]) -> bytes:
    """Return the zip of these members; RecordError for a name that `read` would refuse."""
    _check_names(sorted(members), "bundle")
    return _pack(members)


def _pack(members: Mapping[str, Data]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(name)  # stored, and dated 1 January 1980
            info.create_system, info.external_attr = UNIX, MODE << 16
            archive.writestr(info, members[name])
    return file.getvalue()


def read(data: bytes, place: str) -> dict[str, memoryview]:
    """Return the members of a zip, as views of its bytes.

    Raises:
        RecordError: naming the member and the rule.
    """
    listed = _list(data, place)
    _check_names([info.orig_filename for info in listed], place)
    view, members = memoryview(data), {}
    for info in listed:
        if info.compress_type != zipfile.ZIP_STORED:
            raise RecordError(
                f"{place}: member {shown(info.filename)}: compressed; members of a bundle are "
                f"stored as they are; {NEXT}"
            )
        begin = info.header_offset + LOCAL + len(info.filename)
        members[info.filename] = view[begin : begin + info.file_size]
    if sum(map(len, members.values())) > len(data):
        raise RecordError(f"{place}: its members overlap; {NEXT}")
    if data != _pack(members):
        raise RecordError(
            f"{place}: not the plain zip of its members that `lthbench submit` writes; {NEXT}"
        )
    return members


def _list(data: bytes, place: str) -> list[zipfile.ZipInfo]:
    """Read the directory of a zip; its size is checked before."""
    signature, *_, count, size, _, comment = END.unpack(data[-END.size :].rjust(END.size, b"\0"))
    if signature != b"PK\x05\x06" or comment:
        raise RecordError(f"{place}: no zip, truncated, or has trailing data; {NEXT}")
    if data[-END.size - 20 :][:4] == ZIP64:
        raise RecordError(f"{place}: a zip64; a bundle is a plain zip; {NEXT}")
    if max(count, size // (CENTRAL + NAME_LENGTH)) > MEMBERS:
        raise RecordError(f"{place}: {count} members, at most {MEMBERS} are read; {NEXT}")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
        raise RecordError(
            f"{place}: its directory is damaged: {shown(str(error))}; {NEXT}"
        ) from error


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
