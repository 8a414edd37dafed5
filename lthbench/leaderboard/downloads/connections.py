"""Connections of a download: only to checked addresses, with every wait within one deadline."""

from __future__ import annotations

import io
import socket
import ssl
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit
from urllib.request import HTTPSHandler, Request

from lthbench.leaderboard.downloads import addresses
from lthbench.leaderboard.downloads.addresses import OPTION, Place, Private
from lthbench.leaderboard.downloads.deadlines import Deadline


@dataclass
class Reach:
    """How far a download may go, decided by its first address, the record's own.

    Attributes:
        allowed: Whether the user allows non-public addresses.
        inside: Whether the record's own address is non-public; None before it is checked.
    """

    allowed: bool
    inside: bool | None = None

    def check(self, host: str, found: Sequence[Place]) -> None:
        """Check every address of a name.

        Raises:
            Private: If the name leads where this download may not go.
        """
        ip = addresses.inside(found)
        if self.inside is None:
            self.inside = ip is not None
        if ip is None or (self.allowed and self.inside):
            return
        where = f"{host} is {ip}, no public address"
        if self.inside:
            raise Private(f"{where}; if that machine is meant, add {OPTION}")
        raise Private(f"leads into a private network: {where}")


class Https(HTTPSHandler):
    """Opener for the connections of one download."""

    def __init__(self, reach: Reach, deadline: Deadline, opened: ExitStack) -> None:
        super().__init__()
        self.reach, self.deadline, self.opened = reach, deadline, opened
        self.tls = ssl.create_default_context()

    def https_open(self, req: Request) -> HTTPResponse:
        """Open one address and return the response, with its body still unread."""
        return self.do_open(self._connection, req)

    def _connection(self, host: str, /, **_: object) -> Connection:
        return Connection(host, self.reach, self.deadline, self.opened, self.tls)


class Connection(HTTPSConnection):
    """A connection to a checked address, so that a name cannot resolve elsewhere in the meantime.

    Args:
        opened: Closes every socket in the end.
    """

    def __init__(
        self, host: str, reach: Reach, deadline: Deadline, opened: ExitStack, tls: ssl.SSLContext
    ) -> None:
        super().__init__(host, context=tls)
        self.reach, self.deadline, self.opened, self.tls = reach, deadline, opened, tls
        self.name = self.host
        self.tunnels = False

    def set_tunnel(
        self, host: str, _port: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        """Connect through the user's proxy, which is given the checked address and no name."""
        parts = urlsplit(f"//{host}")
        self.name, self.tunnels = parts.hostname or host, True
        found = self._checked(self.name, parts.port or self.default_port)
        there = min(found, key=lambda place: place.ip.version)
        super().set_tunnel(str(there.address[0]), int(there.address[1]), dict(headers or {}))

    def connect(self) -> None:
        """Connect and shake hands."""
        if self.tunnels:  # the proxy is the user's own, and may be anywhere
            found = addresses.places(self.host, self.port, self.deadline)
        else:
            found = self._checked(self.host, self.port)
        plain = self._connected(found)
        if self.tunnels:
            self.sock: Any = Timed(plain, self.deadline)
            self._tunnel()  # type: ignore[attr-defined]
        plain.settimeout(self.deadline.wait())
        secured = self.tls.wrap_socket(plain, server_hostname=self.name)
        self.sock = Timed(self.opened.enter_context(secured), self.deadline)

    def _checked(self, host: str, port: int) -> tuple[Place, ...]:
        found = addresses.places(host, port, self.deadline)
        self.reach.check(host, found)
        return found

    def _connected(self, found: Sequence[Place]) -> socket.socket:
        """Connect to the first address that answers."""
        failure: OSError = OSError("has no address")
        for place in found:
            sock = self.opened.enter_context(socket.socket(place.family, socket.SOCK_STREAM))
            sock.settimeout(self.deadline.wait())
            try:
                sock.connect(place.address)
            except OSError as error:
                failure = error
                continue
            return sock
        raise failure


@dataclass(frozen=True)
class Timed:
    """The socket interface needed by `http.client`, with every wait within the deadline."""

    sock: socket.socket
    deadline: Deadline

    def sendall(self, data: bytes) -> None:
        """Send a request."""
        self.sock.settimeout(self.deadline.wait())
        self.sock.sendall(data)

    def makefile(self, _mode: str) -> io.BufferedReader:
        """Return a reader of the response."""
        return io.BufferedReader(Incoming(self.sock, self.deadline))

    def close(self) -> None:
        """Leave the socket open for a body still to be read; the download's opener closes it."""


class Incoming(io.RawIOBase):
    """Incoming data of a socket, with every read within the deadline."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        super().__init__()
        self.sock, self.deadline = sock, deadline

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Wait for some bytes."""
        self.sock.settimeout(self.deadline.wait())
        return self.sock.recv_into(buffer)
