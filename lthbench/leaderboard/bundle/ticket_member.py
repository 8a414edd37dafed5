"""A ticket as stored in a bundle: header, bit-packed masks, and only the necessary weights.

Weights that follow from the seed are left out: all of them for origin "init" and "rewind", and all
but one factor per prunable tensor for "signs" and "scaled". Otherwise, the values of kept entries
are stored, and every other tensor whole. No torch.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lthbench.errors import RecordError
from lthbench.io import canonical_tensors
from lthbench.io.untrusted import NEXT, shown

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEADER = {"density", "kept", "trained", "origin", "start", "masks", "weights", "shapes"}
RECOMPUTED = ("init", "rewind")  # their weights are theta_0 and theta_k
SCALED = ("signs", "scaled")  # one factor per tensor
HELD = ("transferred", "final", "free")  # the values themselves
WEIGHTS = 2**27  # maximum entries of one ticket: when read, a mask takes one byte for each
HEX = re.compile(r"[0-9a-f]{64}")

Ticket = tuple[dict[str, Any], "dict[str, NDArray[np.bool_]]", "dict[str, NDArray[Any]]"]


def rung_name(density: float) -> str:
    """Return a rung's file name: its density in millionths, as in an evaluation's folder."""
    return f"{round(density * 1e6):07d}"


def dumps(
    header: Mapping[str, Any],
    masks: Mapping[str, NDArray[np.bool_]],
    weights: Mapping[str, NDArray[Any]],
) -> bytes:
    """Serialise a ticket.

    Args:
        header: The header of a ticket's file; only the keys of `HEADER` are stored.
        masks: One mask per prunable tensor.
        weights: As returned by `loads`.
    """
    import numpy as np

    shapes = {name: list(mask.shape) for name, mask in masks.items()}
    held = {name: header[name] for name in HEADER - {"shapes"}} | {"shapes": shapes}
    bits = {f"mask/{name}": np.packbits(mask) for name, mask in masks.items()}
    return canonical_tensors.dumps(held, {**bits, **weights})


def loads(data: bytes | memoryview, where: str, density: float) -> Ticket:
    """Parse header, masks and stored weights of a ticket of one rung.

    Raises:
        RecordError: If a rule is broken; names the place and the rule.
    """
    header, held = canonical_tensors.loads(data, where)
    _check_header(header, density, where)
    size = sum(map(math.prod, header["shapes"].values()))
    if size > WEIGHTS:
        raise RecordError(f"{where}: {size} weights; at most {WEIGHTS} are read; {NEXT}")
    bits = {n.removeprefix("mask/"): a for n, a in held.items() if n.startswith("mask/")}
    if bits.keys() != header["shapes"].keys() or not bits:
        raise RecordError(f"{where}: masks and their shapes have different names; {NEXT}")
    masks = {name: _mask(bits[name], header["shapes"][name], where) for name in sorted(bits)}
    kept = sum(int(mask.sum()) for mask in masks.values())
    if kept != header["kept"]:
        raise RecordError(f"{where}: its masks keep {kept} weights, it claims {header['kept']}")
    if mask_digest(masks) != header["masks"]:
        raise RecordError(f"{where}: its masks have not the digest that it names; {NEXT}")
    weights = {n: a for n, a in held.items() if not n.startswith("mask/")}
    _check_weights(header["origin"], masks, weights, where)
    return header, masks, weights


def _check_header(header: Mapping[str, Any], density: float, where: str) -> None:
    if header.keys() != HEADER:
        odd = min(header.keys() ^ HEADER)
        raise RecordError(f"{where}: {shown(odd)} is missing or unknown in its header; {NEXT}")
    shapes = header["shapes"]
    sound = (
        type(header["density"]) is float and header["density"] == density,
        type(header["kept"]) is int and header["kept"] >= 0,
        type(header["trained"]) is bool,
        header["origin"] in (*RECOMPUTED, *SCALED, *HELD),
        type(header["start"]) is int and 0 <= header["start"] <= 10**12,
        _is_hex(header["masks"]),
        header["weights"] is None or _is_hex(header["weights"]),
        isinstance(shapes, dict) and all(map(_is_shape, shapes.values())),
    )
    names = ("density", "kept", "trained", "origin", "start", "masks", "weights", "shapes")
    if wrong := [name for name, right in zip(names, sound, strict=True) if not right]:
        value = shown(str(header[wrong[0]])[:80])
        raise RecordError(f"{where}: {wrong[0]} of its header is {value}; {NEXT}")


def _is_hex(value: object) -> bool:
    return isinstance(value, str) and HEX.fullmatch(value) is not None


def _is_shape(value: object) -> bool:
    sizes = isinstance(value, list) and len(value) <= canonical_tensors.AXES
    return sizes and all(type(n) is int and 0 < n < 2**31 for n in value)  # type: ignore[attr-defined]


def _mask(bits: NDArray[Any], shape: list[int], where: str) -> NDArray[np.bool_]:
    """Unpack a mask from flat bytes, the last of which is padded with zeros."""
    import numpy as np

    size = math.prod(shape)
    if bits.dtype != np.uint8 or bits.ndim != 1 or len(bits) != -(-size // 8):
        raise RecordError(f"{where}: a mask is not {size} bits, packed; {NEXT}")
    if size % 8 and int(bits[-1]) & (0xFF >> size % 8):
        raise RecordError(f"{where}: bits beyond a mask's end are not zero; {NEXT}")
    return np.unpackbits(bits, count=size).view(bool).reshape(shape)


def mask_digest(masks: Mapping[str, NDArray[np.bool_]]) -> str:
    """Return the same digest as `masks.digest`, without torch."""
    import numpy as np

    shapes = [[name, list(masks[name].shape)] for name in sorted(masks)]
    state = hashlib.sha256(json.dumps(shapes, separators=(",", ":")).encode("ascii") + b"\n")
    for name in sorted(masks):
        state.update(np.packbits(masks[name]).tobytes())
    return state.hexdigest()


def _check_weights(
    origin: str,
    masks: Mapping[str, NDArray[np.bool_]],
    weights: Mapping[str, NDArray[Any]],
    where: str,
) -> None:
    """Check that the stored weights are what the origin needs: types, sizes, and finite values."""
    import numpy as np

    prefix = {**dict.fromkeys(SCALED, "factor/"), **dict.fromkeys(HELD, "kept/")}.get(origin)
    wanted = {f"{prefix}{name}" for name in masks} if prefix else set()
    whole = {n for n in weights if n.startswith("whole/") and n[6:] not in masks}
    if weights.keys() != (wanted | whole if origin in HELD else wanted):
        raise RecordError(f"{where}: does not hold the weights that origin {origin} needs; {NEXT}")
    for name, values in weights.items():
        of = name.partition("/")[2]
        size = int(masks[of].sum()) if name.startswith("kept/") else 1
        wide = name.startswith("factor/")
        sound = values.dtype == (np.float64 if wide else np.float32)
        sound &= name.startswith("whole/") or values.shape == (size,)
        if not sound or not bool(np.isfinite(values).all()):
            raise RecordError(f"{where}: {shown(name)}: not {size} finite floats; {NEXT}")
        if wide and not values[0] >= 0:
            raise RecordError(f"{where}: {shown(name)}: a factor is not negative; {NEXT}")
