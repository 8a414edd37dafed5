"""The packages that an evaluation ran beside."""

from __future__ import annotations

from importlib.metadata import distributions

from lthbench.io.paths import canonical_json

FILE = "environment.json"  # of an evaluation's folder, and of a bundle


def installed() -> bytes:
    """The member that lists what is installed now."""
    return canonical_json({"packages": packages()})


def packages() -> dict[str, str]:
    """Name and version of every distribution that is installed, sorted; one that is damaged, and
    so has no name or no version, ends no evaluation: it is left out."""
    found = {d.metadata["Name"]: d.metadata["Version"] for d in distributions() if d.metadata}
    named = {
        name.lower().replace("_", "-"): version
        for name, version in found.items()
        if name and version
    }
    return dict(sorted(named.items()))
