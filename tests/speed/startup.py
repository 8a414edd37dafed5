"""How long `lthbench --help` takes: `python -m tests.speed.startup`."""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time


def once(arguments: list[str]) -> tuple[float, float]:
    """Wall and processor seconds of one process."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print medians and the least, beside an interpreter that does nothing."""
    parser = argparse.ArgumentParser(prog="python -m tests.speed.startup", description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    for name, arguments in (
        ("lthbench --help", ["-m", "lthbench", "--help"]),
        ("lthbench tasks", ["-m", "lthbench", "tasks"]),
        ("python -c pass", ["-c", "pass"]),
    ):
        once(arguments)  # what is compiled or read for the first time
        times = [once(arguments) for _ in range(repeats)]
        wall, processor = zip(*times, strict=True)
        print(
            f"{name}: wall {statistics.median(wall):.2f} s (least {min(wall):.2f}), "
            f"cpu {statistics.median(processor):.2f} s (least {min(processor):.2f})"
        )


if __name__ == "__main__":
    main()
