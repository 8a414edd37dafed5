"""JSON, texts and names from untrusted files: read with limits, shown on one line."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from lthbench.errors import RecordError
from lthbench.io import visible_text
from lthbench.io.paths import canonical_json

DEPTH = 24  # nesting of tables
NEXT = "make the bundle again with `lthbench submit OUT`"
KEY = re.compile(r"[A-Za-z0-9_.-]{1,60}")
MARKUP = re.compile(r"<(?![^<>\s@]+@[^<>\s@]+>)")  # anything but a mail address in brackets
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|(?:javascript|data|vbscript):", re.IGNORECASE)
TABLE_LIMIT, TEXT_LIMIT = 40, 400  # keys of a free-form table; characters of each
INTEGER_LIMIT = 2**63
HUGE = 1e300


def shown(text: str, limit: int = 80) -> str:
    """Make an untrusted name safe to show in a message: ASCII, one line, truncated."""
    visible = ascii(text)[1:-1]
    return visible if len(visible) <= limit else visible[: limit - 3] + "..."


def canonical(data: bytes | memoryview, place: str, limit: int, *, line: bool = True) -> Any:
    """Parse JSON that must be in canonical form: one line, or if not `line`, without a line end.

    So no key is repeated, no number is NaN or infinite, and equal values are equal files.

    Raises:
        RecordError: naming the place and the rule.
    """
    if len(data) > limit:
        raise RecordError(f"{place}: {len(data)} bytes of JSON, at most {limit} are read")
    text = bytes(data)
    try:
        value = json.loads(text, parse_constant=_no_number)
        _check_depth(value, DEPTH)
        again = canonical_json(value)
    except RecursionError as error:
        raise RecordError(f"{place}: JSON nested too deep; {NEXT}") from error
    except ValueError as error:  # from text, JSON, numbers or surrogates
        raise RecordError(f"{place}: not JSON: {shown(str(error))}; {NEXT}") from error
    if text != (again if line else again[:-1]):
        raise RecordError(
            f"{place}: not in canonical form (sorted keys once each, no spaces, plain numbers); "
            f"{NEXT}"
        )
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _check_depth(value: object, left: int) -> None:
    if isinstance(value, (dict, list)):
        if not left:
            raise RecursionError
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, left - 1)


def check_text(place: str, text: str, *, lines: bool = False) -> None:
    """Check that a text cannot pass for another line of output, or reverse the writing direction.

    With `lines` it may have several lines.

    Raises:
        RecordError: naming the place and the character.
    """
    hidden = next((c for c in text if not _is_seen(c) and not (lines and c in "\n\t")), "")
    if hidden:
        raise RecordError(
            f"{shown(place)}: holds the character U+{ord(hidden):04X}, which cannot be seen "
            "or changes the direction of text; take it out"
        )


def _is_seen(character: str) -> bool:
    """Return whether a character is visible; of spaces, only the plain one is."""
    return character.isprintable() and not visible_text.hidden(character)


def check_plain(place: str, key: str, value: str) -> None:
    """Check that a text shown on pages contains no markup, and links to nothing but https.

    Raises:
        RecordError: naming the place and the rule.
    """
    if MARKUP.search(key + value):
        raise RecordError(f"{place}.{shown(key)}: holds markup; write plain text")
    unsafe = [m.group() for m in SCHEME.finditer(value) if m.group().lower() != "https://"]
    if unsafe:
        raise RecordError(
            f"{place}.{shown(key)}: an address that begins with {unsafe[0]}; only https:// is taken"
        )


def check_table(place: str, table: Mapping[str, object]) -> None:
    """Check that a free-form table has few keys, plain names, and values within bounds.

    Raises:
        RecordError: naming the place, the value and the rule.
    """
    for key, value in table.items():
        check_text(f"{place} (a key)", key)
        if type(value) is str:
            check_text(f"{place}.{key}", value)
    if len(table) > TABLE_LIMIT:
        raise RecordError(f"{place}: {len(table)} keys, at most {TABLE_LIMIT}")
    for key, value in table.items():
        if not KEY.fullmatch(key):
            raise RecordError(f"{place}: key {shown(key)!r}: letters, digits and _ . - alone")
        if type(value) is int and abs(value) >= INTEGER_LIMIT:
            raise RecordError(f"{place}.{key}: an integer of more than 64 bits")
        if type(value) is str and len(value) > TEXT_LIMIT:
            raise RecordError(f"{place}.{key}: {len(value)} characters, at most {TEXT_LIMIT}")
    check_zeros(place, table)


def check_zeros(place: str, tree: object) -> None:
    """Check that no number in a tree is -0; RecordError naming the place."""
    if negative_zero(tree):
        raise RecordError(f"{place}: holds -0, which is written 0")


def negative_zero(tree: object) -> bool:
    """Return whether a value is -0, or contains it."""
    if isinstance(tree, float):
        return tree == 0 and math.copysign(1, tree) < 0
    if isinstance(tree, dict):
        return any(map(negative_zero, tree.values()))
    return isinstance(tree, (list, tuple)) and any(map(negative_zero, tree))


def difference(a: object, b: object, place: str) -> str | None:
    """Return the first place where two trees differ by more than 1e-9; None if they agree."""
    if isinstance(a, float) and isinstance(b, (int, float)) and not isinstance(b, bool):
        # An integer may exceed the range of a float.
        near = -HUGE < b < HUGE and math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-9)
        return None if near else place
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            return f"{place}.{min(set(a) ^ set(b))}"
        for key, value in a.items():
            if where := difference(value, b[key], f"{place}.{key}"):
                return where
        return None
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return place
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            if where := difference(x, y, f"{place}[{i}]"):
                return where
        return None
    return None if type(a) is type(b) and a == b else place
