"""Locks of an output folder: one method, options and kind of seeds, one process at a time."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from lthbench.errors import MethodError, ResourceError
from lthbench.evaluation.layout import CLAIM, SOURCE, TRAINED, Claim
from lthbench.io.paths import canonical_json, write_whole
from lthbench.method.source import Method
from lthbench.protocol.task import Task
from lthbench.training.dispatch import VERSIONS, Means, arithmetic, engine_for


def lock(out: Path) -> AbstractContextManager[object]:
    """Lock the folder, or fail at once: two evaluations would overwrite each other."""
    from filelock import FileLock, Timeout

    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / "lock")
        return lock.acquire(timeout=0)
    except Timeout as error:
        raise ResourceError(
            f"{out}: another evaluation is using this folder; wait for it or give --out"
        ) from error
    except OSError as error:
        raise ResourceError(f"{out}: {error.strerror}; choose another folder with --out") from error


def claim(out: Path, method: Method, final: bool) -> None:
    """Claim a folder for one method, one set of options, one kind of seeds."""
    mine = Claim(method.name, method.digest, dict(method.options), final)
    _agree(out / CLAIM, vars(mine), "--out another folder, or remove this one")
    write_whole(out / SOURCE, method.source.encode())  # what a submission's bundle holds


def claim_task(folder: Path, task: Task, means: Means) -> None:
    """Claim a task's folder for one protocol, device and engine."""
    trains = VERSIONS[engine_for(means, task.network)]
    mine = {"task": task.digest, "arithmetic": arithmetic(means), "engine": trains}
    _agree(folder / TRAINED, mine, "give --out another folder")


def _agree(path: Path, mine: Mapping[str, object], step: str) -> None:
    """Write the claim, or refuse if the folder belongs to something else."""
    if not path.is_file():
        write_whole(path, canonical_json(mine))
        return
    try:
        theirs = json.loads(path.read_bytes())
        if theirs == mine:
            return
        key = next(k for k in mine if theirs.get(k) != mine[k])
    except (ValueError, AttributeError, StopIteration) as error:
        raise ResourceError(
            f"{path}: damaged; remove {path.parent} and run the same command again"
        ) from error
    old, new = _short(theirs.get(key)), _short(mine[key])
    raise MethodError(f"{path.parent}: holds results of {key} {old}, not {new}; {step}")


def _short(value: object) -> str:
    return value[:12] if isinstance(value, str) else json.dumps(value, sort_keys=True)[:60]
