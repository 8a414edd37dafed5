"""Standard output and standard error of the command line: no work is lost because nobody reads.

A reader that exits, a full disk or a closed descriptor may be met in the middle of a long
evaluation. What cannot be written is dropped, and reported once the work is done.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

from lthbench.io.paths import refusal

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Output(io.FileIO):
    """A file descriptor that remembers the first failed write, and silently drops later ones."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.refused: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Write some of the data and return how much; after a failure all counts as written."""
        try:
            while self.refused is None:
                if (written := super().write(data)) is not None:
                    return written
                select.select((), (self,), ())  # a non-blocking pipe
        except OSError as error:
            self.refused = error
        return memoryview(data).nbytes


def begin() -> Output | None:
    """Take over the process's own outputs; return standard output, or None if it is someone else's.

    Closed descriptors are first opened to the null device: otherwise the next file would get their
    number, and whatever is printed would be written into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _text(Output(2), sys.stderr)
    if sys.stdout is not sys.__stdout__:
        return None
    output = Output(1)
    sys.stdout = _text(output, sys.stdout)
    return output


def lost(output: Output | None) -> str:
    """Return why standard output is incomplete; "" if it is not, or its reader stopped reading."""
    sys.stdout.flush()
    if output is None or output.refused is None or output.refused.errno == errno.EPIPE:
        return ""
    return f"standard output: cannot write: {refusal(output.refused)}"


def _text(output: Output, replaced: TextIO | None) -> io.TextIOWrapper:
    """Return a text stream like the one replaced; characters it cannot encode become escapes."""
    encoding = replaced.encoding if replaced is not None else "utf-8"
    always = output.fileno() != 1 or output.isatty()
    return io.TextIOWrapper(
        io.BufferedWriter(output), encoding, "backslashreplace", line_buffering=always
    )
