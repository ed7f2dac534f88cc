"""``net forward`` when something breaks: targets, clients, the network between them, and what a process may hold."""

from __future__ import annotations

import contextlib
import hashlib
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conditions import blackHole, deadPort
from launched import PATIENCE, connect, drained, fate, talk
from outsiders import BULK, HOST, NGINX, Forwarding, forwarding, needsDescriptors, nginx, numbered, redis, write
from programs import command, until
from strangers import Stranger, ask, digest, needs, patterned

pytestmark = [pytest.mark.live, needs("nc", "socat", "prlimit", "redis-server", "redis-cli")]


def place(where: tuple[str, int]) -> str:
    """A socket's name as an address."""
    return f"{where[0]}:{where[1]}"


@contextlib.contextmanager
def target() -> Iterator[tuple[socket.socket, str]]:
    """A target in the test's own hand: what listens, and where."""
    with socket.create_server((HOST, 0)) as server:
        server.settimeout(PATIENCE)
        yield server, place(server.getsockname())


@contextlib.contextmanager
def conversation(forward: Forwarding, server: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A client of the forwarder, and the other end of its connection at the target."""
    with connect(forward.address) as client, server.accept()[0] as peer:
        peer.settimeout(PATIENCE)
        yield client, peer


@contextlib.contextmanager
def echoing() -> Iterator[str]:
    """socat, which echoes."""
    with Stranger("socat", "-t", "30", "-d", "-d", f"TCP4-LISTEN:0,bind={HOST},fork", "EXEC:cat") as server:
        yield server.says(r"listening on AF=\d+ (.*)$", server.stderr)[1]


def reset(client: socket.socket) -> None:
    """Close it with an RST: socket(7), SO_LINGER."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def pushed(client: socket.socket) -> None:
    """Send for ever."""
    while True:
        client.sendall(bytes(100_000))


def unread(port: int) -> int:
    """Bytes that wait in the kernel for the program on a port of TCP: proc(5), /proc/net/tcp, rx_queue."""
    found = 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "01" and int(fields[1].rpartition(":")[2], 16) == port:
            found += int(fields[4].rpartition(":")[2], 16)
    return found


# Targets


def test_targetKilled(tmp_path: Path) -> None:
    """A netcat dies of SIGKILL with bytes that it has not read: an RST, which the client gets; the next has another."""
    with contextlib.ExitStack() as life, echoing() as other:
        dying = life.enter_context(Stranger("nc", "-v", "-l", HOST, "0"))
        port = int(dying.says(r"Listening on \S+ (\d+)", dying.stderr)[1])
        with forwarding(tmp_path, "--target", f"{HOST}:{port}", "--target", other) as forward:
            with connect(forward.address) as client:
                client.sendall(bytes(1_000_000))
                until(lambda: unread(port) > 0)  # nobody reads what netcat prints
                life.close()
                with pytest.raises((ConnectionResetError, BrokenPipeError)):
                    pushed(client)
            forward.program.wait(rf"-> {HOST}:{port} closed \((ECONNRESET|EPIPE)\)")
            for _ in range(4):
                assert talk(forward.address, b"hello") == b"hello"
                forward.program.wait(rf"-> {other} closed \(ended\): 5 bytes in, 5 bytes out")


def test_targetRestarted(tmp_path: Path) -> None:
    """Redis dies and comes back; while it is away clients are reset, then they are served."""
    with redis(tmp_path) as server, forwarding(tmp_path, "--target", server.address) as forward:
        ping = ("redis-cli", "-p", forward.port, "PING")
        assert ask(*ping) == b"PONG\n"
        with Stranger("redis-cli", "-p", forward.port, "SUBSCRIBE", "news") as listener:
            listener.says("subscribe")
            server.kill()
            forward.program.wait(rf"-> {server.address} closed")
            assert fate(forward.address) == "reset"
            with redis(tmp_path, server.port):
                until(lambda: served(forward))
                assert listener.end()[0] == 1, "it has noticed"
    (tmp_path / "redis.sock").unlink(missing_ok=True)


def served(forward: Forwarding) -> bool:
    """Whether a client of Redis is served now."""
    with contextlib.suppress(ConnectionResetError):
        return talk(forward.address, b"PING\r\n") == b"+PONG\r\n"
    return False


@needs(NGINX, "curl")
def test_downloadCut(tmp_path: Path) -> None:
    """The server of a download dies: the client is not left believing that it has all."""
    with nginx(tmp_path) as server:
        write(tmp_path / "www" / "big", 30_000_000)
        with forwarding(tmp_path, "--target", server.address) as forward:
            url = f"http://{forward.address}/big"
            with Stranger("curl", "--silent", "--noproxy", "*", "--limit-rate", "10M", url) as reader:
                begun = reader.stdout.read(1_000_000)
                server.kill()
                status, rest, _ = reader.end()
            # 18: it ended too soon; 56: it was reset.
            assert status in (18, 56)
            assert len(begun + rest) < 30_000_000
            forward.program.wait(rf"-> {server.address} closed \((ended|ECONNRESET)\)")
    (tmp_path / "nginx.sock").unlink(missing_ok=True)


@pytest.mark.parametrize(
    ("words", "outcome"),
    [((), "reset"), (("--on-failure", "reset"), "reset"), (("--on-failure", "close"), "ended")],
)
def test_targetRefuses(tmp_path: Path, words: tuple[str, ...], outcome: str) -> None:
    with deadPort() as where, forwarding(tmp_path, "--target", place(where), *words) as forward:
        for _ in range(3):
            assert fate(forward.address) == outcome
            forward.program.wait(r"closed \(ECONNREFUSED\)")


def test_blackHole(tmp_path: Path) -> None:
    """One target answers no SYN: its clients are brought to the other, and notice nothing but the time."""
    with blackHole() as hole, echoing() as other:
        words = ("--target", place(hole), "--target", other, "--timeout-connect", "500ms")
        with forwarding(tmp_path, *words) as forward:
            for _ in range(8):
                assert talk(forward.address, b"hello") == b"hello"
                forward.program.wait(rf"-> {other} closed \(ended\): 5 bytes in, 5 bytes out")


def test_blackHoleAlone(tmp_path: Path) -> None:
    with blackHole() as hole:
        words = ("--target", place(hole), "--timeout-connect", "500ms", "--retries", "0")
        with forwarding(tmp_path, *words) as forward:
            began = time.monotonic()
            assert fate(forward.address) == "reset"
            assert time.monotonic() - began >= 0.5
            forward.program.wait(r"closed \(ETIMEDOUT\)")


# Clients


@pytest.mark.parametrize("words", [(), ("--no-splice",)], ids=["splice", "no splice"])
def test_slowReader(tmp_path: Path, words: tuple[str, ...]) -> None:
    """
    A target pushes, and its client does not read: what waits in between is the kernel's, and soon the target waits,
    too. Then the client reads, and gets every byte.
    """
    with target() as (server, where), forwarding(tmp_path, "--target", where, *words) as forward:
        with conversation(forward, server) as (client, peer):  # what is made once is made
            peer.sendall(bytes(1_000_000))
            peer.shutdown(socket.SHUT_WR)
            assert len(drained(client)) == 1_000_000
        before, idle = forward.memory(), forward.held()
        with conversation(forward, server) as (client, peer), ThreadPoolExecutor(1) as pool:
            stalled = threading.Event()

            def push() -> str:
                summed = hashlib.sha256()
                peer.setblocking(False)
                for piece in numbered(BULK):
                    summed.update(piece)
                    left = memoryview(piece)
                    while left:
                        if not select.select([], [peer], [], 0.5)[1]:  # half a second without room for a byte
                            stalled.set()
                            select.select([], [peer], [], PATIENCE)
                        with contextlib.suppress(BlockingIOError):
                            left = left[peer.send(left) :]
                peer.shutdown(socket.SHUT_WR)
                return summed.hexdigest()

            sent = pool.submit(push)
            assert stalled.wait(PATIENCE), "it has taken everything"
            most = forward.memory()
            assert forward.held()["pipe"] - idle["pipe"] == (0 if words else 2)
            got, read = hashlib.sha256(), 0
            while data := client.recv(1 << 20):
                got.update(data)
                read += len(data)
                most = max(most, forward.memory())
            assert read == BULK
            assert got.hexdigest() == sent.result(PATIENCE)
        assert most - before < 16 << 20
        forward.program.wait(rf"closed \(ended\): 0 bytes in, {BULK} bytes out")


def test_clientReset(tmp_path: Path) -> None:
    """A client's RST becomes one of ours to the target, with bytes under way and without."""
    with target() as (server, where), forwarding(tmp_path, "--target", where) as forward:
        for pending in (b"", bytes(10_000_000)):
            with conversation(forward, server) as (client, peer):
                client.sendall(b"hello")
                assert peer.recv(100) == b"hello"
                peer.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while pending:
                        pending = pending[peer.send(pending) :]
                peer.settimeout(PATIENCE)
                reset(client)
                with pytest.raises(ConnectionResetError):
                    peer.recv(1)
            forward.program.wait(rf"-> {where} closed \((ECONNRESET|EPIPE)\): 5 bytes in")


def test_clientGoneWhileConnecting(tmp_path: Path) -> None:
    """Nobody goes on connecting for a client that has given up: long before the connection would time out."""
    with blackHole() as hole:
        words = ("--target", place(hole), "--timeout-connect", "5m", "--retries", "0")
        with forwarding(tmp_path, *words) as forward:
            idle = forward.held()
            for data in (b"", b"hello"):
                client = connect(forward.address)
                client.sendall(data)
                until(lambda: forward.held()["socket"] == idle["socket"] + 2)
                reset(client)
                forward.settle(idle)
                forward.program.wait(r"closed \((?!ended)\w+\)")


@pytest.mark.parametrize("ending", ["client", "target"])
def test_halfOpen(tmp_path: Path, ending: str) -> None:
    """One side has ended and the other says nothing: after ``--timeout-half-open`` it is over; until then it works."""
    words = ("--timeout-half-open", "500ms")
    with (
        target() as (server, where),
        forwarding(tmp_path, "--target", where, *words) as forward,
        conversation(forward, server) as both,
    ):
        first, second = both if ending == "client" else reversed(both)
        first.sendall(b"all")
        first.shutdown(socket.SHUT_WR)
        assert drained(second) == b"all"
        began = time.monotonic()
        second.sendall(b"still here")
        assert first.recv(100) == b"still here"
        with contextlib.suppress(ConnectionResetError):
            assert first.recv(100) == b""
        assert 0.4 < time.monotonic() - began < 10
        forward.program.wait(r"closed \(ETIMEDOUT\): ")


@pytest.mark.parametrize("words", [(), ("--no-splice",)], ids=["splice", "no splice"])
def test_garbage(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Noise is forwarded like everything: Redis says of it what it says without us in between."""
    with redis(tmp_path) as server, forwarding(tmp_path, "--target", server.address, *words) as forward:
        for noise in (patterned(2000), b"\0" * 1000 + b"\r\n", b"\xff\xf4\xff\xfd\x06", b"GET / HTTP/1.1\r\n\r\n"):
            direct = ask("nc", "-N", HOST, str(server.port), given=noise)
            assert ask("nc", "-N", HOST, forward.port, given=noise) == direct
    (tmp_path / "redis.sock").unlink(missing_ok=True)


# Many


CROWD = 2000


@needsDescriptors(8 * CROWD)
def test_manyAtOnce(tmp_path: Path) -> None:
    """Two thousand clients at once, each of whom hears its own words; when they are gone nothing of them is left."""
    with redis(tmp_path) as server:
        words = ("--target", server.address, "--no-access-log")
        with forwarding(tmp_path, *words, descriptors=8 * CROWD) as forward:
            idle = forward.held()
            with Stranger(*command("crowd", str(CROWD), HOST, forward.port)) as crowd:
                crowd.says(f"{CROWD} at once")
                assert forward.held()["socket"] == idle["socket"] + 2 * CROWD
                assert crowd.end(b"\n") == (0, b"", b"")
            forward.settle(idle)
            assert ask("redis-cli", "-p", forward.port, "PING") == b"PONG\n"
    (tmp_path / "redis.sock").unlink(missing_ok=True)


def echoed(client: socket.socket) -> bool:
    """Whether its words come back: True, or False when it is reset or ended."""
    try:
        client.sendall(b"hello")
        return client.recv(5, socket.MSG_WAITALL) == b"hello"
    except (ConnectionResetError, BrokenPipeError):
        return False


def carried(client: socket.socket, data: bytes) -> bytes:
    """What comes back of *data*, which is sent meanwhile."""
    found = bytearray()
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(client.sendall, data)
        while len(found) < len(data) and (piece := client.recv(1 << 20)):
            found += piece
        sent.result(PATIENCE)
    return bytes(found)


def test_withoutDescriptors(tmp_path: Path) -> None:
    """
    A process that may open no more refuses clients, without working itself hot; those that it has are served, and when
    they leave, others are.
    """
    with echoing() as where, forwarding(tmp_path, "--target", where, "--no-access-log", descriptors=40) as forward:
        idle = forward.held()
        with contextlib.ExitStack() as stack:
            clients = []
            for _ in range(40):
                with contextlib.suppress(ConnectionResetError):
                    clients.append(stack.enter_context(connect(forward.address)))
            served = [client for client in clients if echoed(client)]
            assert 5 < len(served) < 20
            worked = forward.worked()
            assert select.select(served, [], [], 1)[0] == []
            assert forward.worked() - worked < 0.3
            assert all(echoed(client) for client in served)
            assert digest(carried(served[0], patterned())) == digest(patterned()), "no pipe is left for it, either"
        forward.settle(idle)
        assert talk(forward.address, b"hello") == b"hello"


def test_stoppedAtOnce(tmp_path: Path) -> None:
    """Without grace SIGTERM ends everybody, in the middle of a transfer and while connecting."""
    with target() as (server, where), blackHole() as hole:
        words = ("--target", where, "--backup", place(hole), "--timeout-graceful-shutdown", "0")
        with forwarding(tmp_path, *words) as forward, conversation(forward, server) as (client, peer):
            client.sendall(b"hello")
            assert peer.recv(100) == b"hello"
            server.close()
            with connect(forward.address) as waiting:
                forward.program.signal(signal.SIGTERM)
                forward.program.wait("is stopping")
                for one in (client, peer, waiting):
                    with contextlib.suppress(ConnectionResetError):
                        assert one.recv(1) == b""
