"""Starts 10,000 processes that sleep."""

import ctypes

LIBC = ctypes.CDLL(None, use_errno=True)


def find_tickets(problem):
    for _ in range(10_000):
        if LIBC.fork() == 0:
            LIBC.sleep(1000)
            LIBC._exit(0)
    LIBC.sleep(1000)
