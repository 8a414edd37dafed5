"""What a method's process is refused: each call that would read or write where none may.

Every call is tried by a process that guards itself, once with the kernel's help and once without;
what only the kernel refuses is listed apart. Nothing that is tried does any harm.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lthbench.method import landlock

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="paths are those of Linux")

# Calls by name, in a process whose own folder is `home`; `outside` is a folder beside it with a
# file, `closed` one that may not be read, both as strings.
HOOKED = {
    "reads a closed file": "open(closed + '/a.txt').read()",
    "reads a test file": "open(outside + '/test.safetensors')",
    "writes": "open(outside + '/new', 'w')",
    "torch.save": "torch.save({}, outside + '/new')",
    "torch.load": "torch.load(closed + '/a.txt')",
    "torch reader": "torch._C.PyTorchFileReader(closed + '/a.txt')",
    "torch.from_file": "torch.from_file(closed + '/a.txt', size=1, dtype=torch.uint8)",
    "torch.from_file, shared": (
        "torch.from_file(outside + '/new', shared=True, size=1, dtype=torch.uint8)"
    ),
    "storage": "torch.UntypedStorage.from_file(closed + '/a.txt', False, 1)",
    "typed storage": "torch.FloatStorage.from_file(closed + '/a.txt', False, 1)",
    "safetensors": "safetensors.torch.load_file(closed + '/a.txt')",
    "safetensors, saved": "safetensors.torch.save_file({}, outside + '/new')",
    "numpy": "numpy.fromfile(closed + '/a.txt')",
    "numpy, saved": "numpy.zeros(1).tofile(outside + '/new')",
    "sqlite3": "sqlite3.connect(outside + '/new')",
    "sqlite3, as an address": "sqlite3.connect('file:' + closed + '/a.txt?mode=ro', uri=True)",
    "os.chmod": "os.chmod(outside + '/a.txt', 0o600)",
    "os.chmod, in a folder": "os.chmod('a.txt', 0o600, dir_fd=os.open(outside, os.O_RDONLY))",
    "os.fchmod": "os.fchmod(os.open(outside + '/a.txt', os.O_RDONLY), 0o600)",
    "os.chown": "os.chown(outside + '/a.txt', os.getuid(), os.getgid())",
    "os.utime": "os.utime(outside + '/a.txt')",
    "os.setxattr": "os.setxattr(outside + '/a.txt', 'user.a', b'')",
    "os.removexattr": "os.removexattr(outside + '/a.txt', 'user.a')",
    "os.mkfifo": "os.mkfifo(outside + '/new')",
    "os.mknod": "os.mknod(outside + '/new')",
    "os.mkdir": "os.mkdir(outside + '/new')",
    "os.mkdir, in a folder": "os.mkdir('new', dir_fd=os.open(outside, os.O_RDONLY))",
    "os.rmdir": "os.rmdir(outside + '/empty')",
    "os.link": "os.link(outside + '/a.txt', 'linked')",
    "os.link, out": "os.link('own.txt', outside + '/new')",
    "os.symlink": "os.symlink('own.txt', outside + '/new')",
    "os.rename": "os.rename('own.txt', outside + '/new')",
    "os.remove": "os.remove(outside + '/a.txt')",
    "os.remove, in a folder": "os.remove('a.txt', dir_fd=os.open(outside, os.O_RDONLY))",
    "os.truncate": "os.truncate(outside + '/a.txt', 0)",
    "shutil.rmtree": "shutil.rmtree(outside + '/empty')",
    "a socket": "socket.socket()",
    "a process": "subprocess.run(['true'])",
    "a fork": "os.fork()",
    "a signal": "os.kill(os.getppid(), 0)",
}
# Below Python, or where its events do not tell enough.
KERNEL = {
    "os.open, in a folder": (
        "os.open('closed/a.txt', os.O_RDONLY, dir_fd=os.open(closed + '/..', os.O_RDONLY))"
    ),
    "os.open, writing": "os.open('a.txt', os.O_WRONLY, dir_fd=os.open(outside, os.O_RDONLY))",
    "ctypes, reading": "opened(libc.open((closed + '/a.txt').encode(), os.O_RDONLY))",
    "ctypes, writing": "opened(libc.open((outside + '/a.txt').encode(), os.O_WRONLY))",
    "ctypes, cutting": "opened(libc.truncate((outside + '/a.txt').encode(), 0))",
    "ctypes, making": "opened(libc.mkdir((outside + '/new').encode(), 0o700))",
    "sqlite3, attached": "sqlite3.connect('').execute('attach ? as b', (outside + '/new',))"
    ".execute('create table b.c (d)')",
    "a library of later": "pyarrow().memory_map(closed + '/a.txt')",
    "the parent's environment": "open(f'/proc/{os.getppid()}/environ').read()",
    "the parent's command line": "open(f'/proc/{os.getppid()}/cmdline').read()",
    "the parent's folder": "os.readlink(f'/proc/{os.getppid()}/cwd')",
    "the parent's memory": "open(f'/proc/{os.getppid()}/maps').read()",
}
ALLOWED = {
    "reads elsewhere": "open(outside + '/a.txt').read()",
    "lists": "os.listdir(closed)",
    "the system": "open('/proc/cpuinfo').read()",
    "itself": "open('/proc/self/status').read()",
    "a package": "importlib.import_module('sklearn.datasets').load_digits()",
    "nowhere": "open(os.devnull, 'w').write('a')",
    "writes": "open('new', 'w').write('a')",
    "makes and removes": "os.makedirs('b/c'); shutil.rmtree('b')",
    "moves": "os.rename('own.txt', 'moved'); os.utime('moved'); os.chmod('moved', 0o600)",
    "in a folder of its own": "os.mkdir('d', dir_fd=os.open('.', os.O_RDONLY))",
    "by a descriptor": "os.fchmod(os.open('other.txt', os.O_RDONLY), 0o600)",
    "saves and loads": "torch.save({'a': torch.zeros(1)}, 'a.pt'); torch.load('a.pt', mmap=True)",
    "torch.from_file": (
        "torch.from_file('mapped', shared=True, size=1, dtype=torch.uint8).fill_(1)"
    ),
    "sqlite3": "sqlite3.connect('a.db').execute('create table b (c)')",
    "sqlite3, in memory": "sqlite3.connect(':memory:').execute('create table b (c)')",
    "a temporary folder": "tempfile.TemporaryDirectory().cleanup()",
    "a signal to itself": "os.kill(os.getpid(), 0)",
}
PROGRAM = """
import ctypes, importlib, json, os, shutil, socket, sqlite3, subprocess, sys, tempfile, warnings
import numpy, safetensors.torch, torch
from pathlib import Path
from lthbench.method import audit_hook as guard, landlock

warnings.simplefilter("ignore")
given = json.load(sys.stdin)
closed, outside = given["closed"], given["outside"]
if not given["kernel"]:
    landlock.confine = lambda *_: False
libc = ctypes.CDLL(None, use_errno=True)

def opened(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

def pyarrow():
    return importlib.import_module("pyarrow")

guard.install(Path.cwd(), [Path(closed)])
told = {}
for name, call in given["calls"].items():
    try:
        exec(call)
        told[name] = "done"
    except Exception as error:
        told[name] = f"{type(error).__name__}: {error}"
print(json.dumps(told))
"""


def tried(folder: Path, calls: dict[str, str], *, kernel: bool) -> dict[str, str]:
    """What each call came to in a guarded process: "done", or the error."""
    places = {name: folder / name for name in ("home", "outside", "closed")}
    for place in places.values():
        place.mkdir()
        (place / "a.txt").write_text("aaaa")
    (places["outside"] / "empty").mkdir()
    (places["outside"] / "test.safetensors").write_text("")
    for name in ("own.txt", "other.txt"):
        (places["home"] / name).write_text("")
    given = {name: str(place) for name, place in places.items()}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM],
        input=json.dumps({**given, "calls": calls, "kernel": kernel}),
        cwd=places["home"],
        env=os.environ | {"TMPDIR": str(places["home"]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, str] = json.loads(done.stdout)
    left = sorted(path.name for path in (*places["outside"].iterdir(), *places["closed"].iterdir()))
    assert left == ["a.txt", "a.txt", "empty", "test.safetensors"]
    assert all((places[name] / "a.txt").read_text() == "aaaa" for name in ("outside", "closed"))
    return told


needs_landlock = pytest.mark.skipif(landlock.version() < 3, reason="a kernel without Landlock")


def refused(said: str) -> bool:
    return "a method may not" in said or "ermission denied" in said or "unable to open" in said


def test_the_hook_alone_refuses_what_python_tells_of(tmp_path: Path) -> None:
    """Each in its own words."""
    told = tried(tmp_path, HOOKED, kernel=False)
    assert [name for name, said in told.items() if "a method may not" not in said] == []


@needs_landlock
def test_the_kernel_refuses_what_python_does_not_tell_of(tmp_path: Path) -> None:
    """What the coordinator was told, and files that are opened below Python."""
    told = tried(tmp_path, HOOKED | KERNEL, kernel=True)
    assert {name: said for name, said in told.items() if not refused(said)} == {}


@pytest.mark.slow
@pytest.mark.parametrize("kernel", [pytest.param(True, marks=needs_landlock), False])
def test_what_a_method_may_do(tmp_path: Path, kernel: bool) -> None:
    told = tried(tmp_path, ALLOWED, kernel=kernel)
    assert {name: said for name, said in told.items() if said != "done"} == {}
