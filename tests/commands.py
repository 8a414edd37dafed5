"""The command line as a user types it: in this process, or in one of its own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from lthbench.cli import main

Done = subprocess.CompletedProcess[str]


def run(*arguments: str, cwd: Path, **environment: str) -> Done:
    """The command line in this process, which has imported torch already."""
    out, errors = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(errors):
        patch.chdir(cwd)
        patch.setattr(sys, "argv", ["lthbench", *arguments])
        for name, value in environment.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            main.main()
    return Done(arguments, int(ended.value.code or 0), out.getvalue(), errors.getvalue())


def spawn(*arguments: str, cwd: Path, **environment: str) -> Done:
    """The command line in a process of its own, which takes seconds to import torch."""
    return subprocess.run(
        [sys.executable, "-m", "lthbench", *arguments],
        cwd=cwd,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
