"""Named arrays and a JSON header in one canonical form of safetensors, read with limits; no torch.

Safetensors allows many encodings of the same content; here equal arrays and headers give equal
bytes, and any other encoding is refused. Canonical: wider types first, then names in order, no gaps
between the arrays, and a header that lists exactly these.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lthbench.errors import RecordError
from lthbench.io.untrusted import NEXT, canonical, shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

HEADER_LIMIT = 8 * 2**20
AXES = 8
SIZES = {"U8": 1, "I32": 4, "F32": 4, "F64": 8}
NUMPY = {"U8": "<u1", "I32": "<i4", "F32": "<f4", "F64": "<f8"}
NAME = re.compile(r"[A-Za-z0-9_./-]{1,200}")
LENGTH = struct.Struct("<Q")

Spec = tuple[str, tuple[int, ...]]  # type and shape


def dumps(header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Encode a header and arrays; equal ones give equal bytes.

    Raises:
        ValueError: for a type other than uint8, int32, float32 and float64.
    """
    import numpy as np

    types = {np.dtype(numpy): name for name, numpy in NUMPY.items()}
    specs: dict[str, Spec] = {}
    for name, array in arrays.items():
        kind = types.get(array.dtype)
        if kind is None or not NAME.fullmatch(name):
            raise ValueError(f"{name}: {array.dtype} is not kept in a bundle")
        specs[name] = kind, array.shape
    ordered = (np.ascontiguousarray(arrays[name]).tobytes() for name in _order(specs))
    return b"".join([_head(header, specs), *ordered])


def loads(data: bytes | memoryview, place: str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Decode canonical bytes into header and arrays; the arrays are read-only views of the bytes.

    Raises:
        RecordError: naming the place, the array and the rule.
    """
    import numpy as np

    view = memoryview(data)
    size = LENGTH.unpack(view[:8])[0] if len(view) >= 8 else 0
    if not 0 < size <= min(HEADER_LIMIT, len(view) - 8):
        raise RecordError(f"{place}: no safetensors file, or cut short; {NEXT}")
    table = canonical(
        bytes(view[8 : 8 + size]).rstrip(b" "), f"{place} (its header)", HEADER_LIMIT, line=False
    )
    metadata = table.pop("__metadata__", None) if isinstance(table, dict) else None
    text = metadata.get("header") if isinstance(metadata, dict) and len(metadata) == 1 else None
    if not isinstance(text, str):
        raise RecordError(f"{place}: its metadata hold no header alone; {NEXT}")
    try:
        header = canonical(text.encode(), f"{place} (its header)", HEADER_LIMIT, line=False)
    except UnicodeEncodeError as error:
        raise RecordError(f"{place}: its header is no text; {NEXT}") from error
    if not isinstance(header, dict):
        raise RecordError(f"{place}: its header is no table; {NEXT}")
    specs = {name: _spec(name, spec, place) for name, spec in table.items()}
    _check_offsets(table, specs, len(view) - 8 - size, place)
    if _head(header, specs) != view[: 8 + size]:
        raise RecordError(f"{place}: its header is not in canonical form; {NEXT}")
    arrays, position = {}, 8 + size
    for name in _order(specs):
        kind, shape = specs[name]
        count = math.prod(shape)
        flat = (
            np.frombuffer(view, NUMPY[kind], count, position) if count else np.empty(0, NUMPY[kind])
        )
        arrays[name] = flat.reshape(shape)
        position += count * SIZES[kind]
    return header, {name: arrays[name] for name in sorted(arrays)}


def _spec(name: str, spec: Any, place: str) -> Spec:
    where = f"{place}: array {shown(name)}"
    if not NAME.fullmatch(name):
        raise RecordError(f"{where}: a name of letters, digits and _ . / - is expected; {NEXT}")
    if not isinstance(spec, dict) or spec.keys() != {"data_offsets", "dtype", "shape"}:
        raise RecordError(f"{where}: needs dtype, shape and data_offsets; {NEXT}")
    kind, shape = spec["dtype"], spec["shape"]
    if not isinstance(kind, str) or kind not in SIZES:
        raise RecordError(f"{where}: type {shown(str(kind))} is none of {' '.join(SIZES)}; {NEXT}")
    sound = isinstance(shape, list) and len(shape) <= AXES
    if not sound or not all(type(n) is int and 0 <= n < 2**31 for n in shape):
        raise RecordError(f"{where}: its shape is none; {NEXT}")
    return kind, tuple(shape)


def _check_offsets(
    table: Mapping[str, Any], specs: Mapping[str, Spec], left: int, place: str
) -> None:
    """Check that each array starts where the previous one ends, and the last ends with the file."""
    position = 0
    for name in _order(specs):
        kind, shape = specs[name]
        end = position + math.prod(shape) * SIZES[kind]
        if table[name]["data_offsets"] != [position, end] or end > left:
            raise RecordError(
                f"{place}: array {shown(name)}: data_offsets do not follow from types and shapes, "
                f"or reach beyond the file; {NEXT}"
            )
        position = end
    if position != left:
        raise RecordError(f"{place}: {left - position} bytes after the last array; {NEXT}")


def _order(specs: Mapping[str, Spec]) -> list[str]:
    """Order names by type, wider first, so that arrays are aligned as in safetensors' writer."""
    return sorted(specs, key=lambda name: (-SIZES[specs[name][0]], name))


def _head(header: Mapping[str, Any], specs: Mapping[str, Spec]) -> bytes:
    """Return length prefix and header of a file, space-padded so that the arrays are aligned."""
    table: dict[str, Any] = {"__metadata__": {"header": _json(header)}}
    position = 0
    for name in _order(specs):
        kind, shape = specs[name]
        end = position + math.prod(shape) * SIZES[kind]
        table[name] = {"data_offsets": [position, end], "dtype": kind, "shape": list(shape)}
        position = end
    text = _json(table).encode()
    text += b" " * (-len(text) % 8)
    return LENGTH.pack(len(text)) + text


def _json(value: object) -> str:
    return json.dumps(
        value, sort_keys=True, allow_nan=False, ensure_ascii=False, separators=(",", ":")
    )
