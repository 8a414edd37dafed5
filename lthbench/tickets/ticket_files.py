"""Ticket files in the folder of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from lthbench.errors import ResourceError
from lthbench.io import messages
from lthbench.io.paths import write_whole
from lthbench.tickets import masks


def write_ticket(
    folder: Path,
    entry: Mapping[str, Any],
    chosen: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
) -> None:
    """Write a ticket's file atomically; weights equal to theta_0 are not stored."""
    bits, shapes = masks.pack(chosen)
    content = messages.prefixed("mask", bits) | messages.prefixed("weight", weights)
    write_whole(
        folder / rung_name(entry["density"]), messages.dumps({**entry, "shapes": shapes}, content)
    )


def rung_name(density: float) -> str:
    """Return the file name of a rung: its density in millionths, so that names sort by it."""
    return f"{round(density * 1e6):07d}.safetensors"


def read_ticket(
    folder: Path, density: float
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor]]:
    """Read header, masks and stored weights from a ticket file."""
    path = folder / rung_name(density)
    try:
        header, tensors = messages.loads(path.read_bytes())
        chosen = masks.unpack(messages.under("mask", tensors), header["shapes"])
    except (OSError, messages.WireError, KeyError, ValueError) as error:
        raise ResourceError(
            f"{path}: damaged or gone; delete {folder} and run the same command again"
        ) from error
    return header, chosen, messages.under("weight", tensors)
