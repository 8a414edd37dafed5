"""What a network repeats: the runs of blocks by which transfer makes it deeper or shallower."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """Blocks of one shape, in order: all their tensors have the same suffixes and shapes.

    `blocks` are prefixes of tensor names that end in a dot, `"stage.0.1."`. The first block of a
    `fixed` stage may have another shape (it changes the size) and is never copied or dropped.
    """

    blocks: tuple[str, ...]
    fixed: bool = False


def numbered(prefix: str, numbers: range, fixed: bool = False) -> Stage:
    """Return the stage with the blocks `prefix` + "0.", "1." and so on."""
    return Stage(tuple(f"{prefix}{n}." for n in numbers), fixed)
