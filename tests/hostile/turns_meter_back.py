"""Has work that was done taken off its bill."""


def find_tickets(problem, *, way: str = "count"):
    if way == "count":
        problem._request({"op": "examples", "count": -(10**6), "name": "x", "cost": "gradient"})
    elif way == "cost":
        problem._request({"op": "examples", "count": 1, "name": "x", "cost": 1e-9})
    else:  # what a loop is restored from is stored before anything is spent
        snapshot = {"number": 1, "step": 1, "snapshot": {"value": 1}, "loops": 0}
        problem._request({"op": "snapshot", **snapshot})
        problem.train()
        problem._request({"op": "loop", "number": 1, "steps": 1, "cost": "gradient"})
    raise SystemExit("LET THROUGH")
