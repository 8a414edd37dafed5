"""How long level 0 takes: `python -m tests.speed.validate --records 1000`.

The leaderboard's own records, told again with other times of the search, so that each is valid and
has a digest of its own; and each of them alone, by the command, as a pull request of one brings it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tabulate import tabulate

from tests.rewritten import changed, shipped_records, written


def main() -> None:
    """Print seconds by the clock for one record at a time and for many at once."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--records", type=int, default=1000)
    count = parser.parse_args().records
    shipped = shipped_records()
    tables = [json.loads(path.read_bytes()) for path in shipped]
    rows = [(path.name, path.stat().st_size / 1000, validated(path)) for path in shipped]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "records"
        for number in range(count):
            again = changed(
                tables[number % len(tables)],
                lambda table, number=number: table["times"].update(find_seconds=1.0 + number),
            )
            written(folder, again)
        size = sum(path.stat().st_size for path in folder.rglob("*.json"))
        rows.append((f"{count:,} at once", size / 1000, validated(folder)))
    print(tabulate(rows, headers=("records", "kB", "s"), floatfmt=(".0f", ",.0f", ".2f")))


def validated(path: Path) -> float:
    """Seconds that the command takes; the records have to be valid."""
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "lthbench", "validate", str(path)], capture_output=True, text=True
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{path}: {done.stderr or done.stdout.splitlines()[0]}")
    return seconds


if __name__ == "__main__":
    main()
