"""The zoo: bundles found and fetched by digest alone, tickets as torch takes them."""

from __future__ import annotations

import functools
import json
import shutil
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar

import pytest
import torch
import trustme
from safetensors.torch import load_file
from torch.nn.utils import prune

import lthbench
from lthbench.cli import main
from lthbench.errors import LthbenchError, RecordError, ResourceError, UsageError
from lthbench.evaluation import trainings
from lthbench.io import paths
from lthbench.leaderboard import ticket_folder, tickets
from lthbench.leaderboard.board import entries
from lthbench.leaderboard.bundle.build import pack
from lthbench.leaderboard.downloads import addresses, connections, fetch
from lthbench.leaderboard.downloads.addresses import Place
from lthbench.leaderboard.downloads.connections import Reach
from lthbench.leaderboard.downloads.deadlines import Deadline
from lthbench.networks import families
from lthbench.networks.state import State
from lthbench.protocol import datasets
from lthbench.protocol.task import load_task
from lthbench.tickets import ticket_files
from tests import commands
from tests.accepted import board, entry_of, tell
from tests.submitted import DIGITS, MODADD, finished, house, records_of

RUNGS = (0.5, 0.2, 0.1)  # of tiny-digits: of origin init, signs, free
REWOUND = '''"""Random tickets at a later step, for tests."""

import torch
from lthbench import Ticket, keep_top


def find_tickets(problem):
    lots = problem.generator("rewound")
    scores = {n: torch.rand(s, generator=lots) for n, s in problem.shapes.items()}
    for number, density in enumerate(problem.densities):
        masks, theta = keep_top(scores, density), problem.theta(problem.rewind_limit)
        weights = theta.tensors()
        for name in masks:
            weights[name] = weights[name].sign() * 0.25
        signs = State_(weights, theta.step) if number == 1 else None
        yield Ticket(masks, problem.rewind_limit, signs)


from lthbench import State as State_
'''


@pytest.fixture
def share(tmp_path: Path) -> Iterator[Path]:
    """An empty board, to which this process is at home."""
    with board(tmp_path) as folder:
        yield folder


@pytest.fixture
def bundles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that LTHBENCH_BUNDLES names."""
    folder = tmp_path / "bundles"
    folder.mkdir()
    monkeypatch.setenv("LTHBENCH_BUNDLES", str(folder))
    return folder


@pytest.fixture
def known(share: Path, bundles: Path) -> str:
    """An accepted entry whose bundle is at hand."""
    name = entry_of(share, house().bundle, DIGITS)
    (bundles / f"{name}.zip").write_bytes(house().bundle.read_bytes())
    return name


def found(name: str) -> entries.Entry:
    return entries.find(entries.load(), name)


# Where bundles are


@pytest.mark.parametrize("named", ["digest", "entry", "other"])
def test_a_bundle_is_found_in_a_folder_by_name_or_size(
    named: str, share: Path, bundles: Path
) -> None:
    name = entry_of(share, house().bundle, DIGITS)
    held = house().bundle.read_bytes()
    names = {"digest": paths.digest(held), "entry": name, "other": "whatever"}
    (bundles / "aaa.zip").write_bytes(b"x" * len(held))  # another of its size
    (bundles / f"{names[named]}.zip").write_bytes(held)
    assert tickets.bundle_of(found(name)) == bundles / f"{names[named]}.zip"


def test_a_bundle_with_another_digest_is_none(share: Path, bundles: Path) -> None:
    """One byte of it changed, under its very name."""
    name = entry_of(share, house().bundle, DIGITS)
    held = bytearray(house().bundle.read_bytes())
    held[1000] ^= 1
    (bundles / f"{name}.zip").write_bytes(held)
    with pytest.raises(RecordError, match=r"has another digest; put it .* LTHBENCH_BUNDLES$"):
        tickets.bundle_of(found(name))


def test_no_folder_and_no_address(share: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = entry_of(share, house().bundle, DIGITS)
    monkeypatch.delenv("LTHBENCH_BUNDLES", raising=False)
    with pytest.raises(RecordError, match="names no address; put it into a folder"):
        tickets.bundle_of(found(name))
    monkeypatch.setenv("LTHBENCH_BUNDLES", str(share / "absent"))
    with pytest.raises(ResourceError, match=r"LTHBENCH_BUNDLES=.*absent: no such folder"):
        tickets.bundle_of(found(name))


def test_a_record_without_a_bundle(share: Path) -> None:
    name = entry_of(share, house().bundle, DIGITS, changed={"bundle": None})
    with pytest.raises(RecordError, match=f"{name}: its record names no bundle"):
        tickets.bundle_of(found(name))


# Downloads, from a server on this machine


class Answers(BaseHTTPRequestHandler):
    """Each path of `routes` is answered as it says; what was asked for is kept."""

    routes: ClassVar[dict[str, Callable[[BaseHTTPRequestHandler], None]]]
    asked: ClassVar[list[str]]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.routes[self.path](self)

    def log_message(self, format: str, *arguments: object) -> None:
        pass


def body(
    handler: BaseHTTPRequestHandler, data: bytes, length: int | None = None, told: bool = True
) -> None:
    handler.send_response(200)
    if told:
        handler.send_header("Content-Length", str(len(data) if length is None else length))
    handler.end_headers()
    handler.wfile.write(data)


def moved(handler: BaseHTTPRequestHandler, to: str) -> None:
    handler.send_response(302)
    handler.send_header("Location", to)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


HELD = b"bundle" * 1000


WAITED_FOR: list[bytes] = []  # what dripped to its end, or would have


def drip(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    """A byte at a time, until nobody listens any more."""
    with suppress(OSError):
        for byte in data:
            handler.wfile.write(bytes([byte]))
            time.sleep(0.02)
        WAITED_FOR.append(data)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n" % (len(HELD), HELD)
LONG = 1000  # bytes or lines that drip: 20 seconds of them, which no test waits for
SLOW: dict[str, tuple[bytes, bytes]] = {  # what comes at once, and what drips
    "status": (b"", b"HTTP/1.1 200 " + b"O" * LONG),
    "head": (OK, b"X-Long: " + b"x" * LONG),
    "heads": (OK, b"X: x\r\n" * LONG),
    "continued": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * LONG),
    "body": (OK + b"Content-Length: %d\r\n\r\n" % len(HELD), HELD),
    "untold-body": (OK + b"\r\n", HELD),
    "chunk-size": (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * LONG),
    "trailer": (OK + CHUNKED, b"X: " + b"x" * LONG),
    "trailers": (OK + CHUNKED, b"X: x\r\n" * LONG),
    "redirection": (b"HTTP/1.1 302 Found\r\n", b"X: " + b"x" * LONG),
}


def slow(handler: BaseHTTPRequestHandler, at_once: bytes, dripping: bytes) -> None:
    handler.wfile.write(at_once)
    drip(handler, dripping)


class Encrypted(ThreadingHTTPServer):
    """Shakes hands in a connection's own thread; one that hangs up is no error of the server's."""

    def __init__(self, context: ssl.SSLContext, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.socket = context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )

    def handle_error(self, request: object, client_address: object) -> None:
        assert isinstance(sys.exc_info()[1], OSError)


NAME = "bundles.example"


@functools.cache
def authority() -> tuple[trustme.CA, ssl.SSLContext]:
    """Who signs, and what the tests' servers show."""
    signs, shows = trustme.CA(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    signs.issue_cert("127.0.0.1", NAME).configure_cert(shows)
    return signs, shows


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This process trusts the tests' authority, and asks no proxy."""
    authority()[0].cert_pem.write_to_path(tmp_path / "authority.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authority.pem"))
    monkeypatch.setenv("no_proxy", "*")


class Routes(Answers):
    """Good and bad answers of one server."""

    asked: ClassVar = []


@pytest.fixture
def server(trusted: None) -> Iterator[str]:
    """A server of good and bad answers on this machine."""
    Routes.asked.clear()
    with Encrypted(authority()[1], Routes) as https:
        port = https.server_port
        home = f"https://127.0.0.1:{port}"
        Routes.routes = {
            "/good": partial(body, data=HELD),
            "/untold": partial(body, data=HELD, told=False),
            "/other": partial(body, data=HELD[::-1]),
            "/long": partial(body, data=HELD + b"x", told=False),
            "/endless": partial(body, data=HELD * 1000, told=False),
            "/lies": partial(body, data=HELD, length=10**12),
            "/short": partial(body, data=HELD[:-1], told=False),
            "/cut": partial(body, data=HELD[:-1], length=len(HELD)),
            "/gone": lambda h: h.send_error(404),
            "/nowhere": lambda h: h.send_error(302),
            "/moved": partial(moved, to=f"{home}/good"),
            "/nearby": partial(moved, to="good"),
            "/round": partial(moved, to=f"{home}/round"),
            "/plain": partial(moved, to=f"http://127.0.0.1:{port}/good"),
            "/file": partial(moved, to="file:///etc/passwd"),
            "/ftp": partial(moved, to="ftp://127.0.0.1/x"),
            "/named": partial(moved, to=f"https://{NAME}:{port}/good"),
            "/elsewhere": partial(moved, to=f"https://127.0.0.2:{port}/good"),
            "/bracket": partial(moved, to="https://[/good"),
            **{f"/{name}": partial(slow, at_once=a, dripping=b) for name, (a, b) in SLOW.items()},
        }
        with answering(https):
            yield home


@contextmanager
def answering(http: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    try:
        yield
    finally:
        http.shutdown()
        thread.join()


def test_https_asks_for_a_certificate_that_is_trusted(
    server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the default of `ssl` is: by the machine's authorities, or those of SSL_CERT_FILE."""
    with monkeypatch.context() as patch:
        patch.delenv("SSL_CERT_FILE")
        with pytest.raises(RecordError, match="CERTIFICATE_VERIFY_FAILED"):
            fetched(f"{server}/good")
    assert Routes.asked == []
    assert fetched(f"{server}/good") == HELD
    with pytest.raises(RecordError, match=r"CERTIFICATE_VERIFY_FAILED.*localhost"):
        fetched(f"{server.replace('127.0.0.1', 'localhost')}/good")


def fetched(url: str, *, seconds: float = 60.0, allow_private: bool = True) -> bytes:
    deadline = Deadline.after(seconds, 30.0)
    digest = paths.digest(HELD)
    return fetch.download(url, len(HELD), digest, deadline, allow_private=allow_private)


@pytest.mark.parametrize("path", ["good", "untold", "moved", "nearby"])
def test_what_has_size_and_digest_is_taken(path: str, server: str) -> None:
    assert fetched(f"{server}/{path}") == HELD


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("other", "another digest"),
        ("long", "more bytes than"),
        ("endless", "more bytes than"),
        ("lies", "1000000000000 bytes are offered, the bundle has 6000"),
        ("short", "5999 bytes came"),
        ("cut", "IncompleteRead|5999 bytes came"),
        ("gone", "Not Found"),
        ("nowhere", "Found"),
        ("round", "leads from one redirect to the next, 10 times"),
        ("plain", "leads to an address that is not https"),
        ("file", "leads to an address that is not https"),
        ("ftp", "leads to an address that is not https"),
        ("bracket", "Invalid IPv6 URL"),
    ],
)
def test_what_has_not_is_refused_in_one_line(path: str, why: str, server: str) -> None:
    with pytest.raises(RecordError, match=why) as caught:
        fetched(f"{server}/{path}")
    assert f"{server}/{path}: " in str(caught.value)


@pytest.mark.parametrize("name", SLOW)
def test_what_drips_ends_with_the_time(name: str, server: str) -> None:
    """Whatever part of an answer it is; no single wait is long."""
    WAITED_FOR.clear()
    with pytest.raises(RecordError, match="not whole in time; all addresses have 30 minutes"):
        fetched(f"{server}/{name}", seconds=0.5)
    assert WAITED_FOR == []


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x03\x3f\xff" + b"x" * LONG], ids=["no", "slow"])
def test_a_handshake_ends_with_the_time(said: bytes, trusted: None) -> None:
    """With a machine that answers nothing, or a record that never ends."""

    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            if said:
                return drip(self, said)
            self.connection.settimeout(20)
            try:
                while self.connection.recv(4096):
                    pass
            except TimeoutError:
                WAITED_FOR.append(said)

    WAITED_FOR.clear()
    late = pytest.raises(RecordError, match="not whole in time")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http, answering(http), late:
        try:
            fetched(f"https://127.0.0.1:{http.server_port}/", seconds=0.5)
        finally:
            assert WAITED_FOR == []


def test_a_name_ends_with_the_time(trusted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that does not answer."""
    ended = threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[object]:
        if not ended.wait(20):
            WAITED_FOR.append(b"name")
        return []

    WAITED_FOR.clear()
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        with pytest.raises(RecordError, match="not whole in time"):
            fetched(f"https://{NAME}/", seconds=0.3)
        assert WAITED_FOR == []
    finally:
        ended.set()


def test_no_pause_is_longer_than_allowed() -> None:
    one, other = socket.socketpair()
    with one, other, pytest.raises(TimeoutError):
        connections.Incoming(one, Deadline.after(3600, 0.01)).readinto(bytearray(1))


def test_each_address_has_its_part_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: now)
    now = 100.0
    deadline = Deadline.after(90.0, 20.0)
    assert (deadline.part(3).end, deadline.part(1), deadline.wait()) == (130.0, deadline, 20.0)
    now = 180.0
    assert (deadline.part(2).end, deadline.wait(), deadline.passed) == (185.0, 10.0, False)
    now = 190.0
    assert deadline.passed
    with pytest.raises(TimeoutError):
        deadline.wait()


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/x", "file:///etc/passwd", "ftp://127.0.0.1/x", "//x", "x"]
)
def test_only_https_is_asked(url: str) -> None:
    with pytest.raises(RecordError, match="only https"):
        fetched(url)


# Whom a stranger's record may ask

PRIVATE = (
    "127.0.0.1", "127.8.8.8", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254",
    "100.64.0.1", "0.0.0.0", "0.1.2.3", "192.0.2.1", "198.18.0.1", "224.0.0.1", "239.1.1.1",
    "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12::1",
    "fec0::1", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::7f00:1",
    "64:ff9b::7f00:1", "64:ff9b::a00:1", "2002:7f00:1::1", "2002:a00:1::", "2001:0:7f00:1::1",
)  # fmt: skip
PUBLIC = (
    "1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101",
)  # fmt: skip


@pytest.mark.parametrize("ip", [*PRIVATE, *PUBLIC])
def test_which_addresses_are_the_internets(ip: str) -> None:
    assert addresses.is_public(ip_address(ip)) == (ip in PUBLIC)


Places = dict[str, tuple[str, ...]]


@pytest.fixture
def lookups(monkeypatch: pytest.MonkeyPatch) -> Places:
    """What names lead to, in place of the resolver's answers."""
    known: Places = {}

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        kind = socket.AF_INET, socket.SOCK_STREAM, 6, ""
        return [(*kind, (ip, port)) for ip in known.get(host, (host,))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return known


def outside(monkeypatch: pytest.MonkeyPatch, *ips: str) -> None:
    """These are taken for addresses of the internet, and no others."""
    monkeypatch.setattr(addresses, "is_public", lambda ip: str(ip) in ips)


def named(server: str) -> str:
    return server.replace("127.0.0.1", NAME)


def test_a_private_address_is_not_asked_unless_it_is_allowed(server: str, lookups: Places) -> None:
    """Neither by number, in whatever form, nor by name."""
    lookups[NAME] = ("127.0.0.1",)
    for url in (f"{server}/good", f"{named(server)}/good"):
        with pytest.raises(
            RecordError, match=r"is 127\.0\.0\.1, no public address; .*--allow-priv"
        ):
            fetched(url, allow_private=False)
    assert Routes.asked == []
    assert fetched(f"{named(server)}/named") == HELD  # where it is allowed, it may lead on there


@pytest.mark.parametrize("allow_private", [False, True])
@pytest.mark.parametrize("path", ["elsewhere", "named"])
def test_a_public_address_leads_to_no_private_one(
    path: str,
    allow_private: bool,
    server: str,
    lookups: Places,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever is allowed: the record's own address is not there."""
    lookups[NAME] = ("127.0.0.2",)
    outside(monkeypatch, "127.0.0.1")
    with pytest.raises(RecordError, match=r"leads into a private network: .* is 127\.0\.0\.2"):
        fetched(f"{server}/{path}", allow_private=allow_private)
    assert Routes.asked == [f"/{path}"]
    assert fetched(f"{server}/moved", allow_private=allow_private) == HELD


def test_every_address_of_a_name_is_looked_at(
    server: str, lookups: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookups[NAME] = ("127.0.0.1", "10.0.0.1")
    outside(monkeypatch, "127.0.0.1")
    with pytest.raises(RecordError, match=r"is 10\.0\.0\.1, no public address"):
        fetched(f"{named(server)}/good", allow_private=False)
    with pytest.raises(RecordError, match=r"leads into a private network: .* is 10\.0\.0\.1"):
        fetched(f"{server}/named", allow_private=False)
    assert Routes.asked == ["/named"]


def test_a_name_is_asked_for_once(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else its second answer, which nobody looked at, would be where the connection goes."""
    asked: list[str] = []

    def getaddrinfo(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        asked.append(host)
        ip = "127.0.0.1" if len(asked) == 1 else "127.0.0.2"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    outside(monkeypatch, "127.0.0.1")
    assert fetched(f"{named(server)}/good", allow_private=False) == HELD
    assert asked == [NAME]


def test_the_next_address_is_tried_where_one_does_not_answer(server: str, lookups: Places) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    places = tuple(
        Place(socket.AF_INET, ("127.0.0.1", port))
        for port in (free, int(server.rpartition(":")[2]))
    )
    with ExitStack() as opened:
        tls = ssl.create_default_context()
        to = connections.Connection("x", Reach(True), Deadline.after(60, 30), opened, tls)
        assert to._connected(places).getpeername() == places[1].address
        with pytest.raises(ConnectionRefusedError):
            to._connected(places[:1])


class Proxy(Answers):
    """Connects to where it is asked to, and passes on what comes from both sides."""

    asked: ClassVar = []

    def do_CONNECT(self) -> None:
        self.asked.append(self.path)
        host, _, port = self.path.partition(":")
        with socket.create_connection((host, int(port))) as there, suppress(OSError):
            self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
            back = threading.Thread(target=self.passed, args=(there, self.connection))
            back.start()
            self.passed(self.connection, there)
            back.join()

    @staticmethod
    def passed(one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
            other.shutdown(socket.SHUT_WR)


def test_a_proxy_is_told_the_address_that_was_checked(
    server: str, lookups: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be anywhere itself; what it is asked for may not."""
    Proxy.asked.clear()
    lookups |= {NAME: ("127.0.0.1",), "proxy.example": ("127.0.0.1",)}
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as http, answering(http):
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("https_proxy", f"http://proxy.example:{http.server_port}")
        assert fetched(f"{named(server)}/moved") == HELD
        assert Proxy.asked == [server.removeprefix("https://")] * 2
        with pytest.raises(RecordError, match=r"bundles\.example is 127\.0\.0\.1, no public"):
            fetched(f"{named(server)}/good", allow_private=False)
        assert len(Proxy.asked) == 2


def test_nobody_listens() -> None:
    with pytest.raises(RecordError, match=r"https://127\.0\.0\.1:9/x: "):
        fetched("https://127.0.0.1:9/x")


def test_the_first_good_address_is_kept_in_the_cache(
    share: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LTHBENCH_CACHE", str(tmp_path / "cache"))
    held, asked = house().bundle.read_bytes(), []

    def answer(
        url: str, size: int, sha256: str, deadline: Deadline, *, allow_private: bool
    ) -> bytes:
        asked.append(url)
        assert deadline.end <= time.monotonic() + fetch.LONGEST and not allow_private
        if url.endswith("/bad"):
            raise RecordError(f"{url}: gone\u202e\nnow")
        return held

    monkeypatch.setattr(fetch, "download", answer)
    urls = ("https://a.example/bad", "https://b.example/good", "https://c.example/good")
    entry = found(entry_of(share, house().bundle, DIGITS, urls=urls))
    path = tickets.bundle_of(entry)
    assert path == tmp_path / "cache" / "bundles" / f"{paths.digest(held)}.zip"
    assert path.read_bytes() == held
    assert tickets.bundle_of(entry) == path
    assert asked == list(urls[:2])
    path.write_bytes(held[:-1] + b"x")  # damaged: fetched anew
    assert tickets.bundle_of(entry) == path and path.read_bytes() == held
    bad = found(entry_of(share, house().bundle, DIGITS, urls=urls[:1]))
    path.unlink()
    with pytest.raises(RecordError, match=r"no bundle .* to be had: .*/bad: gone") as caught:
        tickets.bundle_of(bad)
    assert str(caught.value).isprintable()


def test_what_is_allowed_is_passed_on(
    share: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By `tickets fetch` and `verify`, of any level."""
    monkeypatch.setenv("LTHBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LTHBENCH_BUNDLES", raising=False)
    asked: list[bool] = []

    def answer(*_: object, allow_private: bool) -> bytes:
        asked.append(allow_private)
        raise RecordError("nothing there")

    monkeypatch.setattr(fetch, "download", answer)
    frozen = (home / "_share" / "leaderboard" / "reference" for home in (house().share, share))
    shutil.copytree(*frozen, dirs_exist_ok=True)
    name = entry_of(share, house().bundle, DIGITS, urls=("https://10.0.0.1/b.zip",))
    for verb in (["tickets", "fetch"], ["verify", "--level", "0"], ["verify"]):
        for more in ([], ["--allow-private"]):
            done = commands.run(*verb, name, *more, cwd=tmp_path)
            assert "nothing there" in done.stdout + done.stderr
    assert asked == [False, True] * 3


# Entries


def test_the_bundle_must_hold_this_very_record(share: Path, bundles: Path) -> None:
    """The same bundle under a record whose source is said to have another licence."""
    method = house().records[0].method
    other = method.model_copy(update={"described": {"licence": "none"}})
    name = entry_of(share, house().bundle, DIGITS, changed={"method": other})
    (bundles / "b.zip").write_bytes(house().bundle.read_bytes())
    with pytest.raises(RecordError, match="holds another record of tiny-digits than the board"):
        tickets.opened(found(name))


def test_a_retracted_entry_gives_no_tickets(known: str, share: Path, tmp_path: Path) -> None:
    entry = found(known)
    tell(share, "retract", entry.digest, DIGITS, "mixed", why="wrong seeds")
    for call in (
        partial(ticket_folder.fetch, known, tmp_path / "out"),
        partial(tickets.load_ticket, known),
    ):
        with pytest.raises(RecordError, match=r"was retracted: wrong seeds; its tickets"):
            call()
    assert not (tmp_path / "out").exists()


def test_an_entry_that_is_not_accepted_gives_no_tickets(
    known: str, share: Path, tmp_path: Path
) -> None:
    (share / "_share" / "leaderboard" / "ledger.jsonl").write_bytes(b"")
    with pytest.raises(RecordError, match="is not accepted yet"):
        ticket_folder.fetch(known, tmp_path / "out")


def test_a_superseded_entry_gives_tickets_and_says_so(
    known: str, share: Path, tmp_path: Path
) -> None:
    urls = ("https://a.example/b.zip",)
    after = entry_of(share, house().bundle, DIGITS, urls=urls)
    old, new = found(known), found(after)
    tell(share, "supersede", new.digest, DIGITS, "mixed", of=old.digest)
    text = ticket_folder.fetch(known, tmp_path / "out").text()
    assert f"Note: {known} was superseded by {after}" in text


# Folders


def test_nobodys_files_are_written_over(
    known: str, share: Path, bundles: Path, tmp_path: Path
) -> None:
    """Neither a README nor anything else; what a fetch left, whole or cut short, is its own."""
    folder = tmp_path / "mine"
    for name, text in (
        ("README.md", "my own"),
        ("index.json", '{"tickets": []}'),
        ("index.json", "[" * 10**5),
        ("seed0/notes.txt", "my own"),
    ):
        path = folder / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
        with pytest.raises(UsageError, match=rf"mine: holds {name}, which no fetch wrote; name"):
            ticket_folder.fetch(known, folder)
        assert [p for p in folder.rglob("*") if p.is_file()] == [path] and path.read_text() == text
        shutil.rmtree(folder)
    folder.write_text("a file")
    with pytest.raises(UsageError, match="is a file; name another folder"):
        ticket_folder.fetch(known, folder)
    folder.unlink()
    folder.mkdir()
    ticket_folder.fetch(known, folder)
    other = entry_of(share, house().bundle, MODADD)
    assert ticket_folder.fetch(other, folder).folder == folder  # of whichever entry
    for name in ("index.json", "README.md"):
        (folder / name).unlink()
    (folder / "seed0" / ".tmp-0011223344556677").write_bytes(b"")
    ticket_folder.fetch(known, folder)
    assert json.loads((folder / "index.json").read_bytes())["entry"] == known


# Tickets


def test_a_ticket_is_printed_in_one_line(known: str) -> None:
    ticket = tickets.load_ticket(known, seed=1, density=0.2)
    total = sum(mask.numel() for mask in ticket.masks.values())
    assert (
        repr(ticket)
        == str(ticket)
        == (
            f"LoadedTicket({DIGITS}, seed 1, density 0.2, origin signs, step 0: "
            f"{round(0.2 * total):,} of {total:,} weights kept)"
        )
    )


@pytest.mark.parametrize("number", range(3))
def test_a_ticket_is_the_one_that_was_evaluated(number: int, known: str) -> None:
    """Its masks, and its weights bit by bit; of free ones the pruned entries are zero."""
    density = RUNGS[number]
    ticket = tickets.load_ticket(known, seed=1, density=density)
    header, masks, weights = ticket_files.read_ticket(
        house().out / DIGITS / "tickets/seed1", density
    )
    assert (ticket.task, ticket.seed, ticket.density) == (DIGITS, 1, density)
    assert (ticket.origin, ticket.start, ticket.trained) == (header["origin"], 0, True)
    assert ticket.origin == ("init", "signs", "free")[number]
    assert ticket.masks.keys() == masks.keys()
    assert all(torch.equal(ticket.masks[name], masks[name]) for name in masks)
    spec = load_task(DIGITS).network
    start = weights or families.initial(spec, spec.depth, 1).tensors()
    for name, tensor in ticket.state_dict.items():
        assert tensor.dtype == torch.float32
        kept = masks.get(name, torch.ones_like(tensor, dtype=torch.bool))
        assert torch.equal(tensor[kept], start[name][kept])
    assert ticket.note == ""


@pytest.mark.parametrize("task", [DIGITS, MODADD])
def test_a_ticket_is_pruned_trained_and_read_by_torch(task: str, share: Path) -> None:
    """`torch.nn.utils.prune` takes the masks; pruned weights stay zero while the others learn."""
    ticket = lthbench.load_ticket(house().bundle, task, seed=0, density=0.2)
    network = ticket.network()
    for name, mask in ticket.masks.items():
        module, _, parameter = name.rpartition(".")
        layer = network.get_submodule(module)
        assert prune.is_pruned(layer)
        assert torch.equal(getattr(layer, f"{parameter}_mask"), mask.float())
        assert torch.equal(getattr(layer, parameter), ticket.state_dict[name] * mask)
    protocol = load_task(task)
    train = trainings.examples(protocol, datasets.search(protocol, 0).train)
    x, y = train.inputs(slice(None)), train.labels(slice(None))
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(150):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(network(x), y)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    answers_before = network.eval()(x).argmax(1)
    for name, mask in ticket.masks.items():
        module, _, parameter = name.rpartition(".")
        prune.remove(network.get_submodule(module), parameter)  # type: ignore[no-untyped-call]
        weights = dict(network.named_parameters())[name]
        assert not weights[~mask].any() and weights[mask].any()
    assert torch.equal(network(x).argmax(1), answers_before)


def test_masks_and_weights_without_lthbench(known: str, tmp_path: Path) -> None:
    """The lines of the README that is written with them, on a network of one's own."""
    done = ticket_folder.fetch(known, tmp_path / "out")
    index = json.loads((done.folder / "index.json").read_bytes())
    assert (done.tickets, done.seeds, done.densities) == (6, (0, 1), RUNGS)
    assert [row["file"] for row in index["tickets"]] == [
        f"seed{seed}/{round(density * 1e6):07d}.safetensors" for seed in (0, 1) for density in RUNGS
    ]
    readme = (done.folder / "README.md").read_text()
    code = readme.partition("```python\n")[2].partition("```")[0]
    spec = load_task(DIGITS).network
    network = families.load(spec, spec.depth, families.initial(spec, spec.depth, 99))
    file = code.partition('load_file("')[2].partition('"')[0]
    exec(code.replace(file, str(done.folder / file)), {"network": network})
    ticket = tickets.load_ticket(known, seed=1)
    for name, mask in ticket.masks.items():
        weights = network.get_parameter(f"{name}_orig") * network.get_buffer(f"{name}_mask")
        assert torch.equal(weights, ticket.state_dict[name] * mask)
    for row in index["tickets"]:
        tensors = load_file(done.folder / row["file"])
        bits = {n.removeprefix("mask/"): t for n, t in tensors.items() if n.startswith("mask/")}
        assert sum(int(mask.sum()) for mask in bits.values()) == row["kept"]
        weights_ = {n: t for n, t in tensors.items() if not n.startswith("mask/")}
        if row["origin"] != "free":
            assert State(weights_, row["start"]).digest == row["weights"]


def test_two_fetches_are_the_same_bytes(known: str, tmp_path: Path) -> None:
    first, second = (ticket_folder.fetch(known, tmp_path / name).folder for name in "ab")
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) == 8
    assert all((first / path).read_bytes() == (second / path).read_bytes() for path in files)


def test_a_later_step_is_trained_here(
    tmp_path: Path, share: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """theta_k is in no bundle: twelve dense steps give it, bit by bit on this machine."""
    out = finished(tmp_path / "out", REWOUND, (DIGITS,), seeds=1)
    file = tmp_path / "bundle.zip"
    file.write_bytes(pack(out, records_of(out)))
    for density, origin in zip(RUNGS, ("rewind", "signs", "rewind"), strict=True):
        ticket = tickets.load_ticket(file, seed=0, density=density)
        _, masks, weights = ticket_files.read_ticket(out / DIGITS / "tickets/seed0", density)
        assert (ticket.origin, ticket.start, ticket.note) == (origin, 12, "")
        for name, tensor in ticket.state_dict.items():
            kept = masks.get(name, torch.ones_like(tensor, dtype=torch.bool))
            assert torch.equal(tensor[kept], weights[name][kept])
    trained = tickets._trained
    monkeypatch.setattr(
        tickets, "_trained", lambda *at: State({n: t + 1e-7 for n, t in trained(*at).items()}, 12)
    )
    assert "differ in their last bits" in tickets.load_ticket(file).note


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"seed": 7}, "no ticket of seed 7; there are seeds 0, 1"),
        ({"density": 0.3}, "no ticket at density 0.3; there are 0.5, 0.2, 0.1"),
        ({"density": float("nan")}, "no ticket at density nan"),
        ({"task": "mlp-digits"}, "an entry of tiny-digits, not of mlp-digits"),
    ],
)
def test_what_is_not_there(arguments: dict[str, object], said: str, known: str) -> None:
    with pytest.raises(UsageError, match=said):
        tickets.load_ticket(known, **arguments)  # type: ignore[arg-type]


def test_a_bundle_of_several_tasks_needs_a_task(share: Path) -> None:
    with pytest.raises(UsageError, match="holds tickets of tiny-digits, tiny-modadd; name one"):
        tickets.load_ticket(house().bundle)
    assert tickets.load_ticket(house().bundle, DIGITS).density == RUNGS[-1]
    assert tickets.load_ticket(str(house().bundle), DIGITS, density=0.2001).density == 0.2


def test_an_entry_that_is_none(known: str) -> None:
    with pytest.raises(RecordError, match=rf"no entry 'mixt.* \(did you mean {known}\?\)"):
        tickets.load_ticket("mixt" + known[5:])
    with pytest.raises(LthbenchError, match="no such file"):
        tickets.load_ticket("absent.zip")


def test_other_initial_weights_than_the_seeds_are_refused(
    known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that names other weights than the seed's own says of a ticket what is not so."""
    initial = families.initial
    monkeypatch.setattr(families, "initial", lambda spec, depth, seed: initial(spec, depth, 9))
    with pytest.raises(RecordError, match="names other initial weights than its seed's"):
        tickets.load_ticket(known, seed=0, density=0.5)


def test_the_verb_tells_what_it_wrote(
    known: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Into a folder that is named after the entry, or where one says; errors are one line."""
    monkeypatch.chdir(tmp_path)

    def said(*arguments: str) -> tuple[str, str, int]:
        monkeypatch.setattr(sys, "argv", ["lthbench", "tickets", "fetch", *arguments])
        with pytest.raises(SystemExit) as ended:
            main.main()
        out, err = capsys.readouterr()
        return out, err, int(ended.value.code or 0)

    out, err, code = said(known)
    assert (err, code) == ("", 0)
    assert out.splitlines()[0] == f"{known}: 6 tickets in tickets/{known}"
    assert (tmp_path / "tickets" / known / "seed1" / "0100000.safetensors").is_file()
    out, err, code = said("nobody", "--out", "there")
    assert (out, code) == ("", 2)
    assert err.startswith("lthbench: no entry 'nobody'") and err.count("\n") == 1
