"""Standard output and standard error of the command line: no work ends because nobody can read.

A reader that has left, a full disk or a closed descriptor is met in the middle of a long evaluation
as well as in a listing: what cannot be written is dropped, and told once the work is done.
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
    """A descriptor to write to; it keeps the first refusal, and takes what comes later as read."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.refused: OSError | None = None

    def write(self, data: ReadableBuffer, /) -> int:
        """Write some of the data, and return how much; all of it, once that was refused."""
        try:
            while self.refused is None:
                if (written := super().write(data)) is not None:
                    return written
                select.select((), (self,), ())  # a pipe that does not wait for its reader
        except OSError as error:
            self.refused = error
        return memoryview(data).nbytes


def begin() -> Output | None:
    """Take over this process's own outputs; returns standard output, None where it is another's.

    Descriptors that are closed are opened to nothing first: the next file would take their number,
    and what is printed would be written into it.
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
    """Why standard output is not whole; "" if it is, or if its reader wanted no more."""
    sys.stdout.flush()
    if output is None or output.refused is None or output.refused.errno == errno.EPIPE:
        return ""
    return f"standard output: cannot write: {refusal(output.refused)}"


def _text(output: Output, replaced: TextIO | None) -> io.TextIOWrapper:
    """Text written as before; letters that the encoding lacks by their numbers."""
    encoding = replaced.encoding if replaced is not None else "utf-8"
    always = output.fileno() != 1 or output.isatty()
    return io.TextIOWrapper(
        io.BufferedWriter(output), encoding, "backslashreplace", line_buffering=always
    )
