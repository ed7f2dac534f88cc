"""One direction of a connection in memory: buffers, windows, and bytes under way."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import OUT, Between, fails, fill

from twisted_net.sansio.faults import Bandwidth, Fault, Glue, Latency, LimitData, Reset, Slicer, SlowClose, Timeout

SOCKET = socket.SOL_SOCKET



@pytest.fixture
def road() -> Between:
    return Between()


def error(skt: Any) -> int:
    code: int = skt.getsockopt(SOCKET, socket.SO_ERROR)
    return code


def test_windowsAreWhatWasAskedFor(road: Between) -> None:
    road.listener.setsockopt(SOCKET, socket.SO_RCVBUF, 5000)
    client, server = road.connect()
    client.setsockopt(SOCKET, socket.SO_SNDBUF, 7000)
    assert server.inward.window == 65_536  # this one was not asked for: options are not inherited
    assert fill(client) == 65_536 + 65_536


def test_chanceMayDelayABatch() -> None:
    delays = set()
    for seed in range(30):
        road = Between(seed)
        client, server = road.connect()
        client.send(b"x")
        delays.add(server.poll() == OUT)
    assert delays == {True, False}


def test_bytesTakeTheirTime(road: Between) -> None:
    client, server = road.connect()
    road.link.setFaults(Latency(2.0))
    client.send(b"slow")
    client.shutdown(socket.SHUT_WR)
    road.network.advance(1.9)
    fails(errno.EAGAIN, server.recv, 9)
    road.network.advance(0.1)
    assert (server.recv(9), server.recv(9)) == (b"slow", b"")


def test_theWindowCountsWhatIsUnderWay(road: Between) -> None:
    client, server = road.connect()
    road.link.setFaults(Latency(2.0))
    count = fill(client)
    road.network.advance(2)
    assert 0 < server.inward.size <= 65_536
    while len(server.recv(100_000)):
        road.network.advance(2)
        if not server.inward.size:
            break
    assert server.inward.taken == count


def test_aStalledReceiver(road: Between) -> None:
    client, server = road.connect()
    road.link.stall(towards="there")
    assert fill(client) == 65_536
    client.shutdown(socket.SHUT_WR)
    road.network.advance(10)
    fails(errno.EAGAIN, server.recv, 9)
    road.link.stall(towards="there", stalled=False)
    assert len(server.recv(100_000)) == 65_536
    assert server.recv(9) == b""


def test_aReceiverThatStallsInBetween(road: Between) -> None:
    client, server = road.connect()
    assert client.send(bytes(200_000)) == 65_536 + 65_536
    road.link.stall()
    assert len(server.recv(100_000)) == 65_536
    fails(errno.EAGAIN, server.recv, 9)
    road.link.stall(stalled=False)
    assert len(server.recv(100_000)) == 65_536


def test_aWindowIsNotFilledByTheCrumb(road: Between) -> None:
    client, server = road.connect()
    client.send(bytes(200_000))
    assert len(server.recv(1000)) == 1000
    assert server.inward.size == 64_536
    assert len(server.recv(40_000)) == 40_000
    assert server.inward.size == 65_536


def test_bytesThatArriveWhereNobodyIs(road: Between) -> None:
    client, server = road.connect()
    road.link.setFaults(Latency(1.0))
    client.send(b"late")
    client.send(b" and later")
    server.close()
    road.network.advance(2)
    assert error(client) == errno.EPIPE  # its end came first
    assert str(road.network.trace).count("reset") == 1


def test_aTimeoutDropsWhatIsUnsent(road: Between) -> None:
    client, _ = road.connect()
    fill(client)
    road.link.cut()
    client.fail(errno.ETIMEDOUT)
    assert client.outward.unsentSize == 0
    fails(errno.ETIMEDOUT, client.send, b"x")


# -- any interleaving, under any weather

WEATHER: list[tuple[Fault, ...]] = [
    (),
    (Latency(0.1, jitter=0.1),),
    (Bandwidth(1000),),
    (Slicer(7, variation=3, delay=0.01),),
    (Glue(0.5),),
    (SlowClose(2.0),),
    (Slicer(5), Latency(0.2, jitter=0.2), Glue(0.1, limit=20)),
]
STORMS: list[tuple[Fault, ...]] = [(Reset(at=30),), (Reset(after=0.5),), (LimitData(40),), (Timeout(0.5),)]
steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(1, 300)),
        st.tuples(st.just("recv"), st.integers(1, 200)),
        st.tuples(st.just("advance"), st.floats(0, 2)),
        st.tuples(st.just("end"), st.none()),
    ),
    max_size=20,
)


def play(road: Between, script: list[tuple[str, Any]]) -> tuple[bytes, bytes, bool]:
    """What was sent, what was received until nothing more came, and whether the end came."""
    client, server = road.connect()
    sent = received = b""
    for what, value in script:
        try:
            if what == "send":
                data = bytes((len(sent) + index) % 251 for index in range(value))
                sent += data[: client.send(data)]
            elif what == "recv":
                received += server.recv(value)
            elif what == "advance":
                road.network.advance(value)
            else:
                client.shutdown(socket.SHUT_WR)
        except OSError:
            continue
    if not client.writeShut and client.poll() & OUT:
        client.shutdown(socket.SHUT_WR)
    for _ in range(100):
        try:
            data = server.recv(70_000)
        except BlockingIOError:
            road.network.advance(10)
        except ConnectionResetError:
            break
        else:
            received += data
            if not data:
                return sent, received, True
    return sent, received, False


@settings(max_examples=150)
@given(seed=st.none() | st.integers(0, 9999), faults=st.sampled_from(WEATHER), script=steps)
def test_everythingComesInOrder(seed: int | None, faults: tuple[Fault, ...], script: list[tuple[str, Any]]) -> None:
    road = Between(seed)
    road.link.setFaults(*faults)
    sent, received, ended = play(road, script)
    assert (received, ended) == (sent, True)


@settings(max_examples=100)
@given(seed=st.none() | st.integers(0, 9999), faults=st.sampled_from(STORMS), script=steps)
def test_whatComesIsAPrefix(seed: int | None, faults: tuple[Fault, ...], script: list[tuple[str, Any]]) -> None:
    road = Between(seed)
    road.link.setFaults(*faults)
    sent, received, _ = play(road, script)
    assert sent.startswith(received)
