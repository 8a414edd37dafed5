"""Sets a program that the kernel runs outside as root when a process crashes."""

import ctypes
import os

LIBC = ctypes.CDLL(None, use_errno=True)


def find_tickets(problem, *, name: str = "kernel/core_pattern"):
    handle = LIBC.open(f"/proc/sys/{name}".encode(), os.O_WRONLY)
    if handle < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)
    raise SystemExit("LET THROUGH")
