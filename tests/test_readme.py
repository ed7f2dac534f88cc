"""What the README shows is what happens."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from launched import Running, run, talk
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol

README = Path(__file__).parent.parent.joinpath("README.md").read_text()
PROGRAMS = re.findall(r"(?ms)^```python\n(.*?)^```$", README)


class Conversation(Protocol):
    """Sends one line, ends, and keeps what comes until the other side has ended, too."""

    def __init__(self) -> None:
        self.received = b""
        self.over: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"hello\r\n")

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        if self.received.endswith(b"hello\r\n"):
            assert self.transport is not None
            self.transport.loseConnection()

    def connectionLost(self, reason: Any = None) -> None:
        self.over.callback(self.received)


@pytest_twisted.ensureDeferred
async def test_theProgramInPython() -> None:
    """The program of the README, on a free port, and without starting the reactor a second time."""
    from twisted.internet import reactor

    (program,) = (text for text in PROGRAMS if "reactor.run()" in text)
    listening = "net.createServer(greet).listen(8124, "
    assert program.count(listening) == 1
    room: dict[str, Any] = {}
    exec(program.replace(listening, "server = net.createServer(greet).listen(0, ").replace("reactor.run()", ""), room)
    server = room["server"]
    await server.whenListening()
    where = TCP4ClientEndpoint(reactor, "127.0.0.1", server.address().port)
    talk = await connectProtocol(where, Conversation())
    assert await talk.over == b"welcome\r\nhello\r\n"
    server.close()
    await server.whenClosed()


def test_theProgramWithCoroutines(tmp_path: Path) -> None:
    """On a free port."""
    (program,) = (text for text in PROGRAMS if "react(main)" in text)
    assert program.count(":8124") == 1
    with Running((sys.executable, "-u", "-c", program.replace(":8124", ":0")), folder=tmp_path) as server:
        where = server.wait("listening on (.*)")[1]
        assert talk(where, b"hello\r\n") == b"welcome\r\nhello\r\n"


@pytest.mark.skipif(importlib.util.find_spec("uvloop") is None, reason="needs uvloop")
def test_theReactorInAProgram(tmp_path: Path) -> None:
    (program,) = (text for text in PROGRAMS if "uvreactor.install()" in text)
    program += "from twisted.internet import reactor; print(type(reactor).__name__)"
    ended = run((sys.executable, "-c", program), folder=tmp_path)
    assert (ended.code, ended.out) == (0, "UvloopReactor\n"), ended


def test_theTestInMemory(tmp_path: Path) -> None:
    (program,) = (text for text in PROGRAMS if "memoryNetwork" in text)
    name = re.match(r"# (test_\w+\.py)\n", program)
    assert name is not None
    tmp_path.joinpath(name[1]).write_text(program)
    ended = run((sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"), folder=tmp_path)
    assert ended.code == 0, ended.out
    assert re.search(r"^1 passed in ", ended.out, re.MULTILINE)
