"""Announces a message of 3 GB and sends it."""

import os
import struct


def find_tickets(problem):
    for handle in range(3, 64):
        try:
            os.write(handle, struct.pack("<Q", 3 * 2**30))
        except OSError:
            continue
        for _ in range(3 * 2**14):
            os.write(handle, bytes(2**16))
