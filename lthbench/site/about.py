"""The rules as the page tells them, from the constants that the scorer and the checks read."""

from __future__ import annotations

from typing import Any

from lthbench import citing, record, scores, stats
from lthbench.board import draws, levels, ranks, reproduction
from lthbench.board.standings import RANKED_LEVEL
from lthbench.reference import PROVISIONAL_BELOW
from lthbench.site import rungs
from lthbench.site.words import BOARDS, LEVELS, NO_LEVEL, lines
from lthbench.tables import Table, number
from lthbench.task import Suite, load_suite, numbers_of_seeds, suite_names

MEGABYTE = 2**20


def page() -> dict[str, Any]:
    """All that the template of the rules lays out."""
    return {
        "trust": _levels(),
        "suites": _suites([load_suite(name) for name in suite_names()]),
        "limits": _limits(),
        "rules": {
            "alpha": f"{stats.ALPHA:g}",
            "margin_cap": number(100 * stats.MARGIN_CAP, 1),
            "rankable": number(stats.RANKABLE_POINTS, 0),
            "errors": number(stats.RANKABLE_ERRORS, 0),
            "units": ranks.LEAST_UNITS,
            "all_to": ranks.ALL_TO,
            "drawn": f"{ranks.DRAWN:,}",
            "many": ranks.MANY,
            "drawn_of_many": f"{ranks.DRAWN_OF_MANY:,}",
            "ranked_level": RANKED_LEVEL,
            "tested": rungs.LEAST_TESTED,
            "least": stats.MIN_SEEDS,
            "frozen": PROVISIONAL_BELOW,
            "scorer": scores.VERSION,
            **_thresholds(),
        },
        "kinds": BOARDS,
        "cite": {form: lines(citing.of_benchmark(form)) for form in ("bibtex", "cff")},
    }


def _thresholds() -> dict[str, str]:
    """What levels 2 and 3 refuse."""
    return {
        "cells": str(draws.LEAST),
        "beyond": f"{100 * levels.BEYOND:g}",
        "bend_limit": f"{levels.BEND_LIMIT:g}",
        "fresh": str(reproduction.FRESH),
        "repeated": str(reproduction.REPEATED),
        "fresh_errors": f"{reproduction.ERRORS:g}",
    }


def _levels() -> Table:
    rows = [
        (
            f"{level.number} {level.word}" + ", ranked" * (level.number >= RANKED_LEVEL),
            level.proves,
            level.open,
        )
        for level in LEVELS
    ]
    rows.append(("no level", "", NO_LEVEL))
    head = ("level", "what it proves", "what it leaves open")
    return Table("What each level of verification proves", head, tuple(rows))


def _suites(suites: list[Suite]) -> Table:
    rows = tuple(
        (
            suite.name,
            suite.title,
            ", ".join(suite.tasks),
            numbers_of_seeds(suite),
            "yes" if suite.ranked else "no",
        )
        for suite in sorted(suites, key=lambda suite: suite.ranked)
    )
    return Table("Suites", ("suite", "what", "tasks", "seeds", "ranked"), rows)


def _limits() -> Table:
    rows = (
        ("published seeds", "0, 1, …, as many as each task names; all of them, on every task"),
        ("a record", f"at most {record.SIZE_LIMIT // MEGABYTE} MB are read"),
        ("a bundle", f"at most {record.BUNDLE_LIMIT // MEGABYTE} MB are read"),
        ("a description", "at most 400 characters a line, shown as text"),
        (
            "search budget",
            "the task's own, in dense trainings a seed; what exceeds it fails",
        ),
    )
    return Table("Limits", ("what", "limit"), rows)
