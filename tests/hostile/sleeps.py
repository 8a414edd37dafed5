"""Sleeps for ever."""

import time


def find_tickets(problem):
    while True:
        time.sleep(1000)
