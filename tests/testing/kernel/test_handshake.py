"""How TCP connects in memory: who answers, who does not, and when that is given up."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
from worlds import ERR, HUP, IN, OUT, Between, fails

from twisted_net.sansio.faults import Latency
from twisted_net.testing.kernel.handshake import SYN_TIMEOUT
from twisted_net.testing.network import MemoryNetwork

TCP, TCP6 = socket.AF_INET, socket.AF_INET6
SOCKET = socket.SOL_SOCKET



@pytest.fixture
def road() -> Between:
    return Between()


def error(skt: Any) -> int:
    code: int = skt.getsockopt(SOCKET, socket.SO_ERROR)
    return code


def test_nobodyAnswers(road: Between) -> None:
    road.link.cut()
    client = road.start()
    road.network.advance(SYN_TIMEOUT - 1)
    assert client.poll() == 0
    road.network.advance(1)
    assert client.poll() == IN | OUT | ERR | HUP
    assert client.connect_ex((road.there.addresses[0], 80)) == errno.ETIMEDOUT


def test_synIsSentAgain(road: Between) -> None:
    road.link.cut()
    client = road.start()
    road.network.advance(5)
    road.link.heal()
    road.network.advance(1.9)
    assert client.poll() == 0
    road.network.advance(0.1)  # 7 seconds after the first
    assert client.poll() == OUT


def test_theAnswerIsLost(road: Between) -> None:
    """The server has the connection already when SYN comes again, and answers once more."""
    road.link.cut(towards="here")
    client = road.start()
    assert client.poll() == 0
    assert not road.listener.pending  # nor has the server heard that its answer has come
    road.link.heal()
    road.network.advance(1)
    assert client.poll() == OUT
    assert len(road.listener.pending) == 1


def test_whoIsAcceptedHasHeardOfIt(road: Between) -> None:
    road.link.setFaults(Latency(1.0))
    client = road.start()
    road.network.advance(2.5)
    assert client.poll() == OUT
    fails(errno.EAGAIN, road.listener.accept)  # its ACK is under way
    client.send(b"at once")
    road.network.advance(0.5)
    server = road.listener.accept()[0]
    road.network.advance(0.5)
    assert server.recv(99) == b"at once"


def test_theListenerClosesBeforeItKnows(road: Between) -> None:
    road.link.setFaults(Latency(1.0))
    client = road.start()
    road.network.advance(2.5)
    road.listener.close()
    road.network.advance(1.5)
    assert error(client) == errno.ECONNRESET


def test_whoIsGone(road: Between) -> None:
    client, server = road.connect()
    assert not server.isGone
    client.fail(errno.ETIMEDOUT)
    server.close()
    assert (client.isGone, server.isGone) == (True, True)


def test_anAttemptThatIsGivenUp(road: Between) -> None:
    road.link.setFaults(Latency(1.0))
    client = road.start()
    client.close()
    road.network.advance(200)
    assert not road.listener.pending
    road.link.cut(towards="here")
    late = road.start()
    road.network.advance(1)
    late.close()  # the server has made a connection of it, which is reset, and which nobody has seen
    road.link.heal()
    road.network.advance(10)
    assert not road.listener.pending


def test_answersThatComeTooLate(road: Between) -> None:
    """Neither the server's answer nor its refusal means anything to a client that has closed."""
    road.link.setFaults(Latency(1.0), towards="here")
    road.start().close()
    road.network.advance(2)
    road.listener.close()
    road.start().close()
    road.network.advance(2)
    assert not road.here.sockets()


def test_noHostOfThatAddress(road: Between) -> None:
    client: Any = road.here.socket(TCP, socket.SOCK_STREAM)
    assert client.connect_ex(("192.0.2.1", 80)) == errno.EINPROGRESS
    assert error(client) == errno.EHOSTUNREACH


def test_noAddressOfThatFamily() -> None:
    network = MemoryNetwork()
    client: Any = network.host("only4", "10.9.9.9").socket(TCP6, socket.SOCK_STREAM)
    assert client.connect_ex(("fd00::99", 80)) == errno.EADDRNOTAVAIL


def test_aDeadHostDoesNotAnswer(road: Between) -> None:
    road.link.setFaults(Latency(1.0))
    client = road.start()
    road.there.dead = True
    road.network.advance(200)
    assert error(client) == errno.ETIMEDOUT


def test_theRefusalIsTraced(road: Between) -> None:
    road.listener.close()
    road.start()
    assert "there:80 > here:49152  refuse" in str(road.network.trace)
