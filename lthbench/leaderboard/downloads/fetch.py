"""Locating an entry's bundle: in the user's folder, in the cache, or at the record's addresses.

The record gives the bundle's size and sha256; a file that differs is never used, wherever it is.
"""

from __future__ import annotations

import hashlib
import http.client
import string
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urljoin, urlsplit
from urllib.request import Request

from lthbench.errors import RecordError
from lthbench.io import paths
from lthbench.leaderboard.board.entries import Entry
from lthbench.leaderboard.downloads.connections import Https, Reach
from lthbench.leaderboard.downloads.deadlines import Deadline
from lthbench.records.schema import BUNDLE_LIMIT, BundleEntry
from lthbench.report.formats import plain

TIMEOUT = 30.0  # seconds without a byte
LONGEST = 1800.0  # seconds for all addresses together
CHUNK = 2**20
MOVED = (301, 302, 303, 307, 308)
FOLLOWED = 10  # maximum length of a chain of redirections


def bundle_of(entry: Entry, *, allow_private: bool = False) -> Path:
    """Return the file of an entry's bundle, downloaded into the cache if it is not on this machine.

    Args:
        entry: An entry of the board.
        allow_private: Whether the record's addresses may be in a private network, or on this
            machine.

    Raises:
        RecordError: If the record names no bundle, or none with its digest is available.
        ResourceError: If LTHBENCH_BUNDLES is not a folder, or the cache cannot be written.
    """
    wanted = entry.record.bundle
    if wanted is None:
        raise RecordError(
            f"{entry.id}: its record names no bundle, so there are no tickets to be had; "
            "evaluate the method again, or ask its authors"
        )
    reasons = []
    for path in _candidates(entry, wanted):
        if _is(path, wanted):
            return path
        reasons.append(f"{path.name} in {path.parent} has another digest")
    kept = paths.cache() / "bundles" / f"{wanted.sha256}.zip"
    if _is(kept, wanted):
        return kept
    deadline = Deadline.after(LONGEST, TIMEOUT)
    for number, url in enumerate(wanted.urls):
        mine = deadline.part(
            len(wanted.urls) - number
        )  # a slow address leaves the others their share of the time
        try:
            data = download(url, wanted.size, wanted.sha256, mine, allow_private=allow_private)
            paths.write_whole(kept, data)
        except RecordError as error:
            reasons.append(str(error))
            continue
        return kept
    said = plain("; ".join(reasons) or "its record names no address", 600)
    raise RecordError(
        f"{entry.id}: no bundle {wanted.sha256[:8]} to be had: {said}; "
        "put it into a folder and name that in LTHBENCH_BUNDLES"
    )


def _candidates(entry: Entry, wanted: BundleEntry) -> Iterator[Path]:
    """Yield candidate files in the user's folder: by name, then by size."""
    folder = paths.bundles_folder()
    if folder is None:
        return
    named = [folder / f"{wanted.sha256}.zip", folder / f"{entry.id}.zip"]
    yield from (path for path in named if path.is_file())
    for path in sorted(folder.glob("*.zip")):
        if path not in named and path.is_file() and path.stat().st_size == wanted.size:
            yield path


def _is(path: Path, wanted: BundleEntry) -> bool:
    """Return whether a file has the size and digest; False if it cannot be read."""
    try:
        if not path.is_file() or path.stat().st_size != wanted.size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == wanted.sha256
    except OSError:
        return False


def download(
    url: str, size: int, sha256: str, deadline: Deadline, *, allow_private: bool = False
) -> bytes:
    """Download an address, provided that size and digest match; nothing beyond `size` is read.

    Args:
        url: Address of the file.
        size: Expected size in bytes.
        sha256: Expected digest.
        deadline: For everything: names, connections, redirections, headers, bodies and trailers.
        allow_private: Whether the address may be in a private network, or on this machine.

    Raises:
        RecordError: If the download fails; names the address and the reason.
    """
    if urlsplit(url).scheme != "https" or size > BUNDLE_LIMIT:
        raise RecordError(f"{url}: only https up to {BUNDLE_LIMIT >> 20} MB")
    try:
        with ExitStack() as opened:
            opener = _opener(Https(Reach(allow_private), deadline, opened))
            data = _read(opened.enter_context(_answer(opener, url)), size)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        if deadline.passed:
            reason = f"not whole in time; all addresses have {LONGEST / 60:.0f} minutes together"
        raise RecordError(f"{url}: {reason}") from error
    if len(data) != size:
        raise RecordError(f"{url}: {len(data)} bytes came, the bundle has {size}")
    if paths.digest(data) != sha256:
        raise RecordError(f"{url}: what lies there has another digest")
    return data


def _answer(opener: urllib.request.OpenerDirector, url: str) -> http.client.HTTPResponse:
    """Return the response of an address, after redirections; URLError if there is none."""
    for _ in range(FOLLOWED + 1):
        try:
            answer: http.client.HTTPResponse = opener.open(
                Request(url, headers={"User-Agent": "lthbench"})
            )
        except HTTPError as error:
            with error:  # its body is not read
                url = _next(url, error)
        else:
            return answer
    raise URLError(f"leads from one redirect to the next, {FOLLOWED} times")


def _next(url: str, answer: HTTPError) -> str:
    """Return the target of a redirection; raise the response itself if there is none."""
    to = answer.headers.get("Location")
    if answer.code not in MOVED or not to:
        raise answer
    there = quote(urljoin(url, to), safe=string.punctuation, encoding="latin-1", errors="replace")
    if urlsplit(there).scheme != "https":
        raise URLError("leads to an address that is not https")
    return there


def _read(answer: http.client.HTTPResponse, size: int) -> bytes:
    """Read the body, at most one byte more than `size`."""
    told = answer.headers.get("Content-Length")
    if told is not None and told != str(size):
        raise URLError(f"{told[:20]} bytes are offered, the bundle has {size}")
    parts: list[bytes] = []
    left = size + 1
    while left:
        part = answer.read1(min(CHUNK, left))
        if not part:
            return b"".join(parts)
        parts.append(part)
        left -= len(part)
    raise URLError(f"more bytes than the bundle's {size}")


def _opener(https: Https) -> urllib.request.OpenerDirector:
    """Build an opener for https only, through the user's proxy if any, without redirections."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        https,
    ):
        opener.add_handler(handler)
    return opener
