"""Writes into the folder that its own folder lies in."""

from pathlib import Path

from lthbench import Problem


def find_tickets(problem: Problem):
    Path("notes.txt").write_text("its own folder is fine")
    Path("../notes.txt").write_text("another is not")
    yield
