"""Hostile methods in a sandbox: each ends in a line that says why, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from lthbench.errors import MethodError, ResourceError
from lthbench.evaluation.search import run, sandbox
from lthbench.evaluation.search.child_process import Child, Limits
from lthbench.evaluation.search.requests import Requests
from lthbench.evaluation.search.sandbox import Bounds
from lthbench.evaluation.search.session import Search
from lthbench.method.source import load_method
from lthbench.protocol import datasets
from lthbench.protocol.task import load_task
from lthbench.records import unmetered
from lthbench.training.executors.local import Here

REAL_PROCESSES = True  # as strange methods are run in

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = ROOT / "tests" / "hostile"
TASK = ROOT / "tests" / "tasks" / "tiny-digits.toml"
SEED = 1000
SECONDS = 120.0  # of a method's own: all but the sleepers end before, on a busy machine too
# A child with torch and an optimiser takes .8 GB before its method does anything.
SMALL = Bounds(memory=5 * 2**28, disk=2**26, wall=600.0, stored=2**28)
PATIENCE = 30.0


def cannot() -> str:
    """Why no sandbox can be made here; "" if one can."""
    try:
        sandbox.demand(SMALL)
    except ResourceError as error:
        return str(error)
    return ""


CANNOT = cannot()
needs_sandbox = pytest.mark.skipif(bool(CANNOT) and not os.environ.get("CI"), reason=CANNOT)


@dataclass
class Watched:
    """Starts sandboxes and notes the process namespace of each, by which its processes are known.

    Looking for names or parents would miss a process that has left its parents behind.
    """

    bounds: Bounds = SMALL
    namespaces: list[str] = field(default_factory=list)

    async def start(self, home: Path) -> Child:
        child = await sandbox.start(self.bounds)(home)
        assert isinstance(child, sandbox.Sandboxed)
        outermost = psutil.Process(child.process.pid)
        end = time.monotonic() + PATIENCE
        while not (inside := outermost.children()) and time.monotonic() < end:
            await asyncio.sleep(0.01)
        self.namespaces.append(namespace(inside[0].pid))
        assert self.namespaces[-1] not in ("", namespace(os.getpid()))
        return child

    def left(self) -> list[int]:
        """Processes of these sandboxes that are still there."""
        return [p for p in psutil.pids() if namespace(p) in self.namespaces]


def namespace(process: int) -> str:
    """The process namespace that a process is in; "" where it has ended."""
    with contextlib.suppress(OSError):
        return str(Path(f"/proc/{process}/ns/pid").readlink())
    return ""


@pytest.fixture
def watched(cache: Path) -> Iterator[Watched]:
    """A starter of sandboxes; none of their processes may be left in the end."""
    started = Watched()
    yield started
    assert started.namespaces
    assert started.left() == []


Table = dict[str, Any]  # the header of a request


def search(
    name: str, watched: Watched, folder: Path, seconds: float = SECONDS, **options: Any
) -> Search:
    """Run one method at one seed of a tiny task, as level 3 does."""
    if CANNOT:
        pytest.fail(CANNOT)  # CI must be able to
    path = HOSTILE / f"{name}.py"
    method = load_method(
        str(path) if path.is_file() else name, {k: str(v) for k, v in options.items()}
    )
    task = load_task(str(TASK))
    datasets.prepare(task, download=False)
    (ended,) = asyncio.run(
        run.find(
            method,
            task,
            (SEED,),
            folder,
            Here(),
            run.Conditions(Limits(seconds), start=watched.start),
        )
    )
    return ended


def refused(name: str, why: str, watched: Watched, folder: Path, **options: Any) -> str:
    """The line that a hostile method ends in, which gives this reason."""
    with pytest.raises(MethodError) as caught:
        search(name, watched, folder, **options)
    said = str(caught.value)
    assert "\n" not in said
    assert "LET THROUGH" not in said + "".join(getattr(caught.value, "__notes__", []))
    assert re.search(why, said), said
    return said


@pytest.mark.slow
@needs_sandbox
def test_an_honest_method_ends_in_the_same_tickets(watched: Watched, tmp_path: Path) -> None:
    """Inside as outside: the sandbox changes nothing that a method may see."""
    inside = search("oneshot", watched, tmp_path / "inside")
    task, method = load_task(str(TASK)), load_method("oneshot")
    (outside,) = asyncio.run(
        run.find(
            method,
            task,
            (SEED,),
            tmp_path / "outside",
            Here(),
            run.Conditions(Limits(SECONDS)),
        )
    )
    assert inside.rungs == outside.rungs
    assert 0 < inside.processor < unmetered.allowance(inside.pace, inside.steps, 3) / 2
    assert inside.status == "ok"


@pytest.mark.slow
@needs_sandbox
def test_passwords(watched: Watched, tmp_path: Path) -> None:
    refused("reads_shadow", "No such file or directory: '/etc/shadow'", watched, tmp_path)


GONE = r"No such file|Permission denied|Read-only|not permitted"
READS = {
    "the cache": lambda tmp, cache: cache,
    "prepared test data": lambda tmp, cache: cache / "data" / "digits" / "fold0.test.safetensors",
    "the results": lambda tmp, cache: tmp,
    "the repository": lambda tmp, cache: ROOT / "pyproject.toml",
    "the folder above it": lambda tmp, cache: ROOT.parent / "shared",
    "root's home": lambda tmp, cache: Path("/root/.bashrc"),
    "the disk": lambda tmp, cache: Path("/dev/vda"),
    "the machine's memory": lambda tmp, cache: Path("/proc/kcore"),
}


@needs_sandbox
@pytest.mark.slow
@pytest.mark.parametrize("what", READS)
def test_files_of_the_machine(what: str, watched: Watched, cache: Path, tmp_path: Path) -> None:
    path = READS[what](tmp_path, cache)
    refused("reads_files", GONE, watched, tmp_path / "out", path=path)


@needs_sandbox
@pytest.mark.slow
def test_secrets_of_the_environment(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of this process's environment is inside, in no process that can be seen there."""
    monkeypatch.setenv("LTHBENCH_SECRET", "sesame-open")
    refused("reads_environment", "no secret", watched, tmp_path, secret="sesame-open")


# A name of a file, and what its one line must say.
SIMPLE = {
    "writes_kernel": GONE,
    "writes_package": GONE,
    "mounts": GONE,
    "kills_parent": "nobody was killed|exit status",
    "fills_disk": r"No space left on device after [1-9]\d? MB",
    "crashes": "exit status",
    "threads": "can't start new thread|processes at once|of memory",
    "forks": r"\d+ processes at once|of memory",
    "forks_doubling": r"\d+ processes at once|of memory",
    "eats_memory": "allocate memory|of memory|MemoryError",
    "eats_shared_memory": "of memory|allocate memory",
    "sends_garbage": "no message",
    "sends_3_gb": "no message",
    "sends_1_gb": "no message",
    "prints_for_ever": "printed more than",
    "asks_too_deep": "no method's call makes .*depth is 1000000000",
    "turns_meter_back": "no method's call makes .*count is -1000000",
    "hoards": r"GB are stored for it",
}


@needs_sandbox
@pytest.mark.slow
@pytest.mark.parametrize("name", SIMPLE)
def test_attacks(name: str, watched: Watched, tmp_path: Path) -> None:
    before = shutil.disk_usage(tmp_path).free
    refused(name, SIMPLE[name], watched, tmp_path)
    assert before - shutil.disk_usage(tmp_path).free < 2**30  # others write here too


@needs_sandbox
@pytest.mark.slow
def test_the_user_s_home(watched: Watched, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    refused("writes_home", GONE, watched, tmp_path / "out", home=home)
    assert list(home.iterdir()) == []


@needs_sandbox
@pytest.mark.slow
def test_files_that_the_coordinator_would_write(watched: Watched, tmp_path: Path) -> None:
    """A number that is a path: the coordinator is outside, and may write where the user may."""
    why = "no method's call makes .*number is '/../"
    refused("climbs_out", why, watched, tmp_path / "out", path=tmp_path / "climbed")
    assert not list(tmp_path.glob("climbed*"))


@needs_sandbox
@pytest.mark.slow
@pytest.mark.parametrize("way", ["count", "cost", "snapshot"])
def test_a_bill_that_is_turned_back(way: str, watched: Watched, tmp_path: Path) -> None:
    refused("turns_meter_back", "no method's call makes", watched, tmp_path, way=way)


@pytest.mark.slow
@needs_sandbox
@pytest.mark.parametrize("way", ["here", "forked"])
def test_what_the_meter_does_not_see(way: str, watched: Watched, tmp_path: Path) -> None:
    """The time of all processes of a sandbox, and of those that nobody waited for."""
    watched.bounds = replace(SMALL, memory=2**32)  # pages that a fork shares are counted twice
    ended = search("trains_on_kept_batches", watched, tmp_path, way=way)
    allowed = unmetered.allowance(ended.pace, ended.steps, len(ended.rungs))
    assert ended.pace > 0 and ended.cost < 0.05
    assert ended.processor + sandbox.WATCHED_EVERY > 8 and allowed < ended.processor < 20


LOOP: Table = {"op": "loop", "number": 1, "steps": 10, "cost": "gradient", "depth": 1}
SNAPSHOT: Table = {"op": "snapshot", "number": 1, "step": 5, "loops": 1, "snapshot": {"value": 1}}
TRAIN: Table = {
    "op": "train", "depth": 3, "step": 0, "masked": False, "until": 10, "order": -1
}  # fmt: skip
THETA: Table = {"op": "theta", "depth": 1, "k": 1}
SOME: Table = {"op": "examples", "depth": 1, "count": 1, "name": "x", "cost": "forward"}
TICKET: Table = {"op": "ticket", "start": 0, "trained": True, "masks": {"a": "list"}, "step": None}
FAILURE: Table = {
    "op": "error", "type": "X", "message": "", "left_out": False, "line": None, "trace": ""
}  # fmt: skip


@pytest.mark.parametrize(
    ("header", "why"),
    [
        (SNAPSHOT | {"number": "1"}, "number is '1'"),
        (SNAPSHOT | {"number": 2}, "loop 2 was not begun"),
        (SNAPSHOT | {"step": [1]}, "step is .1."),
        (LOOP, "loop 1 was begun already"),
        (LOOP | {"number": None}, "number is None"),
        (LOOP | {"number": 2, "cost": "nothing"}, "cost is 'nothing'"),
        (LOOP | {"number": 2, "cost": ["forward"]}, "cost is "),
        (LOOP | {"number": 2, "paid": True}, "paid is True"),
        (TRAIN | {"until": float("nan")}, "until is nan"),
        (TRAIN | {"until": 10.0}, "until is 10.0"),
        (TRAIN | {"order": "x" * 100}, "order is 'xxx"),
        (TRAIN | {"masked": 0}, "masked is 0"),
        (THETA | {"k": True}, "k is True"),
        (THETA | {"depth": 0}, "depth is 0"),
        (SOME | {"cost": float("nan")}, "cost is nan"),
        (SOME | {"cost": 1.0}, "cost is 1.0"),
        (SOME | {"name": {"a": 1}}, "name is "),
        (TICKET | {"masks": {"a": 1}}, "masks is "),
        (TICKET | {"trained": "yes"}, "trained is 'yes'"),
        (FAILURE | {"line": "1"}, "line is '1'"),
        (FAILURE | {"message": ["x"]}, "message is "),
        ({"op": "pace", "pace": -1.0}, "pace is -1.0"),
        ({"op": "pace", "pace": float("inf")}, "pace is inf"),
    ],
)
def test_requests_that_no_call_makes(header: Table, why: str) -> None:
    requests = Requests()
    for honest in (LOOP, SNAPSHOT, TRAIN, THETA, SOME, TICKET, FAILURE, {"op": "end"}):
        assert requests.read(honest).op == honest["op"]
    with pytest.raises(MethodError, match=f"no method's call makes .*{why}"):
        requests.read(header)


@pytest.mark.parametrize("honest", [LOOP, SNAPSHOT, TRAIN, THETA, SOME, TICKET, FAILURE])
def test_a_request_without_one_of_its_fields(honest: Table) -> None:
    """Nothing is supposed in its place, and nothing fails for want of it."""
    for name in honest.keys() - {"op"}:
        header = {key: value for key, value in honest.items() if key != name}
        with pytest.raises(MethodError, match=f"no method's call makes .*{name} is None"):
            Requests().read(header)


@pytest.mark.parametrize("op", [None, "", "stop", 1, ["train"], {"train": 1}, "x" * 10**6])
def test_a_request_for_nothing_that_there_is(op: object) -> None:
    with pytest.raises(MethodError, match="unknown request") as caught:
        Requests().read({"op": op})
    assert len(str(caught.value)) < 100


@needs_sandbox
@pytest.mark.slow
def test_the_network(watched: Watched, tmp_path: Path) -> None:
    """Not even this machine: nobody knocks at a port that listens here."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        port = server.getsockname()[1]
        refused("connects", "refused|unreachable|not permitted", watched, tmp_path, port=port)
        with pytest.raises(BlockingIOError):
            server.accept()


@needs_sandbox
@pytest.mark.slow
def test_this_process_is_not_killed(watched: Watched, tmp_path: Path) -> None:
    refused("kills_parent", "nobody|exit status", watched, tmp_path, coordinator=os.getpid())


@needs_sandbox
@pytest.mark.slow
@pytest.mark.parametrize("name", ["sleeps", "spins"])
def test_never_ending(name: str, watched: Watched, tmp_path: Path) -> None:
    """By the coordinator's clock, which counts a method's own time alone."""
    with pytest.raises(MethodError, match="of its own time"):
        search(name, watched, tmp_path, seconds=10.0)


@needs_sandbox
@pytest.mark.slow
def test_by_the_wall_s_clock(watched: Watched, tmp_path: Path) -> None:
    """The sandbox's own, which ends one while the coordinator does not look."""
    watched.bounds = replace(SMALL, wall=5.0)
    refused("sleeps", "more than 5 s from start to end", watched, tmp_path)


@needs_sandbox
@pytest.mark.slow
def test_by_the_processor_s_clock(watched: Watched, tmp_path: Path) -> None:
    """The kernel's."""
    watched.bounds = replace(SMALL, processor=8)
    refused("spins", "exit status", watched, tmp_path)


@needs_sandbox
@pytest.mark.slow
def test_memory_that_no_process_shows(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The machine itself is looked at: it must keep what it had, less what a test may take."""
    free = psutil.virtual_memory().available
    monkeypatch.setattr(sandbox, "RESERVE", free - 3 * 2**30)
    refused("eats_nameless_files", "of the machine's memory|Too many open files", watched, tmp_path)


@needs_sandbox
@pytest.mark.slow
def test_a_daemon_does_not_outlive_its_method(watched: Watched, tmp_path: Path) -> None:
    """The method ends as if all were well, and is judged by its tickets; the rest is gone."""
    ended = search("leaves_daemon", watched, tmp_path)
    assert ended.status == "ok"
    assert len(ended.rungs) == 3


@needs_sandbox
def test_it_ends_with_the_coordinator(tmp_path: Path) -> None:
    """Killed without a chance to clear up, it takes the sandbox with it."""
    script = (
        "import os, subprocess, sys\n"
        "from lthbench.evaluation.search.sandbox import *\n"
        "from lthbench.evaluation.search.sandbox import _environment\n"
        "inside = 'import time; time.sleep(1000)'\n"
        "p = subprocess.Popen(command(Bounds(), '-I', '-S', '-c', inside), env=_environment())\n"
        "print(p.pid, flush=True)\n"
        "p.wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout
    outermost = psutil.Process(int(parent.stdout.readline()))
    end = time.monotonic() + PATIENCE
    while len(inside := outermost.children(recursive=True)) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(inside) >= 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs([outermost, *inside], PATIENCE)
    assert alive == []


def test_a_clock_that_is_set_ends_no_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a year forward, which would end all at once, nor back, which would end none."""
    me, late = psutil.Process(), replace(SMALL, memory=2**40, processes=10**6, wall=60.0)
    for moved in (3e7, -3e7):
        monkeypatch.setattr(time, "time", lambda moved=moved: 1.7e9 + moved)
        assert sandbox.excess(me, time.monotonic(), late) == ""
        assert "from start to end" in sandbox.excess(me, time.monotonic() - 61, late)


def test_what_is_too_much() -> None:
    """Processes and memory of the whole tree, and what is left of the machine."""
    me = psutil.Process()
    sleepers = [subprocess.Popen(["sleep", "1000"]) for _ in range(3)]
    try:
        now = time.monotonic()
        assert sandbox.excess(me, now, replace(SMALL, memory=2**40, wall=1e9)) == ""
        few = replace(SMALL, processes=3, memory=2**40)
        assert re.match(r"\d+ processes at once; at most 3", sandbox.excess(me, 0.0, few))
        assert "of memory; at most" in sandbox.excess(me, 0.0, replace(SMALL, memory=2**20))
        late = replace(SMALL, memory=2**40, wall=1.0)
        assert "from start to end" in sandbox.excess(me, now - 2, late)
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()


def test_without_bubblewrap(monkeypatch: pytest.MonkeyPatch) -> None:
    """It refuses to run at all, in one line that says what to install."""
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None if name == "bwrap" else name)
    with pytest.raises(ResourceError, match=r"bwrap is needed .* install bubblewrap") as caught:
        sandbox.start()
    assert "\n" not in str(caught.value)


def test_where_namespaces_are_forbidden(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to\nnew namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    which = shutil.which
    monkeypatch.setattr(
        sandbox.shutil, "which", lambda name: str(broken) if name == "bwrap" else which(name)
    )
    with pytest.raises(ResourceError, match="No permissions to new namespace") as caught:
        sandbox.start()
    assert "\n" not in str(caught.value)


@needs_sandbox
def test_a_checkout_in_a_folder_that_the_sandbox_has_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under /tmp, as of many a CI: it is seen, alone and read-only, beside the sandbox's own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        package = Path(folder) / "checkout" / "lthbench"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("")
        (package.parent / "secret").write_text("")
        monkeypatch.setattr(sandbox, "PACKAGE", package)
        script = (
            "import os, lthbench; here = os.path.dirname(lthbench.__path__[0]);"
            "print(os.listdir(here), os.access(here + '/lthbench', os.W_OK), os.getcwd());"
            "open('/tmp/mine', 'w'); open('mine', 'w')"
        )
        told = subprocess.run(
            sandbox.command(SMALL, "-P", "-c", script),
            env=sandbox._environment(),
            capture_output=True,
            text=True,
            check=True,
        )
    assert told.stdout == "['lthbench'] False /home/method\n"


def test_nothing_but_programs_and_the_package_is_shown() -> None:
    """Each folder of the machine that is inside is read-only and one of a few."""
    given = sandbox.command(Bounds(), "-c", "")
    assert not {"--bind", "--dev-bind", "--share-net"} & set(given)
    shown = {given[i + 1] for i, word in enumerate(given) if word == "--ro-bind"}
    assert str(sandbox.PACKAGE) in shown or any(
        sandbox.PACKAGE.is_relative_to(path) for path in shown
    )
    for forbidden in (
        ROOT,
        ROOT.parent,
        Path("/"),
        Path("/etc"),
        Path("/root"),
        Path("/home"),
        Path.home(),
    ):
        assert str(forbidden) not in shown
