"""What `lthbench evaluate imp` takes on suite quick: `python -m tests.speed.quick`.

Time by the clock, start-up included, and the most memory that the command and all processes it
starts hold together, where shared pages count once (PSS; else RSS). An empty cache but for the
prepared data. And the time left that the command told at half-way, beside what it was.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from threading import Thread
from typing import IO

import psutil

EVERY = 0.5  # seconds between looks
LEFT = re.compile(r" (?:(\d+):)?(\d+):(\d\d) left$")


def held(root: psutil.Process) -> int:
    """Bytes of a process and all that it started."""
    total = 0
    for one in [root, *root.children(recursive=True)]:
        try:
            full = one.memory_full_info()
            total += getattr(full, "pss", full.rss)
        except psutil.Error:
            continue  # it has just ended
    return total


def follow(lines: IO[str], began: float, told: list[tuple[float, int]]) -> None:
    """Hand lines on, and keep when each told how many seconds are left."""
    for line in lines:
        print(line, end="", flush=True)
        if found := LEFT.search(line.rstrip()):
            hours, minutes, seconds = (int(part or 0) for part in found.groups())
            told.append((time.perf_counter() - began, 3600 * hours + 60 * minutes + seconds))


def half_way(told: list[tuple[float, int]], wall: float) -> str:
    """The last time left that was told in the first half, beside what it was."""
    known = [(when, left) for when, left in told if when <= wall / 2]
    if not known:
        return "no time left was told in the first half"
    when, left = known[-1]
    return (
        f"at {when:.0f} s of {wall:.0f} s: {left} s left told, {wall - when:.0f} s it was, "
        f"ratio {left / (wall - when):.2f}"
    )


def main() -> None:
    """Run the command and print what it took, below what it says itself."""
    parser = argparse.ArgumentParser(prog="python -m tests.speed.quick", description=__doc__)
    parser.add_argument("--method", default="imp")
    parser.add_argument("--task", action="append", help="tasks in place of the suite")
    parser.add_argument("--seeds", default="2")
    options = parser.parse_args()
    tasks = [word for name in options.task or () for word in ("--task", name)]
    with tempfile.TemporaryDirectory(prefix="lthbench-speed-") as place:
        command = [sys.executable, "-m", "lthbench", "evaluate", options.method, *tasks]
        command += ["--seeds", options.seeds, "--out", f"{place}/out"]
        environment = os.environ | {"LTHBENCH_CACHE": f"{place}/cache"}
        began = time.perf_counter()
        run = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,  # a terminal there would get a bar in place of lines
            text=True,
        )
        told: list[tuple[float, int]] = []
        assert run.stdout
        reader = Thread(target=follow, args=(run.stdout, began, told))
        reader.start()
        root, most = psutil.Process(run.pid), 0
        while run.poll() is None:
            try:
                most = max(most, held(root))
            except psutil.Error:
                break
            time.sleep(EVERY)
        code, wall = run.wait(), time.perf_counter() - began
        reader.join()
        run.stdout.close()
    print(half_way(told, wall))
    print(f"exit {code}, {wall:.1f} s, at most {most / 1e9:.2f} GB, {os.cpu_count()} cores")
    sys.exit(code)


if __name__ == "__main__":
    main()
