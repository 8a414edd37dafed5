"""Prints without end."""


def find_tickets(problem):
    while True:
        print("spam " * 10_000)
