"""Looks for secrets in the environment and arguments of every process that it sees."""

from pathlib import Path


def find_tickets(problem, *, secret: str = "none"):
    for process in (path for path in Path("/proc").iterdir() if path.name.isdigit()):
        for what in ("environ", "cmdline"):
            try:
                told = (process / what).read_bytes()
            except OSError:
                continue
            if secret.encode() in told:
                raise SystemExit(f"LET THROUGH: {what} of {process}")
    raise OSError("no secret to be seen")
