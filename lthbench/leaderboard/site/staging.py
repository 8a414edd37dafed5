"""A site's folder: its files, what they were made from, and how it is replaced atomically.

Pages are written into a folder beside those they replace, synced to disk together, and only then
renamed into place one by one; the list of pages comes last. So at any time every file is either the
old one or the new one, and the next build completes an interrupted one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lthbench.errors import ResourceError, UsageError
from lthbench.io.paths import canonical_json, digest, write_whole

MANIFEST = ".build.json"
LOCK = ".build.lock"
FORMAT = 1


@dataclass
class Site:
    """A site's folder while it is built.

    Attributes:
        out: The folder.
        staging: Where new files wait.
        scratch: A folder for files outside the site.
        before: Of the previous build, by path: key, sha256 and size.
        now: The same for this build.
        written: Paths that wait in the staging folder.
    """

    out: Path
    staging: Path
    before: Mapping[str, tuple[str, str, int]]
    now: dict[str, tuple[str, str, int]] = field(default_factory=dict)
    written: list[str] = field(default_factory=list)

    @property
    def scratch(self) -> Path:
        """A folder for files outside the site."""
        return self.staging / ".scratch"

    def keeps(self, path: str, key: str) -> bool:
        """Return whether a file is up to date; if so, keep it."""
        known = self.before.get(path)
        if known is None or known[0] != key:
            return False
        try:
            intact = digest((self.out / path).read_bytes()) == known[1]
        except OSError:
            return False
        if intact:
            self.now[path] = known
        return intact

    def put(self, path: str, key: str, data: bytes) -> None:
        """Add a new file, unless its bytes are unchanged."""
        write_loose(self.staging / path, data)
        self.take(path, key, (digest(data), len(data)))

    def take(self, path: str, key: str, found: tuple[str, int]) -> None:
        """Add a file already written into the staging folder, unless it is unchanged."""
        known = self.before.get(path)
        if known is not None and known[1] == found[0] and self.keeps(path, known[0]):
            (self.staging / path).unlink()
        else:
            self.written.append(path)
        self.now[path] = (key, *found)


def write_loose(path: Path, data: bytes) -> None:
    """Write a file of the staging folder; it is synced to disk with all others."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise ResourceError(
            f"{path}: cannot write: {error.strerror}; free some space or choose another folder"
        ) from error


@contextmanager
def building(out: Path) -> Iterator[Site]:
    """Open a site's folder for building; new files are put in place if the block succeeds.

    Raises:
        UsageError: If the folder holds other things.
        ResourceError: If another build is running there, or the folder cannot be written.
    """
    from filelock import FileLock, Timeout

    before = _manifest(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / LOCK)
        lock.acquire(timeout=0)
    except Timeout:
        raise ResourceError(f"{out}: another build is writing here; wait until it ends") from None
    except OSError as error:
        raise ResourceError(
            f"{out}: cannot write: {error.strerror}; choose another folder"
        ) from error
    staging = out / f".tmp-{os.urandom(8).hex()}"
    try:
        for left in out.glob(".tmp-*"):
            shutil.rmtree(left, ignore_errors=True)
        staging.mkdir()
        if not (out / MANIFEST).exists():  # marks the folder as a site's from now on
            write_whole(out / MANIFEST, canonical_json({"format": FORMAT, "pages": {}}))
        site = Site(out, staging, before)
        yield site
        _replace(site)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        lock.release()


def _manifest(out: Path) -> dict[str, tuple[str, str, int]]:
    path = out / MANIFEST
    if not out.exists():
        return {}
    if not out.is_dir():
        raise UsageError(f"{out}: is a file; name a folder for the site")
    try:
        table: Any = json.loads(path.read_bytes())
        if table["format"] != FORMAT:
            return {}
        return {str(k): (str(v[0]), str(v[1]), int(v[2])) for k, v in table["pages"].items()}
    except FileNotFoundError:
        there = [p.name for p in out.iterdir() if p.name != LOCK and not p.name.startswith(".tmp-")]
        if there:
            raise UsageError(
                f"{out}: holds {sorted(there)[0]} and is no site of ours; name an empty folder"
            ) from None
        return {}
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return {}  # damaged: rebuild everything


def _replace(site: Site) -> None:
    """Sync everything to disk, rename it into place, and remove what is obsolete."""
    if hasattr(os, "sync"):
        os.sync()  # one call for thousands of files
    try:
        for path in site.written:
            target = site.out / path
            target.parent.mkdir(parents=True, exist_ok=True)
            (site.staging / path).replace(target)
        for path in site.before.keys() - site.now.keys():
            stale = site.out / path
            stale.unlink(missing_ok=True)
            _drop_empty(stale.parent, site.out)
    except OSError as error:
        raise ResourceError(
            f"{site.out}: cannot replace {error.filename}: {error.strerror}; build it again"
        ) from error
    table = {"format": FORMAT, "pages": site.now}
    write_whole(site.out / MANIFEST, canonical_json(table))


def _drop_empty(folder: Path, out: Path) -> None:
    while folder != out and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent
