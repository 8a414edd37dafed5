"""Ticket files in the folder of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from lthbench.errors import ResourceError
from lthbench.io import messages
from lthbench.io.paths import write_whole
from lthbench.tickets import masks


@dataclass(frozen=True)
class Rung:
    """What is known of a ticket when it is found: the header of its file, without the shapes.

    Attributes:
        kept: how many weights.
        origin, start: as `lthbench.tickets.ticket.origin` determines them.
        masks, weights: digests; None for a ticket without weights of its own.
        cost: dense trainings that the search had spent by then.
    """

    density: float
    kept: int
    trained: bool
    origin: str
    start: int
    masks: str
    weights: str | None
    cost: float


@dataclass(frozen=True)
class _Shapes:
    """What the header of a ticket's file holds besides: the shape of each mask."""

    shapes: Mapping[str, tuple[int, ...]]


def write_ticket(
    folder: Path,
    rung: Rung,
    chosen: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
) -> None:
    """Write a ticket's file atomically; weights equal to theta_0 are not stored."""
    bits, shapes = masks.pack(chosen)
    content = messages.prefixed("mask", bits) | messages.prefixed("weight", weights)
    header = {**vars(rung), "shapes": shapes}
    write_whole(folder / rung_name(rung.density), messages.dumps(header, content))


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
        shapes = messages.read(_Shapes, header).shapes
        chosen = masks.unpack(messages.under("mask", tensors), shapes)
    except (OSError, messages.WireError, KeyError, ValueError) as error:
        raise ResourceError(
            f"{path}: damaged or gone; delete {folder} and run the same command again"
        ) from error
    return header, chosen, messages.under("weight", tensors)
