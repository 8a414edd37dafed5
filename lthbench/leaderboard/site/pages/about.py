"""The page of the rules, built from the constants that the scorer and the checks read."""

from __future__ import annotations

from typing import Any

from lthbench.leaderboard.board import criteria, ranks, reproduction, sampling
from lthbench.leaderboard.board.standings import RANKED_LEVEL
from lthbench.leaderboard.citation import cite
from lthbench.leaderboard.site import best_per_density
from lthbench.leaderboard.site.labels import BOARDS, LEVELS, NO_LEVEL, lines
from lthbench.protocol.task import Suite, load_suite, numbers_of_seeds, suite_names
from lthbench.records import aggregate, intervals, metrics, pretrained, schema
from lthbench.records.reference import PROVISIONAL_BELOW
from lthbench.report.formats import number
from lthbench.report.table import Table

MEGABYTE = 2**20


def page() -> dict[str, Any]:
    """Return the template values of the page of rules."""
    return {
        "trust": _levels(),
        "suites": _suites([load_suite(name) for name in suite_names()]),
        "limits": _limits(),
        "rules": {
            "alpha": f"{intervals.ALPHA:g}",
            "margin_cap": number(100 * metrics.MARGIN_CAP, 1),
            "rankable": number(metrics.RANKABLE_POINTS, 0),
            "errors": number(metrics.RANKABLE_ERRORS, 0),
            "units": ranks.LEAST_UNITS,
            "all_to": ranks.ALL_TO,
            "drawn": f"{ranks.DRAWN:,}",
            "ranked_level": RANKED_LEVEL,
            "tested": best_per_density.LEAST_TESTED,
            "least": intervals.MIN_SEEDS,
            "frozen": PROVISIONAL_BELOW,
            "scorer": aggregate.VERSION,
            "alike": f"{pretrained.ALIKE:g}",
            **_thresholds(),
        },
        "kinds": BOARDS,
        "cite": {form: lines(cite.of_benchmark(form)) for form in ("bibtex", "cff")},
    }


def _thresholds() -> dict[str, str]:
    """Return what levels 2 and 3 reject."""
    return {
        "cells": str(sampling.LEAST),
        "beyond": f"{100 * criteria.BEYOND:g}",
        "bend_limit": f"{criteria.BEND_LIMIT:g}",
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
        ("a record", f"at most {schema.SIZE_LIMIT // MEGABYTE} MB are read"),
        ("a bundle", f"at most {schema.BUNDLE_LIMIT // MEGABYTE} MB are read"),
        ("a description", "at most 400 characters a line, shown as text"),
        (
            "search budget",
            "the task's own, in dense trainings a seed; what exceeds it fails",
        ),
    )
    return Table("Limits", ("what", "limit"), rows)
