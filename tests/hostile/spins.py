"""Computes for ever and hears no signal that may be ignored."""

import signal


def find_tickets(problem):
    for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    while True:
        pass
