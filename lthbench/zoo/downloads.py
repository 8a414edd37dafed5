"""Finding an entry's bundle: in a folder of the user's, in the cache, at the record's addresses.

The record names the bundle's size and sha256: what has others is not taken, wherever it lies.
"""

from __future__ import annotations

import hashlib
import http.client
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request

from lthbench import paths
from lthbench.board.entries import Entry
from lthbench.errors import RecordError
from lthbench.record import BUNDLE_LIMIT, BundleEntry
from lthbench.tables import plain

SCHEMES = ("https",)
TIMEOUT = 30.0  # seconds without a byte
LONGEST = 1800.0  # seconds in all, and TIMEOUT at most beyond them
CHUNK = 2**20


def bundle_of(entry: Entry) -> Path:
    """The file of an entry's bundle; downloaded into the cache if it is nowhere here.

    Raises:
        RecordError: if the record names no bundle, or none with its digest can be had.
        ResourceError: if LTHBENCH_BUNDLES names no folder, or the cache cannot be written.
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
    for url in wanted.urls:
        try:
            paths.write_whole(kept, download(url, wanted.size, wanted.sha256))
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
    """Files of the user's folder that may be it: by name, then by size."""
    folder = paths.bundles_folder()
    if folder is None:
        return
    named = [folder / f"{wanted.sha256}.zip", folder / f"{entry.id}.zip"]
    yield from (path for path in named if path.is_file())
    for path in sorted(folder.glob("*.zip")):
        if path not in named and path.is_file() and path.stat().st_size == wanted.size:
            yield path


def _is(path: Path, wanted: BundleEntry) -> bool:
    """Whether a file has the size and the digest; a file that cannot be read has not."""
    try:
        if not path.is_file() or path.stat().st_size != wanted.size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == wanted.sha256
    except OSError:
        return False


def download(url: str, size: int, sha256: str) -> bytes:
    """What lies at an address, if it is of this size and digest; nothing longer is read.

    Raises:
        RecordError: naming the address and what was wrong.
    """
    if urlsplit(url).scheme not in SCHEMES or size > BUNDLE_LIMIT:
        raise RecordError(f"{url}: only {' or '.join(SCHEMES)} up to {BUNDLE_LIMIT >> 20} MB")
    request = Request(url, headers={"User-Agent": "lthbench"})
    try:
        with _opener().open(request, timeout=TIMEOUT) as answer:
            told = answer.headers.get("Content-Length")
            if told is not None and told != str(size):
                raise RecordError(f"{url}: {told[:20]} bytes are offered, the bundle has {size}")
            data = _read(answer, url, size)
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        reason = getattr(error, "reason", None) or error
        raise RecordError(f"{url}: {reason}") from error
    if len(data) != size:
        raise RecordError(f"{url}: {len(data)} bytes came, the bundle has {size}")
    if paths.digest(data) != sha256:
        raise RecordError(f"{url}: what lies there has another digest")
    return data


def _read(answer: http.client.HTTPResponse, url: str, size: int) -> bytes:
    """The body; one byte more than the size at most.

    By `read1`, which returns what is there: `read` would wait for a whole part, and of a server
    that trickles no clock would be looked at meanwhile.
    """
    end = time.monotonic() + LONGEST
    parts: list[bytes] = []
    left = size + 1
    while left:
        if time.monotonic() > end:
            raise RecordError(f"{url}: not whole after {LONGEST / 60:.0f} minutes")
        part = answer.read1(min(CHUNK, left))
        if not part:
            return b"".join(parts)
        parts.append(part)
        left -= len(part)
    raise RecordError(f"{url}: more bytes than the bundle's {size}")


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to the schemes that are allowed, and to no others."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: Any,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urlsplit(newurl).scheme not in SCHEMES:
            fp.close()
            raise URLError(f"leads to an address that is not {' or '.join(SCHEMES)}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Opens what `SCHEMES` names; the usual opener would take files and FTP too."""
    opener = urllib.request.OpenerDirector()
    kinds = {"https": urllib.request.HTTPSHandler, "http": urllib.request.HTTPHandler}
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Redirects(),
        *(kinds[scheme]() for scheme in SCHEMES),
    ):
        opener.add_handler(handler)
    return opener
