"""Writes noise where the coordinator expects messages."""

import os
import time


def find_tickets(problem):
    for handle in range(3, 64):
        try:
            os.write(handle, os.urandom(2**16))
        except OSError:
            continue
    time.sleep(1000)
