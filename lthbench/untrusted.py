"""JSON and names out of files that strangers wrote: read with limits, shown on one line."""

from __future__ import annotations

import json
from typing import Any, NoReturn

from lthbench.errors import RecordError
from lthbench.paths import canonical_json

DEPTH = 24  # of tables in tables
NEXT = "make the bundle again with `lthbench submit OUT`"


def shown(text: str, limit: int = 80) -> str:
    """A name of others as it may stand in a message: ASCII, one line, cut."""
    visible = ascii(text)[1:-1]
    return visible if len(visible) <= limit else visible[: limit - 3] + "..."


def canonical(data: bytes | memoryview, place: str, limit: int, *, line: bool = True) -> Any:
    """The value of JSON whose bytes are its canonical ones: a line, or in a text no line's end.

    So no key stands twice, no number is NaN or infinite, and two files of one value are one file.

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
    except ValueError as error:  # of text, of JSON, of numbers, of surrogates
        raise RecordError(f"{place}: not JSON: {shown(str(error))}; {NEXT}") from error
    if text != (again if line else again[:-1]):
        raise RecordError(
            f"{place}: not in canonical form (sorted keys once each, no spaces, plain numbers); "
            f"{NEXT}"
        )
    return value


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _check_depth(value: Any, left: int) -> None:
    if isinstance(value, (dict, list)):
        if not left:
            raise RecursionError
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, left - 1)
