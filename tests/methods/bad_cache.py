"""Opens a file of the cache: `--set path=...` names it."""

from pathlib import Path

from lthbench import Problem


def find_tickets(problem: Problem, *, path: str = ""):
    Path(path).read_bytes()
    yield
