"""What may change a result by a bit."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path

from lthbench.training.dispatch import HERE, Means, arithmetic, device_told

LIBRARIES = ("torch", "numpy", "scipy")


def environment(means: Means = HERE) -> dict[str, str]:
    """Return what may change a result by a bit: versions, device, processor, threads."""
    versions = {name: version(name) for name in LIBRARIES}
    return {
        "lthbench": version("lthbench"),
        "python": platform.python_version(),
        **versions,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "arithmetic": arithmetic(means),
        "device": device_told(means),
        "threads": "1",
    }


def _processor() -> str:
    """Return the processor's name, where the system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()[:120] or "unknown"
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0][:120] if names else platform.machine()
