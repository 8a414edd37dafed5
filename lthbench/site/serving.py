"""The site in a browser on this machine."""

from __future__ import annotations

import errno
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from lthbench.errors import ResourceError, UsageError
from lthbench.site.making import build
from lthbench.site.output import MANIFEST
from lthbench.site.render import POLICY

HERE = "127.0.0.1"
HEADERS = {
    "Content-Security-Policy": f"{POLICY}; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def serve(out: Path | None, port: int, tell: Callable[[str], Any]) -> None:
    """Show a site that was built, or one built now into a temporary folder, until Ctrl-C.

    Args:
        port: on 127.0.0.1; 0 for any free one.
        tell: takes the one line with the address.

    Raises:
        UsageError: for a folder that holds no site.
        ResourceError: for a port that is taken.
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
    """A server of a site's folder, not yet serving."""
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
    """Ends with the command, whoever is still connected; refuses a port that is served already."""

    daemon_threads = True
    allow_reuse_address = True


class Handler(SimpleHTTPRequestHandler):
    """Files of one folder, with the headers that the pages' own policy asks for."""

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def send_head(self) -> Any:
        parts = unquote(self.path.partition("?")[0]).split("/")
        if any(part.startswith(".") for part in parts):
            self.send_error(404)
            return None
        return super().send_head()

    def list_directory(self, path: Any) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the terminal holds the address."""
