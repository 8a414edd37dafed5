"""Starts a process."""

import subprocess
import sys

from lthbench import Problem


def find_tickets(problem: Problem):
    subprocess.run([sys.executable, "-c", "print(1)"], check=True)
    yield
