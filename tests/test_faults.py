"""What goes wrong with peers in the world, done to a server that runs as a program of its own.

Each test ends with the same question: is the next client served, at once?
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from queue import Queue
from typing import Any

from drivers import reactorName
from programs import command, environment, until

PATIENCE = 60.0
"""Seconds that anything here may take on a busy machine; nothing waits for them to pass."""


class Server:
    """The program, and what it has printed."""

    def __init__(self, reactor: str, handler: str, options: dict[str, Any]) -> None:
        self.process = subprocess.Popen(
            command("server", reactor, handler, json.dumps(options)),
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: Queue[str] = Queue()
        self.errors: list[str] = []
        self._threads = [threading.Thread(target=self._listen), threading.Thread(target=self._readErrors)]
        for thread in self._threads:
            thread.start()
        try:
            self.port = int(self.next("listening").split()[1])
        except BaseException:
            self.kill()
            raise

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line.strip())
        self.lines.put("(end)")

    def _readErrors(self) -> None:
        assert self.process.stderr is not None
        self.errors.extend(self.process.stderr)

    def next(self, beginning: str) -> str:
        """The next line that begins so; others are passed over."""
        while True:
            line = self.lines.get(timeout=PATIENCE)
            if line.startswith(beginning):
                return line
            assert line != "(end)", "".join(self.errors)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)

    def serves(self) -> None:
        """A new client is served at once, and its end is answered."""
        with self.connect() as client:
            client.sendall(b"hello")
            client.shutdown(socket.SHUT_WR)
            assert readAll(client) == b"hello"

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def cpuSeconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            status = self.process.wait(PATIENCE)
        finally:
            self.kill()
        assert status == 0, "".join(self.errors)


def readAll(connection: socket.socket) -> bytes:
    chunks = []
    while chunk := connection.recv(1 << 20):
        chunks.append(chunk)
    return b"".join(chunks)


def reset(connection: socket.socket) -> None:
    """Close with RST instead of FIN (socket(7): SO_LINGER with no time)."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


@contextmanager
def running(handler: str, **options: Any) -> Iterator[Server]:
    server = Server(reactorName(), handler, options)
    try:
        yield server
    finally:
        server.stop()


def test_peerKilled() -> None:
    """``kill -9`` of a client in the middle of a conversation: its kernel ends it, and the server goes on."""
    code = (
        "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); "
        "s.sendall(b'x'); s.recv(1); print('up', flush=True); s.recv(1)"
    )
    with running("echo") as server:
        server.serves()  # libuv opens /dev/null with its first stream, once
        before = server.descriptors()
        client = subprocess.Popen([sys.executable, "-c", code, str(server.port)], stdout=subprocess.PIPE, text=True)
        try:
            assert client.stdout is not None
            with client.stdout as output:
                assert output.readline() == "up\n"
                client.send_signal(signal.SIGKILL)
        finally:
            client.kill()
            client.wait(PATIENCE)
        server.serves()
        until(lambda: server.descriptors() <= before)


def test_resetInTheMiddleOfAWrite() -> None:
    with running("flood") as server:
        client = server.connect()
        client.sendall(b"*")
        assert client.recv(1000)
        reset(client)
        assert server.next("error") in ("error ECONNRESET", "error EPIPE")
        server.serves()


def test_peerThatNeverReads() -> None:
    """One that asks for 64 MiB and reads nothing is closed by the idle limit."""
    with running("flood", limits={"idleTimeout": 0.5}) as server, server.connect() as client:
        client.sendall(b"*")
        assert server.next("limit") == "limit idleTimeout closed"
        assert server.next("error") == "error ETIMEDOUT"
        server.serves()


def test_peerThatNeverReadsItsEcho() -> None:
    """A pipe's pressure reaches the sender: its writes stop, the server's memory does not grow."""
    with running("memory") as server, server.connect() as client:

        def resident() -> int:
            with server.connect() as asker:
                asker.sendall(b"?")
                return int(readAll(asker))

        before = resident()
        client.settimeout(1.0)
        sent = 0
        with suppress(TimeoutError):
            while sent < 512 * 1024 * 1024:
                sent += client.send(bytes(1 << 20))
        assert sent < 512 * 1024 * 1024, "nothing held the sender back"
        assert resident() - before < 8 * 1024, sent
        server.serves()


def test_peerThatNeverSpeaks() -> None:
    with running("echo", limits={"handshakeTimeout": 0.5}) as server, server.connect() as client:
        assert server.next("limit") == "limit handshakeTimeout closed"
        assert client.recv(1) == b""
        server.serves()


def test_listenerThatRaises() -> None:
    """The connection whose listener raised is destroyed with it; the others go on."""
    with running("raising") as server, server.connect() as other:
        with server.connect() as client:
            client.sendall(b"!")
            assert readAll(client) == b""
        assert "ValueError" in server.next("error")
        other.sendall(b"still here")
        assert other.recv(100) == b"still here"
        server.serves()
    assert any("a mistake in a listener" in line for line in server.errors)
    assert any("'data'" in line for line in server.errors)


def test_aThousandBeyondTheLimit() -> None:
    with running("echo", limits={"connections": 5}) as server, ExitStack() as open_:
        held = [open_.enter_context(server.connect()) for _ in range(5)]
        for client in held:
            client.sendall(b"in")
            assert client.recv(2) == b"in"
        for _ in range(1000):
            with server.connect() as client, suppress(ConnectionResetError):
                assert client.recv(1) == b""
        held[0].shutdown(socket.SHUT_WR)
        assert readAll(held[0]) == b""
        server.serves()
        for client in held[1:]:
            client.sendall(b"on")
            assert client.recv(2) == b"on"
    assert sum("refused" in line for line in server.errors) < 60, "one line a second, not one for each"


def test_outOfDescriptors() -> None:
    """With 64 descriptors: those beyond the reserve are refused, nothing spins, and who leaves makes room."""
    with running("echo", descriptors=64) as server, ExitStack() as open_:
        clients = [open_.enter_context(server.connect()) for _ in range(300)]
        assert server.next("limit") == "limit reserve refused"
        served = refused = 0
        for client in clients:
            try:
                client.sendall(b"x")
                if client.recv(1) == b"x":
                    served += 1
                else:
                    refused += 1
            except OSError:
                refused += 1
        assert served >= 30
        assert refused >= 200
        before = server.cpuSeconds()
        threading.Event().wait(1.0)
        assert server.cpuSeconds() - before < 0.5, "it spins"
        for client in clients:
            client.close()
        until(lambda: server.descriptors() < 30)
        server.serves()
    assert sum("refused" in line for line in server.errors) < 30
