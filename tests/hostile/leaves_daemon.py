"""Leaves a process behind that has left its group and session, and ends as if all were well."""

import ctypes
import os
import time

from lthbench import Ticket, keep_top

LIBC = ctypes.CDLL(None, use_errno=True)


def find_tickets(problem):
    if LIBC.fork() == 0:
        LIBC.setsid()
        if LIBC.fork() == 0:
            os.closerange(0, 100)
            while True:
                time.sleep(1)
        LIBC._exit(0)
    scores = {
        name: theta.abs() for name, theta in problem.theta().items() if name in problem.shapes
    }
    for density in problem.densities:
        yield Ticket(keep_top(scores, density))
