"""Ends its own process at once, as a broken library does."""

import ctypes


def find_tickets(problem):
    ctypes.string_at(0)
