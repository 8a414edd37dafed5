"""A local web server for the site."""

from __future__ import annotations

import errno
import socket
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any
from urllib.parse import unquote

from lthbench.errors import ResourceError, UsageError
from lthbench.leaderboard.site.build import MANIFEST, build
from lthbench.leaderboard.site.render import POLICY

HERE = "127.0.0.1"
CONNECTIONS = 64  # at once
IDLE = 30.0  # seconds without traffic after which a connection ends
BUSY = (
    b"HTTP/1.0 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Length: 0\r\n\r\n"
)
HEADERS = {
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def serve(out: Path | None, port: int, tell: Callable[[str], Any]) -> None:
    """Serve a built site, or one built now in a temporary folder, until Ctrl-C.

    Args:
        out: The site's folder; None to build one.
        port: Port on 127.0.0.1; 0 for any free one.
        tell: Receives the line with the address.

    Raises:
        UsageError: If the folder holds no site.
        ResourceError: If the port is in use.
    """
    with ExitStack() as stack:
        if out is None:
            out = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lthbench-site-")))
            build(out)
        elif not (out / MANIFEST).is_file():
            raise UsageError(f"{out}: no site; run `lthbench leaderboard build {out}` first")
        server = stack.enter_context(listening(out, port))
        tell(f"http://{HERE}:{server.server_port}/   (Ctrl-C ends it)")
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            return


def listening(out: Path, port: int) -> ThreadingHTTPServer:
    """Return a server of a site's folder, not yet serving."""
    handler = partial(Handler, directory=str(out))
    try:
        return Server((HERE, port), handler)
    except OverflowError as error:
        raise UsageError(f"--port {port}: must be 0 to 65535") from error
    except OSError as error:
        why = (
            "in use" if error.errno == errno.EADDRINUSE else (error.strerror or str(error)).lower()
        )
        raise ResourceError(
            f"--port {port}: {why}; choose another, or 0 for any free one"
        ) from error


class Server(ThreadingHTTPServer):
    """A server that ends with the command, whoever is connected, and rejects a port in use.

    It holds at most `CONNECTIONS` at once; any further one gets the answer that the server is busy.
    """

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = CONNECTIONS

    def __init__(self, *arguments: Any) -> None:
        self.free = BoundedSemaphore(CONNECTIONS)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for a connection, if one is free."""
        if not self.free.acquire(blocking=False):
            self._turn_away(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread started
            self.free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection to its end."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a browser that hung up; report everything else."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)

    def _turn_away(self, request: socket.socket) -> None:
        with suppress(OSError):
            request.settimeout(0)  # the answer is short, and the next connection should not wait
            request.sendall(BUSY)
        self.shutdown_request(request)


class Handler(SimpleHTTPRequestHandler):
    """Files of one folder, with the headers required by the pages' own policy."""

    timeout = IDLE

    def end_headers(self) -> None:
        """Add the policy's headers."""
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def send_head(self) -> Any:
        """Serve a file; reject malformed and hidden paths."""
        path = unquote(self.path.partition("?")[0])
        if "\0" in path:
            self.send_error(400)
            return None
        if any(part.startswith(".") for part in path.split("/")):
            self.send_error(404)
            return None
        try:
            return super().send_head()
        except ValueError:  # other impossible paths, such as half a surrogate pair
            self.send_error(400)
            return None

    def list_directory(self, _path: Any) -> None:
        """Refuse to list a folder."""
        self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing, since the terminal shows the address."""
