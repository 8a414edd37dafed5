"""Name resolution, and which addresses an untrusted record may lead to.

A record is written by its submitter. Its addresses, and any redirections, must not make this
machine query others in its own network that are unreachable from outside.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from queue import Empty, SimpleQueue
from threading import Thread

from lthbench.leaderboard.downloads.deadlines import Deadline

IP = IPv4Address | IPv6Address
NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: an IPv4 address in the last 32 bits
OPTION = "--allow-private"


class Private(OSError):
    """A name that resolves to an address this download may not contact."""


@dataclass(frozen=True)
class Place:
    """One address of a name, with its port, as `socket.connect` takes it."""

    family: socket.AddressFamily
    address: tuple[str | int | bytes, ...]

    @property
    def ip(self) -> IP:
        """The address alone."""
        return ip_address(self.address[0])


def is_public(ip: IP) -> bool:
    """Return whether an address is public: global, unicast, and not disguised.

    An IPv6 address that stands for an IPv4 one (mapped, NAT64, 6to4) is judged as that one.
    """
    inner = _inner(ip)
    if inner is not None:
        return is_public(inner)
    if ip.is_multicast or ip.is_reserved or ip.is_unspecified or ip.is_loopback:
        return False
    return ip.is_global and not (isinstance(ip, IPv6Address) and ip.is_site_local)


def inside(found: Sequence[Place]) -> IP | None:
    """Return the first non-public address of a name; None if all are public."""
    return next((place.ip for place in found if not is_public(place.ip)), None)


def places(host: str, port: int, deadline: Deadline) -> tuple[Place, ...]:
    """Resolve every address of a name, in a thread that is abandoned if it takes too long.

    Raises:
        OSError: If the name has no address, or is not resolved in time.
        ValueError: If the name is malformed.
    """
    answers: SimpleQueue[tuple[Place, ...] | OSError | ValueError] = SimpleQueue()
    Thread(target=lambda: answers.put(_asked(host, port)), daemon=True).start()
    try:
        answer = answers.get(timeout=deadline.wait())
    except Empty:
        raise TimeoutError(f"the address of {host} was not found in time") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _asked(host: str, port: int) -> tuple[Place, ...] | OSError | ValueError:
    try:
        rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError) as error:
        return error
    return tuple(Place(family, address) for family, _, _, _, address in rows)


def _inner(ip: IP) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 one stands for; None for any other."""
    if isinstance(ip, IPv4Address):
        return None
    if ip in NAT64:
        return IPv4Address(int(ip) & 0xFFFF_FFFF)
    return ip.ipv4_mapped or ip.sixtofour
