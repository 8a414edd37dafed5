"""Building a site from a leaderboard's folder: every page is made before the first is written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lthbench.errors import ResourceError, UsageError
from lthbench.io.paths import canonical_json, refusal, shipped, sweep, write_whole
from lthbench.leaderboard.board import entries
from lthbench.leaderboard.board.entries import Entry
from lthbench.leaderboard.board.standings import standings
from lthbench.leaderboard.site.labels import many
from lthbench.leaderboard.site.pages import api, plan
from lthbench.leaderboard.site.pages.plan import Contents
from lthbench.leaderboard.site.pages.protocol import protocols

MANIFEST, LOCK = ".build.json", ".build.lock"
FORMAT = 1


@dataclass(frozen=True)
class Built:
    """Summary of a build."""

    out: Path
    entries: int
    files: int
    written: int
    removed: int

    def text(self) -> str:
        """Return two lines for the terminal."""
        gone = f", {many(self.removed, 'stale one')} removed" if self.removed else ""
        return (
            f"{self.out}: {many(self.entries, 'entry', 'entries')}, {many(self.files, 'file')}, "
            f"{self.written:,} written{gone}\n"
            f"open {self.out / 'index.html'}, or run `lthbench leaderboard serve {self.out}`"
        )


def build(out: Path, folder: Path | None = None) -> Built:
    """Write the whole site into a folder; existing files are replaced only if they changed.

    Each file is the old one or the new one at any time; the next build completes an interrupted
    one.

    Args:
        out: The site's folder.
        folder: A leaderboard's folder, the shipped one by default.

    Raises:
        RecordError: If a record, the ledger or a reference is invalid.
        UsageError: If the folder holds other things.
        ResourceError: If the folder cannot be written, or another build is writing it.
    """
    out, folder = out.absolute(), folder or shipped("leaderboard")
    before = _list_pages(out)
    with _lock(out):
        contents = _load(folder)
        files = dict(_files(contents))
        sweep(out)
        _write_manifest(out, before | files.keys())  # marks the folder as a site's from now on
        changed = [path for path, data in files.items() if _read(out / path) != data]
        for path in changed:
            write_whole(out / path, files[path])
        stale = before - files.keys()
        for path in stale:
            _remove(out, path)
        _write_manifest(out, files)
    return Built(out, len(contents.board.entries), len(files), len(changed), len(stale))


def _load(folder: Path) -> Contents:
    board, told = entries.load(folder), protocols()
    tasks: dict[str, list[Entry]] = {name: [] for name in told}
    for entry in board.entries:
        tasks.setdefault(entry.record.task.name, []).append(entry)
    return Contents(folder, board, tasks, told, standings(board))


def _files(contents: Contents) -> Iterator[tuple[str, bytes]]:
    yield from plan.all_of(contents)
    yield from api.all_of(contents.board, contents.standings)
    for entry in contents.board.entries:
        path = plan.record_path(entry.record.task.name, entry.id)
        yield path, (contents.folder / entry.file).read_bytes()


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    lock = FileLock(out / LOCK)
    try:
        out.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise ResourceError(f"{out}: another build is writing here; wait until it ends") from None
    except OSError as error:
        raise ResourceError(f"{out}: cannot write: {refusal(error)}") from error
    try:
        yield
    finally:
        lock.release()


def _list_pages(out: Path) -> set[str]:
    """Return the paths of the previous build; none if its list is damaged."""
    if not out.exists():
        return set()
    if not out.is_dir():
        raise UsageError(f"{out}: is a file; name a folder for the site")
    try:
        return set(map(str, json.loads((out / MANIFEST).read_bytes())["pages"]))
    except FileNotFoundError:
        there = [p.name for p in out.iterdir() if p.name != LOCK and not p.name.startswith(".tmp-")]
        if there:
            raise UsageError(
                f"{out}: holds {sorted(there)[0]} and is no site of ours; name an empty folder"
            ) from None
        return set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def _write_manifest(out: Path, pages: Iterable[str]) -> None:
    data = canonical_json({"format": FORMAT, "pages": sorted(pages)})
    if _read(out / MANIFEST) != data:
        write_whole(out / MANIFEST, data)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _remove(out: Path, path: str) -> None:
    """Remove a file of an earlier build, and folders that it leaves empty."""
    stale = out / path
    try:
        stale.unlink(missing_ok=True)
        for folder in stale.parents:
            if folder == out or any(folder.iterdir()):
                break
            folder.rmdir()
    except OSError as error:
        raise ResourceError(f"{stale}: cannot remove: {refusal(error)}") from error
