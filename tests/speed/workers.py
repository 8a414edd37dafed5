"""One worker against two, start-up included: `python -m tests.speed.workers`.

Times `lthbench evaluate imp` on a short copy of a task, each time with a cache and a folder that
hold nothing but the prepared data.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lthbench.io.paths import shipped


def shortened(name: str, steps: int, folder: Path) -> Path:
    """A copy of a task with so many steps, and as many evaluations as it has."""
    text = (shipped("tasks") / f"{name}.toml").read_text(encoding="utf-8")
    found = {key: re.search(rf"^{key} = (\d+)", text, re.MULTILINE) for key in ("steps", "every")}
    assert found["steps"] and found["every"]
    evaluations = int(found["steps"][1]) // int(found["every"][1])
    every = max(1, steps // evaluations)
    for key, value in (("steps", steps - steps % every), ("every", every)):
        text = re.sub(rf"^{key} = \d+", f"{key} = {value}", text, count=1, flags=re.MULTILINE)
    path = folder / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return path


def once(task: Path, workers: int, seeds: int, folder: Path) -> float:
    """Seconds of one evaluation, from the command to its end."""
    return evaluated(task, seeds, folder, "--workers", str(workers))


def evaluated(task: Path, seeds: int, folder: Path, *more: str) -> float:
    """Seconds of an evaluation of IMP, into folder/out, with a cache that holds the data alone."""
    environment = os.environ | {"LTHBENCH_CACHE": str(folder / "cache")}

    def lthbench(*arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "lthbench", *arguments],
            check=True, env=environment, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    lthbench("data", "prepare", str(task))
    began = time.perf_counter()
    lthbench(
        "evaluate", "imp", "--task", str(task), "--seeds", str(seeds),
        "--out", str(folder / "out"), *more,
    )  # fmt: skip
    return time.perf_counter() - began


def main() -> None:
    """Print the seconds with each number of workers, and the ratio of medians."""
    parser = argparse.ArgumentParser(prog="python -m tests.speed.workers", description=__doc__)
    parser.add_argument("--task", default="lenet300-mnist")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    times: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(options.repeats):
        for workers, seconds in times.items():
            with tempfile.TemporaryDirectory(prefix="lthbench-speed-") as name:
                task = shortened(options.task, options.steps, Path(name))
                seconds.append(once(task, workers, options.seeds, Path(name)))
    print(f"lthbench evaluate imp, {options.steps}-step copy of {options.task}")
    print(f"{options.seeds} seeds, {os.cpu_count()} cores")
    medians = {workers: statistics.median(seconds) for workers, seconds in times.items()}
    for workers, median in medians.items():
        print(f"{workers} worker{'s' * (workers > 1)}: {median:.1f} s")
    print(f"ratio: {medians[1] / medians[2]:.2f}")


if __name__ == "__main__":
    main()
