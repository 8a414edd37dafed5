"""One format for pipes and files: safetensors bytes whose metadata hold a JSON header.

No pickle: bytes from a child, a worker or a disk are parsed with limits and can only become
numbers, strings and tensors.
"""

from __future__ import annotations

import asyncio
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, BinaryIO, NoReturn, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from safetensors.torch import load, save
from torch import Tensor

Tensors = Mapping[str, Tensor]
Message = tuple[dict[str, object], dict[str, Tensor]]  # a header as parsed, see `read`
T = TypeVar("T")

LIMIT = 2**31  # bytes of one message
HEADER_LIMIT = 2**26
LENGTH = struct.Struct("<Q")

_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


class WireError(Exception):
    """A malformed message, or the end of a pipe inside one."""


def dumps(header: object, tensors: Tensors | None = None) -> bytes:
    """Encode a message; the same header and tensors give the same bytes.

    Args:
        header: a mapping, a dataclass or a pydantic model, of values that JSON has and of these.
        tensors: by name.
    """
    ready = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in sorted((tensors or {}).items())
    }
    text = json.dumps(header, sort_keys=True, allow_nan=False, default=_table)
    return save(ready, metadata={"header": text})


def loads(data: bytes) -> Message:
    """Decode a message into header and tensors; WireError if it is malformed."""
    try:
        (size,) = LENGTH.unpack(data[:8])
        if size > min(HEADER_LIMIT, len(data) - 8):
            raise WireError("a message's header is longer than the message")
        text = json.loads(data[8 : 8 + size])["__metadata__"]["header"]
        header = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        if not isinstance(header, dict):
            raise WireError("a message's header is no table")
        return header, load(data)
    except WireError:
        raise
    except Exception as error:  # safetensors and json raise many exceptions on hostile bytes
        raise WireError(f"not a message: {error}") from error


def read(kind: type[T], header: object) -> T:
    """Return a header as the dataclass `kind`; WireError names the first field that does not fit.

    Its types and pydantic's annotations are checked; keys that it has no field for are ignored
    unless its `__pydantic_config__` forbids them.
    """
    try:
        return adapter(kind).validate_python(header)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise WireError(f"{place}: {repr(first['input'])[:40]}: {first['msg']}") from error


def adapter(kind: type[T]) -> TypeAdapter[T]:
    """Return what checks values of a type; it is made when it is first needed."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


def _table(value: object) -> object:
    """Return what JSON holds of a value that it has no type for."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return vars(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    """Return a number that can be written again."""
    return value if math.isfinite(value := float(text)) else _refuse(text)


def send(pipe: BinaryIO, header: object, tensors: Tensors | None = None) -> None:
    """Write one message to a blocking pipe."""
    data = dumps(header, tensors)
    pipe.write(LENGTH.pack(len(data)) + data)
    pipe.flush()


def receive(pipe: BinaryIO) -> Message | None:
    """Read the next message from a blocking pipe; None at its end."""
    prefix = pipe.read(LENGTH.size)
    if not prefix:
        return None
    data = pipe.read(_length(prefix))
    return loads(data)


async def asend(pipe: asyncio.StreamWriter, header: object, tensors: Tensors | None = None) -> None:
    """Write one message to the input of a process."""
    data = dumps(header, tensors)
    pipe.write(LENGTH.pack(len(data)))
    pipe.write(data)
    await pipe.drain()


async def areceive(pipe: asyncio.StreamReader) -> Message | None:
    """Read the next message from a process; None at the end of its output."""
    try:
        prefix = await pipe.readexactly(LENGTH.size)
        return loads(await pipe.readexactly(_length(prefix)))
    except asyncio.IncompleteReadError:
        return None


def _length(prefix: bytes) -> int:
    if len(prefix) < LENGTH.size:
        raise WireError("the pipe ended inside a message")
    (length,) = LENGTH.unpack(prefix)
    if length > LIMIT:
        raise WireError(f"a message of {length} bytes; at most {LIMIT} are read")
    return int(length)


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Add `prefix/` to the name of each tensor."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Select the tensors whose names begin with `prefix/`, and strip it."""
    start = prefix + "/"
    return {n.removeprefix(start): t for n, t in tensors.items() if n.startswith(start)}
