"""How long the site of a large board takes: `python -m tests.speed.site --entries 1000`.

Built from nothing, again after one record more, and again with nothing changed; the size of the
first page, and with a browser the time of a sort. Processor seconds are of all processes together:
they are what the work is, on a machine that others use too. The ranks of a board are stored in the
cache, which is an empty one here at first.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tabulate import tabulate

from lthbench.protocol.task import task_names
from tests.boards import synthetic_board

if TYPE_CHECKING:
    from playwright.sync_api import Page

# A click, and the layout of what is shown at once; later rows follow in tasks of their own.
SORT = """
([table, number]) => {
  const button = document.querySelectorAll(`#${table} th button`)[number];
  const began = performance.now();
  button.click();
  document.getElementById(table).getBoundingClientRect();
  return performance.now() - began;
}
"""
WORK = ("ScriptDuration", "RecalcStyleDuration", "LayoutDuration")


@dataclass(frozen=True)
class Took:
    """One build: seconds by the clock and of all processors, and the most memory of one process."""

    what: str
    wall: float
    processor: float
    memory: int
    said: str


def once(what: str, board: Path, out: Path) -> Took:
    """Build in a process of its own."""
    command = (
        "import sys; from pathlib import Path; from lthbench.leaderboard.site.build import build; "
    )
    command += "print(build(Path(sys.argv[1]), Path(sys.argv[2])).text())"
    began = time.perf_counter()
    arguments = [sys.executable, "-c", command, str(out), str(board)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        said = process.stdout.read().split("\n")[0]
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{what}: the build failed")
    wall = time.perf_counter() - began
    return Took(what, wall, used.ru_utime + used.ru_stime, used.ru_maxrss, said)


def sorting(out: Path) -> list[tuple[str, ...]]:
    """The longest and the mean time of a sort by each column, with the layout after it, ms."""
    from tests.browsers import chromium, launched
    from tests.leaderboard.test_site_browser import ready

    rows = []
    with launched(chromium()) as browser:
        for page_name, table in (("entries.html", "entries"), ("index.html", "")):
            page = browser.new_page()
            page.goto((out / page_name).as_uri())
            ready(page)
            name = table or page.locator("table[data-sorts]").first.get_attribute("id") or ""
            count = page.locator(f"#{name} tbody tr").count()
            buttons = page.locator(f"#{name} th button").count()
            took = [sorted_by(page, name, number) for number in range(buttons)]
            wall, processor = (sorted(column) for column in zip(*took, strict=True))
            figures = [wall[len(wall) // 2], wall[-1], processor[len(wall) // 2], processor[-1]]
            rows.append((page_name, name, f"{count:,}", *(f"{figure:.0f}" for figure in figures)))
            page.close()
    return rows


def sorted_by(page: Page, table: str, number: int) -> tuple[float, float]:
    """Milliseconds by the clock, and of the page's own thread, that one sort takes."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})

    def spent() -> float:
        metrics = session.send("Performance.getMetrics")["metrics"]
        return sum(m["value"] for m in metrics if m["name"] in WORK)

    before = spent()
    wall = page.evaluate(SORT, [table, number])
    processor = 1000 * (spent() - before)
    while page.locator(f"#{table} .later").count():
        page.wait_for_timeout(50)
    return wall, processor


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m tests.speed.site", description=__doc__)
    parser.add_argument("--entries", type=int, default=1000)
    parser.add_argument("--tasks", type=int, default=10)
    parser.add_argument("--distinct", type=int, help="methods that are drawn; others repeat them")
    parser.add_argument(
        "--board", type=Path, help="a folder to keep the board in, and take it from"
    )
    parser.add_argument("--no-browser", action="store_true")
    parser.add_argument("--few", action="store_true", help="leave the last build out")
    options = parser.parse_args()
    tasks = task_names()[: options.tasks]
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["LTHBENCH_CACHE"] = f"{scratch}/cache"
        kept = options.board or Path(scratch) / "kept"
        if not (kept / "ledger.jsonl").is_file():
            synthetic_board(kept, options.entries, tasks, distinct=options.distinct)
        board, out = Path(scratch) / "board", Path(scratch) / "site"
        shutil.copytree(kept, board)
        took = [once("from nothing", board, out)]
        synthetic_board(
            board, options.entries + 1, tasks, distinct=options.distinct, first=options.entries
        )
        took.append(once("one record more", board, out))
        took.append(once("nothing changed", board, out))
        if not options.few:
            shutil.rmtree(out)
            took.append(once("from nothing, ranks known", board, out))
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
        print(f"{options.entries:,} entries of {len(tasks)} tasks, {cores} cores")
        rows = [
            (t.what, f"{t.wall:.1f}", f"{t.processor:.1f}", f"{t.memory / 1024:,.0f}",
             t.said.partition(": ")[2])
            for t in took
        ]  # fmt: skip
        head = ("build", "s", "processor s", "MiB, one process", "files")
        print(tabulate(rows, head, disable_numparse=True))
        sizes = [
            (name, f"{(out / name).stat().st_size / 1000:,.0f}")
            for name in ("index.html", "entries.html", f"tasks/{tasks[0]}.html")
        ]
        sizes.append(("all", f"{sum(p.stat().st_size for p in out.rglob('*')) / 1000:,.0f}"))
        print("\n" + tabulate(sizes, ("page", "kB"), disable_numparse=True))
        if not options.no_browser:
            head = ("page", "table", "rows", "sort, ms", "longest", "of its thread", "longest")
            print("\n" + tabulate(sorting(out), head, disable_numparse=True))


if __name__ == "__main__":
    main()
