"""Asks for a network of a thousand million layers, which the coordinator would build."""


def find_tickets(problem):
    problem._ask({"op": "theta", "k": 1, "depth": 10**9})
    raise SystemExit("LET THROUGH")
