"""What `lthbench estimate` foresees beside what `evaluate` takes: `python -m tests.speed.estimate`.

On a short copy of a task, with a cache that holds nothing but the prepared data: by default of one
that no number of the estimate was fitted on, by a method that trains and by one with a loop of its
own. Processor time is that of the command and of every process it starts, and the fairer ground on
a machine that does other things too; time by the clock stands beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

from tests.speed.workers import shortened

FACTOR = 1.5  # that an estimate may be off


def lthbench(folder: Path, *arguments: str) -> tuple[str, float, float]:
    """What a command prints; processor seconds of its whole tree; seconds by the clock."""
    environment = os.environ | {"LTHBENCH_CACHE": str(folder / "cache")}
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "lthbench", *arguments],
        check=True, env=environment, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, processor, wall


def measure(method: str, name: str, steps: int, seeds: int, workers: int) -> tuple[str, ...]:
    """A row: seconds foreseen and taken, and their ratio, by processor and by clock."""
    with tempfile.TemporaryDirectory(prefix="lthbench-speed-") as place:
        folder = Path(place)
        task = str(shortened(name, steps, folder))
        lthbench(folder, "data", "prepare", task)
        told = "--task", task, "--seeds", str(seeds), "--workers", str(workers)
        text, calibration, _ = lthbench(folder, "estimate", method, *told, "--json")
        out = str(folder / "out")
        _, processor, wall = lthbench(folder, "evaluate", method, *told, "--out", out)
    table = json.loads(text)
    foreseen = 3600 * table["core_hours"], table["seconds"]
    return (
        method,
        name,
        f"{calibration:.1f}",
        *(f"{value:.1f}" for value in (foreseen[0], processor)),
        f"{foreseen[0] / processor:.2f}",
        *(f"{value:.1f}" for value in (foreseen[1], wall)),
        f"{foreseen[1] / wall:.2f}",
    )


def main() -> None:
    """Print a row for each method and task."""
    parser = argparse.ArgumentParser(prog="python -m tests.speed.estimate", description=__doc__)
    parser.add_argument("--task", action="append", help="a shipped task [transformer-modadd59]")
    parser.add_argument("--method", action="append", help="a baseline [imp, edge_popup]")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    rows = [
        measure(method, name, options.steps, options.seeds, options.workers)
        for name in options.task or ["transformer-modadd59"]
        for method in options.method or ["imp", "edge_popup"]
    ]
    head = (
        "method", "task", "calibration\ncpu s", "foreseen\ncpu s", "taken\ncpu s", "ratio",
        "foreseen\ns", "taken\ns", "ratio",
    )  # fmt: skip
    print(f"{options.steps}-step copies, {options.seeds} seeds, {options.workers} workers")
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(tabulate(rows, head, disable_numparse=True))
    off = [row[0] for row in rows if not 1 / FACTOR <= float(row[5]) <= FACTOR]
    print(
        f"processor time within a factor of {FACTOR}: {'not ' + ', '.join(off) if off else 'all'}"
    )


if __name__ == "__main__":
    main()
