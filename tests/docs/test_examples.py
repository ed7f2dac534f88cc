"""The examples of the manual, each a program of its own, on the reactor that this run is for: what they print."""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
import shutil
import signal
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from launched import PATIENCE, Running, connect, run, talk

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = DOCS / "examples"

# Runs a program on the reactor that is named first.
START = """
import runpy, sys
name, *sys.argv = sys.argv[1:]
if name == "asyncio":
    from twisted.internet import asyncioreactor
    asyncioreactor.install()
if name == "uvloop":
    from twisted_net import uvreactor
    uvreactor.install()
runpy.run_path(sys.argv[0], run_name="__main__")
"""

# Twisted keeps a spare descriptor on /dev/null and leaves it to the end of the process.
WARNED = (sys.executable, "-u", "-W", "error", "-W", "ignore:unclosed file:ResourceWarning")
PYTHON = (*WARNED, "-c", START)

Start = Callable[..., Running]


@pytest.fixture
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Starts an example; whatever still runs after the test is killed, and all are reaped."""
    chosen = os.environ.get("TWISTED_NET_TESTS_ON") or request.config.getoption("reactor")
    with ExitStack() as programs:

        def start(name: str, *arguments: str, reactor: str = chosen) -> Running:
            path = str(EXAMPLES / f"{name}.py")
            return programs.enter_context(Running(PYTHON, reactor, path, *arguments, folder=tmp_path))

        yield start


@pytest.fixture(params=["tcp", "unix"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a server is told to listen: on any free port, or on a path."""
    return "127.0.0.1:0" if request.param == "tcp" else str(tmp_path / "echo.sock")


def printed(program: Running) -> list[str]:
    """Everything that a program has printed, once it has ended by itself: with success, and with nothing to say on
    stderr."""
    ended = program.end()
    assert (ended.code, ended.err) == (0, "")
    return program.lines


def terminated(program: Running) -> list[str]:
    """The same, of a program that has to be told to end."""
    program.signal(signal.SIGTERM)
    return printed(program)


def test_luvitEcho(place: str, start: Start, tmp_path: Path) -> None:
    server = start("luvit_echo_server", place)
    where = server.wait("listening on (.*)")[1]
    client = printed(start("luvit_echo_client", where))
    assert client == ["client connected", r"on_data b'world!\r\n'", "client disconnected"]
    server.wait("client disconnected")
    assert terminated(server) == ["server bound", f"listening on {where}", "server connected", "client disconnected"]
    assert not (tmp_path / "echo.sock").exists()
    code = "ECONNREFUSED" if place == "127.0.0.1:0" else "ENOENT"
    assert printed(start("luvit_echo_client", where)) == [f"error {code}"]


def occupied(place: str) -> tuple[socket.socket, str]:
    """Somebody else who listens there, and the address."""
    family = socket.AF_UNIX if place.startswith("/") else socket.AF_INET
    other = socket.socket(family)
    other.bind(place if family == socket.AF_UNIX else ("127.0.0.1", 0))
    other.listen()
    name = other.getsockname()
    return other, name if family == socket.AF_UNIX else f"127.0.0.1:{name[1]}"


def test_luvitRetry(place: str, start: Start) -> None:
    other, where = occupied(place)
    with other:
        program = start("luvit_retry", where, "timer", "20")
        program.wait("retrying")
        program.wait("retrying")
    lines = printed(program)
    assert lines == ["Address in use, retrying..."] * (len(lines) - 1) + ["server bound"]


def test_luvitRetryBuiltIn(place: str, start: Start) -> None:
    other, where = occupied(place)
    with other:
        program = start("luvit_retry", where, "backoff", "125")
        program.wait("attempt 2")
    lines = printed(program)
    waits = [0.125 * 2**attempt for attempt in range(len(lines) - 1)]
    attempts = [f"attempt {count}: EADDRINUSE, again in {wait:g} s" for count, wait in enumerate(waits, 1)]
    assert lines == [*attempts, "server bound"]


def test_mongoosePair(start: Start) -> None:
    assert printed(start("mongoose_pair", "0")) == [
        "Started to listen",
        "New incoming conenction",
        "Client connected",
        "New data received Hello",
        "Data sent back",
        "Client received new data Hello",
        "Client socket is closed",
    ]


def test_evo(place: str, start: Start) -> None:
    server = start("evo_server", place)
    where = server.wait("listening on (.*)")[1]
    ana = start("evo_client", where, "ana")
    ana.wait("welcome")
    cleo = start("evo_client", where, "cleo")
    cleo.wait("welcome")
    ben = printed(start("evo_client", where, "ben", "hello all", "close cleo", "close nobody", "x" * 3000))
    assert ben == ["welcome, ben", "the server has ended"]
    assert printed(cleo) == ["welcome, cleo", "ben: hello all", "the server has ended"]
    ana.wait("xxx")
    server.wait("ben has left")
    said = terminated(server)
    assert printed(ana) == [
        "welcome, ana",
        "ben: hello all",
        f"ben: {'x' * 3000}",
        "the server closes",
        "the server has ended",
    ]
    # All that ben said came at once, before the server had looked at his name.
    assert said == [
        f"listening on {where}",
        "ana is here, one of 1",
        "cleo is here, one of 2",
        "somebody is paused: readRate",
        "ben is here, one of 3",
        "ben says 9 characters to 2",
        "ben closes cleo",
        "cleo has left in good order",
        "ben says 3000 characters to 1",
        "ben has left in good order",
        "ana has left in good order",
        "closed",
    ]


def test_evoIdleTimeout(place: str, start: Start) -> None:
    server = start("evo_server", place, "1")
    where = server.wait("listening on (.*)")[1]
    assert printed(start("evo_client", where, "ana")) == ["welcome, ana", "the server has ended"]
    server.wait("has left")
    assert terminated(server) == [
        f"listening on {where}",
        "ana is here, one of 1",
        "ana is closed: idleTimeout",
        "ana: ETIMEDOUT",
        "ana has left after an error",
        "closed",
    ]


def test_evoAndStrangers(place: str, start: Start) -> None:
    server = start("evo_server", place)
    where = server.wait("listening on (.*)")[1]
    assert talk(where, b"\xff\nnobody hears\n") == "welcome, \ufffd\n".encode()
    server.wait("has left")
    with connect(where) as peer:
        peer.sendall(b"x" * 5000)
        server.wait("is paused")
        server.wait("has left")
    # What somebody who is closed had sent before is not looked at any more.
    with connect(where) as peer:
        peer.sendall(b"ben\nclose ben\nnobody hears\n")
        server.wait("ben has left")
    assert terminated(server) == [
        f"listening on {where}",
        "\ufffd is here, one of 1",
        "\ufffd says 12 characters to 0",
        "\ufffd has left in good order",
        "somebody is paused: readRate",
        "somebody: ERR_LIMIT",
        "somebody has left after an error",
        "ben is here, one of 1",
        "ben closes ben",
        "ben has left in good order",
        "closed",
    ]


def test_evoWithoutEachOther(place: str, start: Start) -> None:
    other, where = occupied(place)
    with other:
        (line,) = printed(start("evo_server", where))
    assert line.startswith("cannot listen: ")
    assert line.endswith("[EADDRINUSE]")
    (line,) = printed(start("evo_client", where, "ana"))  # nobody listens there any more
    assert line.startswith("error: ")
    assert line.endswith("[ECONNREFUSED]")
    Path(place).unlink(missing_ok=True)


def test_wirePair(place: str, start: Start) -> None:
    lines = printed(start("wire_pair", place))
    # Two ends in one program: which of them is told first is the kernel's affair.
    assert [line for line in lines if line.startswith("server: ")] == [
        "server: connected",
        "server: received b'hello'",
        "server: the peer has ended",
        "server: our end is sent",
        "server: closed in good order",
    ]
    assert [line for line in lines if line.startswith("client: ")] == [
        "client: connected",
        "client: received b'hello'",
        "client: our end is sent",
        "client: the peer has ended",
        "client: closed in good order",
    ]
    assert [line for line in lines if ": " not in line] == ["listening", "the client is connected", "stopped"]


def test_luneAccept(place: str, start: Start) -> None:
    server = start("lune_accept", place)
    where = server.wait("listening on (.*)")[1]
    assert talk(where, b"hello") == b"HTTP/1.1 200 OK\r\n\r\nHello!"
    assert re.fullmatch(
        rf"Server listening on {where}\nClient connected from: (unix:|127\.0\.0\.1:\d+)\nReceived: b'hello'",
        "\n".join(printed(server)),
    )


def test_luneServe(place: str, start: Start) -> None:
    server = start("lune_serve", place)
    where = server.wait("listening on (.*)")[1]
    for path in (b"/one", b"/two"):
        answer = talk(where, b"GET " + path + b" HTTP/1.1\r\n\r\n")
        assert answer == b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nHello from Lune!"
        server.wait("Request")
    said = ["Request: GET /one HTTP/1.1", "Request: GET /two HTTP/1.1"]
    assert terminated(server) == [f"Server listening on {where}", *said]


def test_luneEcho(place: str, start: Start) -> None:
    server = start("lune_echo", place)
    where = server.wait("running on (.*)")[1]
    assert talk(where, b"x" * 100_000) == b"x" * 100_000
    assert terminated(server) == [f"Echo server running on {where}"]


def test_luneUdp(start: Start) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        peer.settimeout(PATIENCE)
        there = f"127.0.0.1:{peer.getsockname()[1]}"
        client = start("lune_udp", "127.0.0.1:0", there)
        for data in (b"Hello, World!", b"Hello"):
            heard, address = peer.recvfrom(100)
            assert heard == data
            peer.sendto(b"answer", address)
        bound = f"127.0.0.1:{address[1]}"
        assert printed(client) == [f"Bound to: {bound}", "Received: b'answer'", f"From: {there}", "Then: b'answer'"]


def test_luneGameServer(start: Start) -> None:
    server = start("lune_game_server", "127.0.0.1:0")
    port = int(server.wait(r"listening on UDP 127\.0\.0\.1:(\d+)")[1])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as player:
        player.settimeout(PATIENCE)
        player.connect(("127.0.0.1", port))
        for data in (b"jump", b"x" * 600):
            player.send(data)
            assert player.recv(100) == b"ACK"
    assert terminated(server)[1:] == ["Packet: b'jump'", f"Packet: {b'x' * 512!r}"]


def test_udpDns(start: Start) -> None:
    server = start("udp_dns", "127.0.0.1:0", "host.test=192.0.2.1", "host.test=2001:db8::1")
    port = int(server.wait(r"answering on 127\.0\.0\.1:(\d+)")[1])
    name = b"\x04HOST\x04test\x00"

    def query(kind: int, name: bytes = name, flags: int = 0x0100) -> bytes:
        return struct.pack("!6H", 4711, flags, 1, 0, 0, 0) + name + struct.pack("!2H", kind, 1)

    queries = {
        query(1): (0, [bytes([192, 0, 2, 1])]),
        query(28): (0, [ipaddress.ip_address("2001:db8::1").packed]),
        query(15): (0, []),
        query(1, b"\x06nobody\x00"): (3, []),
        query(1, flags=0x0800): (4, []),
        query(1)[:20]: (1, []),
        query(1)[:4] + bytes(2) + query(1)[6:]: (1, []),
    }
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", port))
        client.send(b"nonsense")  # and no answer, nor to an answer
        client.send(query(1, flags=0x8000))
        for asked, (code, addresses) in queries.items():
            client.send(asked)
            answer = client.recv(1000)
            number, flags, _, count, *_ = struct.unpack_from("!6H", answer)
            assert (number, flags & 0x8000, flags & 15, count) == (4711, 0x8000, code, len(addresses))
            assert all(answer.endswith(address) for address in addresses)
    assert terminated(server) == [f"answering on 127.0.0.1:{port}"]


def test_luaSocket(start: Start) -> None:
    server = start("luasocket_server")
    port = server.wait(r"listening on 0\.0\.0\.0 (\d+)")[1]
    server.wait("timeout")
    assert printed(start("luasocket_client", port)) == [
        f"connected to 127.0.0.1:{port}",
        "sent up to byte 6",
        "sent up to byte 11",
        "sent up to byte 11",
        "b'HELLO'",
        "b'and then 23456789'",
        "b'789'",
        "timeout, partial result b'\\n'",
        "1 readable 1 writable",
        "b'\\nSTOP\\n'",
        "closed",
        "received 24 sent 34",
        "received 0 sent 0",
    ]
    assert printed(server) == [
        f"listening on 0.0.0.0 {port}",
        "timeout",
        "from 127.0.0.1",
        "sent up to byte 6",
        "sent up to byte 9",
        "sent up to byte 4",
        "sent up to byte 5",
        "closed, partial result b'last words'",
        "received 34 sent 24",
    ]


@pytest.mark.parametrize(("name", "task"), [("streams_echo", ""), ("streams_echo_asyncio", ", in Task")])
def test_streamsEcho(name: str, task: str, place: str, start: Start) -> None:
    options = {"reactor": "default"} if task else {}  # the second one installs the reactor itself
    server = start(name, place, **options)
    where = server.wait("listening on (.*)")[1]
    assert talk(where, b"x" * 100_000) == b"x" * 100_000
    server.wait("gone")
    failed = start(name, where, **options).end()
    assert failed.code == 1
    assert "EADDRINUSE" in failed.err
    said = terminated(server)  # at a path, the other one has come to see whether somebody is there
    assert said[:3] == [f"listening on {where}", f"a client has come{task}", "a client has gone"]


def test_forwardBalance(start: Start, tmp_path: Path) -> None:
    place = str(tmp_path / "echo.sock")
    other = start("streams_echo", "127.0.0.1:0")
    where = other.wait("listening on (.*)")[1]
    balancer = start("forward_balance", "127.0.0.1:0", where, place)
    port = balancer.wait("listening on port (.*)")[1]
    balancer.wait(f"unix:{place} is down")
    for _ in range(2):
        assert talk(f"127.0.0.1:{port}", b"hello") == b"hello"
        balancer.wait(f"served by {where}: 5 bytes in, 5 out, in order")
    server = start("streams_echo", place)
    server.wait("listening on")
    balancer.wait(f"unix:{place} is up")
    with connect(f"127.0.0.1:{port}") as one, connect(f"127.0.0.1:{port}") as two:
        for client in (one, two):
            client.sendall(b"hello")
            assert client.recv(5) == b"hello"
    balancer.wait("served by")
    balancer.wait("served by")
    said = terminated(balancer)
    assert said[-2:] == [f"{where} is up and has served 3", f"unix:{place} is up and has served 1"]
    for program in (other, server):
        terminated(program)


def test_forwardFaults(start: Start) -> None:
    lines = [
        "nothing: 1000 bytes",
        "latency:delay=50ms,jitter=10ms; slicer:size=100: 1000 bytes",
        "limit_data:bytes=250: 250 bytes and the end",
        "reset_peer:at=400: 400 bytes and ECONNRESET",
        "refuse:first=1: 0 bytes and ECONNRESET",
    ]
    assert printed(start("forward_faults")) == lines
    assert printed(start("forward_faults", "8")) == lines


def test_forwardHook(place: str, start: Start) -> None:
    echo = start("streams_echo", place)
    where = echo.wait("listening on (.*)")[1]
    forwarder = start("forward_hook", "127.0.0.1:0", where)
    port = forwarder.wait("listening on port (.*)")[1]
    assert talk(f"127.0.0.1:{port}", b"hello") == b"hello"
    forwarder.wait("over")
    with connect(f"127.0.0.1:{port}") as client:
        client.sendall(b"a forbidden word")
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    forwarder.wait("over")
    assert terminated(forwarder) == [
        f"listening on port {port}",
        f"0: to {where}",
        "0: > b'hello'",
        "0: < b'hello'",
        "0: over, 5 bytes in, 5 bytes out, in order",
        f"1: to {where}",
        "1: > b'a forbidden word'",
        "1: over, 16 bytes in, 0 bytes out, ECONNABORTED",
    ]
    terminated(echo)


@pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="needs uvloop")
def test_uvreactorEcho(place: str, start: Start) -> None:
    unix = place.startswith("/")
    server = start("uvreactor_echo", f"unix:{place}" if unix else "tcp:0:interface=127.0.0.1", reactor="default")
    where = server.wait("UvloopReactor listens on (.*)")[1]
    port = re.search(r"port=(\d+)", where)
    address = f"unix:{place}" if port is None else f"127.0.0.1:{port[1]}"
    assert talk(address, b"x" * 100_000) == b"x" * 100_000
    server.wait("gone: 100000 bytes")
    assert terminated(server) == [f"UvloopReactor listens on {where}", "a client has gone: 100000 bytes"]


def test_tutorialProtocol(start: Start) -> None:
    server = start("tutorial_protocol", "tcp:0:interface=127.0.0.1")
    port = server.wait("listening on (.*)")[1]
    with connect(f"127.0.0.1:{port}") as client:
        client.sendall(b"".join(b"%d\n" % number for number in range(1, 11)))
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b"55\n"
    assert terminated(server) == [f"listening on {port}"]


@pytest.fixture
def tutorial(tmp_path: Path) -> Path:
    """A project of its own, in which no setting of ours holds, with the tutorial's files."""
    folder = tmp_path / "tutorial"
    folder.mkdir()
    for path in EXAMPLES.glob("tutorial_*.py"):
        shutil.copy(path, folder)
    return folder


PYTEST = (*WARNED, "-m", "pytest", "-q", "-p", "no:cacheprovider")
TRIAL = (*WARNED, "-m", "twisted.trial")


@pytest.mark.parametrize("options", [(), ("--network-seed=random",), ("--network=loopback",)], ids=" ".join)
@pytest.mark.parametrize("plugins", [(), ("-p", "no:twisted")], ids=["with-pytest-twisted", "without"])
def test_tutorialInPytest(plugins: tuple[str, ...], options: tuple[str, ...], tutorial: Path) -> None:
    ended = run(PYTEST, *plugins, *options, "tutorial_pytest.py", folder=tutorial)
    assert (ended.code, ended.err) == (0, ""), ended.out
    assert re.search(r"^9 passed in ", ended.out, re.MULTILINE)


def test_tutorialChecks(tutorial: Path) -> None:
    ended = run(PYTEST, "tutorial_checks.py", folder=tutorial)
    assert (ended.code, ended.err) == (0, ""), ended.out
    assert re.search(r"^[0-9]+ passed in ", ended.out, re.MULTILINE)


def test_tutorialInTrial(request: pytest.FixtureRequest, tutorial: Path) -> None:
    reactor = request.config.getoption("reactor")
    ended = run(TRIAL, f"--reactor={reactor}", "tutorial_trial", folder=tutorial)
    assert ended.code == 0, ended.out + ended.err
    assert ended.out.endswith("PASSED (successes=9)\n")


def test_tutorialExplores(tutorial: Path) -> None:
    """What is found and told is what the page shows; how many runs that takes is hypothesis' affair.

    Where the network asks chance for something else than before, write the page anew:
    ``python tutorial_explore.py >tutorial_found.txt``.
    """
    ended = run(WARNED, "tutorial_explore.py", folder=tutorial)
    assert (ended.code, ended.err) == (0, "")
    runs = r"Runs to make it smaller: [0-9]+\."
    assert re.sub(runs, "", ended.out) == re.sub(runs, "", (EXAMPLES / "tutorial_found.txt").read_text())


def test_everyExampleIsShown() -> None:
    pages = [path.read_text() for path in DOCS.rglob("*.rst")]
    for path in EXAMPLES.glob("*.py"):
        shown = re.compile(rf"^\.\. literalinclude:: (?:.*/)?{path.name}$", re.MULTILINE)
        assert any(map(shown.search, pages)), path.name
