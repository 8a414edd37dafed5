"""Sends a request that is well made but asks for nothing that there is."""


def find_tickets(problem, *, op: str = "train"):
    problem._ask({"op": op})
    raise SystemExit("LET THROUGH")
