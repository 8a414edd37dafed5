"""Entries on a board of a test's own: records that name a bundle, and the ledger's lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lthbench.io.paths import digest
from lthbench.leaderboard.board import ledger as ledgers
from lthbench.leaderboard.bundle import archive
from lthbench.records.schema import BundleEntry, Record, file_bytes
from tests.submitted import at_home, furnish, house


def entry_of(
    share: Path, file: Path, task: str, *, urls: tuple[str, ...] = (), changed: Any = None
) -> str:
    """Put a bundle's record of a task on the board, accepted; returns the entry's id.

    Args:
        changed: keys of the record that are told differently than in the bundle.
    """
    found = archive.read(file)
    named = BundleEntry(sha256=found.sha256, size=found.size, urls=urls)
    update = {"bundle": named, **(changed or {})}
    record: Record = archive.record(found, task).model_copy(update=update)
    data = file_bytes(record)
    name = f"{record.method.name}--{digest(data)[:8]}"
    path = share / "_share" / "leaderboard" / "records" / task / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    tell(share, "accept", digest(data), task, record.method.name, nonce="0" * 64)
    return name


def tell(share: Path, act: str, entry: str, task: str, method: str, **keys: Any) -> None:
    """One more line of the ledger."""
    path = share / "_share" / "leaderboard" / "ledger.jsonl"
    ledgers.write(path, ledgers.append(ledgers.read(path), act, entry, task, method, **keys))


@contextmanager
def board(folder: Path) -> Iterator[Path]:
    """This process finds an empty board there, and the data of the tests' house."""
    share = furnish(folder / "home")
    with at_home(share, house().cache):
        yield share
