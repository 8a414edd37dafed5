"""Killed at any moment and started again, an evaluation ends in the same record."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from lthbench.io import messages
from lthbench.records.schema import comparable, read_record
from lthbench.training import dispatch
from tests.watching import Watch

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "tests" / "tasks" / "tiny-digits.toml"
NAME = "to-be-killed"
LARGER = {  # some seconds of work: long enough to be killed anywhere
    'name = "tiny-digits"': f'name = "{NAME}"',
    "width = 24": "width = 100",
    "steps = 120": "steps = 450",
    "every = 12\n": "every = 45\n",
    "compressed_density = 0.2": "",
    "trained = [0.5, 0.2, 0.1]": "trained = [0.5, 0.2]",
    "rewind_limit = 12": "rewind_limit = 0",
}
SEED = 1000
PATIENCE = 120.0  # seconds for what should take a few
PHASES = ("create", "close", "move")  # inside the writing, before the rename, after it
RANDOM_KILLS, PART_KILLS = 4, 2  # of each method
TRIES = 3  # runs for each kill: one may end before its moment comes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="watches folders through inotify"),
]


@dataclass
class Place:
    """One evaluation's folders: a cwd by which its processes are known, results, and a cache."""

    root: Path
    method: str
    kills: list[str] = field(default_factory=list)

    @property
    def out(self) -> Path:
        return self.root / "out"

    @property
    def task(self) -> Path:
        return self.out / NAME

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    def folders(self) -> dict[str, Path]:
        """Every folder that files are renamed in, by what is written there."""
        seed = f"seed{SEED}"
        return {
            "out": self.out,
            "task": self.task,
            "store": self.task / "store" / seed,
            "tickets": self.task / "tickets" / seed,
            "cells": self.task / "cells",
            "shared": self.cache / "cells" / dispatch.arithmetic(),
            "data": self.cache / "data" / "digits",
        }

    def start(self, workers: int = 1, **environment: str) -> subprocess.Popen[bytes]:
        self.root.mkdir(parents=True, exist_ok=True)
        (self.root / f"{NAME}.toml").write_text(larger())
        arguments = ["evaluate", self.method, "--task", f"{NAME}.toml", "--seeds", "1"]
        arguments += ["--workers", str(workers), "--out", str(self.out)]
        return subprocess.Popen(
            [sys.executable, "-m", "lthbench", *arguments],
            cwd=self.root,
            env=os.environ | {"LTHBENCH_CACHE": str(self.cache)} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )

    def finish(self, workers: int = 1, **environment: str) -> bytes:
        """Run to the end; what must be equal of the record."""
        process = self.start(workers, **environment)
        _, errors = process.communicate(timeout=10 * PATIENCE)
        assert process.returncode == 0, errors.decode()
        return comparable(read_record(self.task / "record.json"))

    def alive(self) -> list[psutil.Process]:
        """Processes whose working folder lies in this place: coordinator, child, workers."""
        found = []
        for process in psutil.process_iter():
            try:
                if Path(process.cwd()).is_relative_to(self.root.resolve()):
                    found.append(process)
            except (psutil.Error, OSError):
                continue
        return [p for p in found if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]

    def quiet(self) -> None:
        """No process of the run is alive, and every file is whole."""
        end = time.monotonic() + 10
        while (left := self.alive()) and time.monotonic() < end:
            time.sleep(0.05)
        assert not left, left
        for path in [p for p in self.root.rglob("*") if p.is_file()]:
            if not path.name.startswith(".tmp-") and "home" not in path.parts:
                whole(path)


def larger() -> str:
    """The tiny task, made larger."""
    text = TINY.read_text()
    for old, new in LARGER.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


def whole(path: Path) -> None:
    """Fail if a file that has its name is not complete."""
    data = path.read_bytes()
    if path.suffix == ".json":
        json.loads(data)
    elif path.suffix == ".safetensors" and "data" not in path.parts:
        messages.loads(data)
    elif path.suffix == ".safetensors":
        from safetensors.numpy import load

        load(data)
    elif path.suffix == ".html":
        assert data.rstrip().endswith(b"</html>"), path
    else:
        assert path.name == "lock" or data, path


def kill_when(place: Place, due: Callable[[Watch, float], bool], what: str) -> bool:
    """Start, kill the coordinator by -9 once `due` says so, and look at what is left."""
    for folder in place.folders().values():
        folder.mkdir(parents=True, exist_ok=True)
    watch, process = Watch(list(place.folders().values())), place.start()
    began, killed = time.monotonic(), False
    while process.poll() is None and not killed:
        if due(watch, time.monotonic() - began):
            process.send_signal(signal.SIGKILL)
            killed = True
            place.kills.append(what)
    watch.close()
    _, errors = process.communicate(timeout=PATIENCE)
    place.quiet()
    assert killed or process.returncode == 0, errors.decode()
    return killed


def at_event(
    place: Place, kind: str, phase: str, final: str, others: int
) -> Callable[[Watch, float], bool]:
    """Due at a phase of writing a kind of file.

    A rename is known by the name it gives; a file that is still being written only by the number
    of others that its folder gets first.
    """
    folder = place.folders()[kind]
    renamed = 0

    def due(watch: Watch, _: float) -> bool:
        nonlocal renamed
        for seen, where, name in watch.next(0.5):
            if where != folder:
                continue
            if seen == phase and (final in name if seen == "move" else renamed >= others):
                return True
            renamed += seen == "move"
        return False

    return due


Uninterrupted = tuple[bytes, float]  # what must be equal of the record, and the seconds it took


@pytest.fixture(scope="class")
def uninterrupted(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Uninterrupted:
    """A class's method, left alone, with one worker."""
    began = time.monotonic()
    record = Place(tmp_path_factory.mktemp("uninterrupted"), request.cls.method).finish()
    return record, time.monotonic() - began


@pytest.fixture
def expected(uninterrupted: Uninterrupted) -> bytes:
    return uninterrupted[0]


class Kills:
    """What holds for every method; the classes run beside each other."""

    method: str
    # In the order in which an evaluation writes them: folder, part of the name, and how many other
    # files the folder gets before it in one run.
    kinds: tuple[tuple[str, str, int], ...]

    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Place(tmp_path, self.method)

    def test_workers_and_hashing_change_nothing(self, expected: bytes, place: Place) -> None:
        assert place.finish(workers=2, PYTHONHASHSEED="123") == expected

    def moments(self) -> Iterator[tuple[tuple[str, str, int], str]]:
        """Each kind of file in one phase in turn, the last in all: one function writes them."""
        for number, kind in enumerate(self.kinds):
            last = number == len(self.kinds) - 1
            for phase in PHASES if last else PHASES[number % len(PHASES) :][:1]:
                yield kind, phase

    def test_killed_at_every_file(self, expected: bytes, place: Place) -> None:
        for (folder, final, others), phase in self.moments():
            for path in place.folders()[folder].glob(f"*{final}*"):
                path.unlink()  # the last kill may have come late: let it be written again
            due = at_event(place, folder, phase, final, others)
            assert kill_when(place, due, f"{folder}/{final} {phase}"), f"{folder} {phase}: not seen"
        assert place.finish() == expected
        assert not list(place.out.rglob(".tmp-*"))  # the cache is shared: nobody may sweep it
        assert len(place.kills) == len(self.kinds) + len(PHASES) - 1

    def test_killed_at_random_times(self, uninterrupted: Uninterrupted, place: Place) -> None:
        (expected, seconds), wanted = uninterrupted, RANDOM_KILLS
        draw = random.Random(Path(self.method).stem)
        for number in range(TRIES * wanted):
            if len(place.kills) == wanted:
                break
            moment = draw.uniform(0.0, 0.8 * seconds)

            def due(watch: Watch, since: float, moment: float = moment) -> bool:
                watch.next(0.01)
                return since >= moment

            if not kill_when(place, due, f"random {number}"):
                shutil.rmtree(place.out)  # it ended before: the next begins anew
        assert len(place.kills) == wanted
        assert place.finish() == expected

    def test_a_killed_child_or_worker_ends_the_run(self, expected: bytes, place: Place) -> None:
        draw = random.Random(Path(self.method).stem)
        killed, wanted = 0, PART_KILLS
        for number in range(TRIES * wanted):
            if killed == wanted:
                break
            process = place.start()
            victim = _part(place, process, child=number % 2 == 0)
            wait = draw.uniform(0.0, 1.0)
            time.sleep(wait)
            running = victim is not None and victim.is_running()
            if victim is not None and running:
                victim.kill()
            _, errors = process.communicate(timeout=10 * PATIENCE)
            place.quiet()
            if process.returncode:
                lines = errors.decode().strip().splitlines()
                assert process.returncode == 2, errors.decode()
                assert lines[-1].startswith("lthbench: ") and "Traceback" not in errors.decode()
                killed += running
            else:
                shutil.rmtree(place.out)  # it ended before, or did without: the next begins anew
        assert killed == wanted
        assert place.finish() == expected


class TestTrain(Kills):
    method = "imp"
    kinds = (
        ("data", "fold0.train", 0),
        ("out", "evaluation.json", 0),
        ("task", "task.json", 0),
        ("store", "safetensors", 0),
        ("store", "calls.json", 1),
        ("tickets", "safetensors", 0),
        ("tickets", "search.json", 2),
        ("shared", "safetensors", 0),
        ("cells", "safetensors", 0),
        ("task", "record.json", 0),
        ("out", "report.html", 0),
    )


class TestLoop(Kills):
    method = str(ROOT / "tests" / "methods" / "long_loop.py")
    kinds = (("store", "loop1", 1),)  # what it alone writes


def _part(place: Place, process: subprocess.Popen[bytes], child: bool) -> psutil.Process | None:
    """The first child, which has a folder of its own, or the first worker that the run starts."""
    end = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < end:
        try:
            for one in psutil.Process(process.pid).children(recursive=True):
                if (Path(one.cwd()) != place.root.resolve()) == child:
                    return one
        except psutil.Error:
            continue
        time.sleep(0.05)
    return None
