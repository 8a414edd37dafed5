"""One format for pipes and files: safetensors bytes whose metadata hold a JSON header.

No pickle: bytes from a child, a worker or a disk are parsed with limits and can only become
numbers, strings and tensors.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Mapping
from typing import Any, BinaryIO

from safetensors.torch import load, save
from torch import Tensor

Message = tuple[dict[str, Any], dict[str, Tensor]]

LIMIT = 2**31  # bytes of one message
HEADER_LIMIT = 2**26
LENGTH = struct.Struct("<Q")


class WireError(Exception):
    """A malformed message, or the end of a pipe inside one."""


def dumps(header: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> bytes:
    """Encode a message; the same header and tensors give the same bytes."""
    ready = {
        name: tensor.detach().to("cpu", copy=True).contiguous()
        for name, tensor in sorted((tensors or {}).items())
    }
    text = json.dumps(header, sort_keys=True, allow_nan=False)
    return save(ready, metadata={"header": text})


def loads(data: bytes) -> Message:
    """Decode a message into header and tensors; WireError if it is malformed."""
    try:
        (size,) = LENGTH.unpack(data[:8])
        if size > min(HEADER_LIMIT, len(data) - 8):
            raise WireError("a message's header is longer than the message")
        header = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["header"])
        if not isinstance(header, dict):
            raise WireError("a message's header is no table")
        return header, load(data)
    except WireError:
        raise
    except Exception as error:  # safetensors and json raise many exceptions on hostile bytes
        raise WireError(f"not a message: {error}") from error


def send(
    pipe: BinaryIO, header: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None
) -> None:
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


async def asend(
    pipe: asyncio.StreamWriter,
    header: Mapping[str, Any],
    tensors: Mapping[str, Tensor] | None = None,
) -> None:
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


def pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """Turn a nested state_dict into JSON; its tensors go to `tensors`, numbered consecutively."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, Mapping):
        return {"map": [[pack(k, tensors), pack(v, tensors)] for k, v in value.items()]}
    if isinstance(value, (list, tuple)):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [pack(item, tensors) for item in value]}
    if value is None or isinstance(value, (bool, int, str)):
        return {"value": value}
    if isinstance(value, float):
        return {"float": value.hex()}
    raise TypeError(
        f"loop: a state_dict holds a {type(value).__name__}; it may hold tensors, numbers, "
        "strings, None, lists, tuples and mappings of these"
    )


def unpack(packed: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return the value that `pack` was given."""
    ((kind, value),) = packed.items()
    if kind == "tensor":
        return tensors[value]
    if kind == "map":
        return {unpack(k, tensors): unpack(v, tensors) for k, v in value}
    if kind in ("list", "tuple"):
        items = [unpack(item, tensors) for item in value]
        return tuple(items) if kind == "tuple" else items
    return float.fromhex(value) if kind == "float" else value
