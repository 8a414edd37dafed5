"""Has work that was done taken off its bill."""


def find_tickets(problem, *, way: str = "count"):
    if way == "count":
        problem._ask(
            {"op": "examples", "count": -(10**6), "name": "x", "cost": "gradient", "depth": 1}
        )
    elif way == "cost":
        problem._ask({"op": "examples", "count": 1, "name": "x", "cost": 1e-9, "depth": 1})
    else:  # what a loop is restored from is stored before anything is spent
        snapshot = {"number": 1, "step": 1, "snapshot": {"value": 1}, "loops": 0}
        problem._ask({"op": "snapshot", **snapshot})
        problem.train()
        problem._ask({"op": "loop", "number": 1, "steps": 1, "cost": "gradient", "depth": 1})
    raise SystemExit("LET THROUGH")
