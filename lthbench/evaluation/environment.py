"""The packages installed during an evaluation."""

from __future__ import annotations

from importlib.metadata import distributions

from lthbench.io.paths import canonical_json

FILE = "environment.json"  # of an evaluation's folder, and of a bundle


def installed() -> bytes:
    """Return the bundle member that lists what is installed now."""
    return canonical_json({"packages": packages()})


def packages() -> dict[str, str]:
    """Return name and version of every installed distribution, sorted.

    A damaged one, without a name or a version, is left out rather than ending the evaluation.
    """
    found = {d.metadata["Name"]: d.metadata["Version"] for d in distributions() if d.metadata}
    named = {
        name.lower().replace("_", "-"): version
        for name, version in found.items()
        if name and version
    }
    return dict(sorted(named.items()))
