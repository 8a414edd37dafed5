"""Processes of `python -m lthbench…` as forks of this one, which has imported torch already.

A start of Python with torch takes seconds, a fork none. What a fork is like: the same module
run in a process of its own, with the pipes, folder, environment and session that it was to have.
What it is not: of another hash seed, or free of what this process has imported and patched. Tests
that are about these start processes as they are.
"""

from __future__ import annotations

import importlib
import os
import runpy
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NoReturn

import pytest

# What most forks would import, each for itself; torch's first optimiser imports its compiler.
IMPORTED = ("torch._dynamo", "lthbench.method.child", "lthbench.training.executors.worker")
AT_START = ("PYTHONHASHSEED", "PYTHONIOENCODING")  # read by Python when it starts
POSSIBLE = sys.platform == "linux"  # elsewhere system libraries may not survive a fork
STREAMS = (0, "r"), (1, "w"), (2, "w")
FILES = 2**16  # more than a process has open


@contextmanager
def forked() -> Iterator[None]:
    """Within it such processes are forked, and those that they start."""
    begin = subprocess.Popen.__init__

    def forks(self: subprocess.Popen[bytes], args: Any, *rest: Any, **given: Any) -> None:
        words = [os.fspath(word) for word in args] if isinstance(args, (list, tuple)) else []
        environment = given.get("env") or os.environ
        alike = all(environment.get(name) == os.environ.get(name) for name in AT_START)
        at = 3 if words[1:2] == ["-P"] else 2
        module = words[at] if words[at - 1 : at] == ["-m"] and words[at:] else ""
        ours = words[:1] == [sys.executable] and module.split(".")[0] == "lthbench"
        if ours and alike and not given.get("preexec_fn"):
            for name in IMPORTED:
                importlib.import_module(name)  # once for all forks
            given["preexec_fn"] = partial(_become, module, words[at + 1 :], dict(environment))
        begin(self, args, *rest, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", forks)
        yield


def _become(module: str, arguments: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """In the fork, where its program would be loaded: run the module and end."""
    code: object = 1
    try:
        os.closerange(3, FILES)
        os.environ.clear()
        os.environ.update(environment)
        warnings.simplefilter("ignore")
        sys.argv[:] = [module, *arguments]
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, m, closefd=False) for n, m in STREAMS)
        runpy.run_module(module, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                continue
        os._exit(code if isinstance(code, int) else 1)
