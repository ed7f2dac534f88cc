"""The road between two hosts: faults, cuts that heal or do not, probes, stalled receivers."""

from __future__ import annotations

import errno
import socket
from typing import Any

import pytest
from worlds import ERR, HUP, IN, OUT, Between, fails, fill

from twisted_net.errors import OptionError
from twisted_net.sansio.faults import Bandwidth, Faults, Glue, Latency, Loss, Refuse, Reset
from twisted_net.testing.kernel.link import RETRANSMISSION_TIMEOUT

TCP, UNIX, UDP = socket.AF_INET, socket.AF_UNIX, socket.SOCK_DGRAM
SOCKET = socket.SOL_SOCKET


@pytest.fixture
def road() -> Between:
    return Between()


def error(skt: Any) -> int:
    code: int = skt.getsockopt(SOCKET, socket.SO_ERROR)
    return code


# -- which road


def test_eachHasItsRoad(road: Between) -> None:
    link = road.link
    assert link.road(road.there).target is road.there
    assert link.road(road.here).target is road.here
    assert link.road(road.there).source is road.here
    loop = road.network.link("here", "here")
    assert loop.road(road.here).source is loop.road(road.here).target is road.here


def test_towardsSomebodyElse(road: Between) -> None:
    road.network.host("third")
    with pytest.raises(ValueError, match="'third' is at neither end"):
        road.link.cut(towards="third")


def test_towardsOne(road: Between) -> None:
    road.link.cut(towards=road.there)
    assert (road.link.road(road.there).isCut, road.link.road(road.here).isCut) == (True, False)
    road.link.heal(towards="there")
    assert not road.link.road(road.there).isCut


def test_faultsAreFaults(road: Between) -> None:
    road.link.setFaults(Faults(Latency(1.0), Loss()))
    assert road.link.road(road.there).faults == Faults(Latency(1.0), Loss())
    road.link.setFaults()
    assert not road.link.road(road.there).faults
    assert road.link.road(road.there).clear
    with pytest.raises(OptionError, match="is no fault"):
        road.link.setFaults("latency")


# -- faults


def test_latency(road: Between) -> None:
    road.link.setFaults(Latency(0.25))
    client = road.start()
    road.network.advance(0.4)
    assert client.poll() == 0
    road.network.advance(0.1)
    assert client.poll() == OUT


def test_bandwidth(road: Between) -> None:
    client, server = road.connect()
    road.link.setFaults(Bandwidth(1000), towards="there")
    start = road.network.now
    client.send(bytes(2000))
    client.shutdown(socket.SHUT_WR)
    received = b""
    while not server.inward.arrivedEnd:
        road.network.advance(0.1)
        if server.inward.size:
            received += server.recv(99_999)
            assert len(received) <= (road.network.now - start) * 1000 + 1
    assert len(received) == 2000
    assert road.network.now - start == pytest.approx(2.0, abs=0.11)


def test_whatIsGluedComesByItself(road: Between) -> None:
    client, server = road.connect()
    road.link.setFaults(Glue(0.5))
    client.send(b"one ")
    client.send(b"two")
    road.network.advance(0.4)
    fails(errno.EAGAIN, server.recv, 99)
    road.network.advance(0.1)
    assert server.recv(99) == b"one two"


def test_otherFaultsFromNowOn(road: Between) -> None:
    """What the old ones had planned for this connection does not happen any more."""
    client, server = road.connect()
    road.link.setFaults(Reset(after=5.0))
    client.send(b"one ")
    road.link.setFaults()
    client.send(b"two")
    road.network.advance(10)
    assert server.recv(99) == b"one two"
    assert server.poll() == OUT


@pytest.mark.parametrize("then", ["nothing", "more", "closed"])
def test_whatOldFaultsWereCollectingIsLetGo(road: Between, then: str) -> None:
    client, server = road.connect()
    road.link.setFaults(Glue(5.0), Latency(1.0))
    client.send(b"one ")
    if then == "closed":
        client.close()
    road.link.setFaults()
    if then == "more":
        client.send(b"two")
    road.network.advance(1)
    assert server.recv(99) == (b"one two" if then == "more" else b"one ")


def test_oldFaultsOfWhatWasReset(road: Between) -> None:
    client, server = road.connect()
    road.link.setFaults(Latency(1.0))
    client.setsockopt(SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.close()
    road.link.setFaults()
    road.network.advance(1)
    assert error(server) == errno.ECONNRESET


def test_aFaultThatStrikesBySilence(road: Between) -> None:
    client, server = road.connect()
    road.link.setFaults(Reset(after=5.0), towards="there")
    client.send(b"x")
    road.network.advance(5)
    assert server.recv(9) == b"x"
    fails(errno.ECONNRESET, server.recv, 9)


def test_refusals(road: Between) -> None:
    road.link.setFaults(Refuse(2), towards="there")
    assert [error(road.start()) for _ in range(3)] == [errno.ECONNREFUSED, errno.ECONNREFUSED, 0]


def test_aResetTakesItsTime(road: Between) -> None:
    client, server = road.connect()
    road.link.setFaults(Latency(1.0))
    server.setsockopt(SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    server.close()
    assert client.poll() == OUT
    road.network.advance(1)
    assert error(client) == errno.ECONNRESET


# -- cuts


def test_whatWasHeldBackComesAfterwards(road: Between) -> None:
    client, server = road.connect()
    road.link.cut()
    road.link.cut()  # twice is once
    client.send(b"one ")
    client.send(b"two")
    client.shutdown(socket.SHUT_WR)
    road.network.advance(RETRANSMISSION_TIMEOUT - 1)
    fails(errno.EAGAIN, server.recv, 99)
    road.link.heal()
    road.link.heal()
    assert (server.recv(99), server.recv(99)) == (b"one two", b"")
    road.network.advance(1000)
    assert error(client) == 0


def test_whatIsUnderWayIsHeldToo(road: Between) -> None:
    client, server = road.connect()
    road.link.setFaults(Latency(1.0))
    client.send(b"x")
    road.link.cut()
    road.network.advance(10)
    road.link.heal()
    assert server.recv(9) == b"x"


def test_nothingIsAcknowledged(road: Between) -> None:
    client, server = road.connect()
    road.link.cut()
    client.send(b"one")
    road.network.advance(5)
    client.send(b"two")
    road.network.advance(RETRANSMISSION_TIMEOUT - 5)
    assert client.poll() == IN | OUT | ERR | HUP
    fails(errno.ETIMEDOUT, client.recv, 9)
    road.link.heal()
    assert server.poll() == OUT  # it has no idea


def test_whoHasClosedIsNotToldOfIt(road: Between) -> None:
    client, _ = road.connect()
    road.link.cut()
    client.send(b"one")
    client.close()
    road.network.advance(RETRANSMISSION_TIMEOUT)
    assert not client.error


def test_aResetIsLost(road: Between) -> None:
    client, server = road.connect()
    client.send(b"unread")
    road.link.cut()
    server.close()
    road.link.heal()
    road.network.advance(5)
    assert client.poll() == OUT


def test_theRoadBackStands(road: Between) -> None:
    client, server = road.connect()
    road.link.cut(towards="there")
    client.send(b"held")
    server.send(b"heard")
    assert client.recv(9) == b"heard"
    fails(errno.EAGAIN, server.recv, 9)


def test_datagramsAreLost(road: Between) -> None:
    one: Any = road.here.socket(TCP, UDP)
    two: Any = road.there.socket(TCP, UDP)
    two.bind(("", 7))
    place = (road.there.addresses[0], 7)
    road.link.setFaults(Latency(1.0))
    one.sendto(b"under way", place)
    road.link.cut()
    one.sendto(b"lost", place)
    road.network.advance(2)
    road.link.heal()
    one.sendto(b"comes", place)
    road.network.advance(2)
    assert two.recv(99) == b"comes"
    fails(errno.EAGAIN, two.recv, 99)


def test_whoConnectsIsLostToo(road: Between) -> None:
    road.link.cut()
    client = road.start()
    road.network.advance(100)
    assert client.poll() == 0
    assert not road.listener.pending


# -- probes

PROBES = ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


def keepAlive(skt: Any) -> None:
    skt.setsockopt(SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in PROBES:
        skt.setsockopt(socket.IPPROTO_TCP, option, value)


def test_probesThatNobodyAnswers(road: Between) -> None:
    client, server = road.connect()
    keepAlive(client)
    road.link.cut()
    road.network.advance(89)
    assert client.poll() == OUT
    road.network.advance(1)
    fails(errno.ETIMEDOUT, client.recv, 9)
    assert server.poll() == OUT  # it does not probe


def test_probesThatAreAnsweredInTime(road: Between) -> None:
    client, _ = road.connect()
    keepAlive(client)
    road.link.cut()
    road.network.advance(80)
    road.link.heal()
    road.network.advance(20)
    road.link.cut()
    road.network.advance(80)
    assert client.poll() == OUT
    road.network.advance(10)
    assert error(client) == errno.ETIMEDOUT


def test_probesFindOutAboutAResetThatWasLost(road: Between) -> None:
    client, server = road.connect()
    keepAlive(client)
    client.send(b"unread")
    road.link.cut()
    server.close()
    road.link.heal()
    road.network.advance(59)
    assert client.poll() == OUT
    road.network.advance(1)
    assert error(client) == errno.ECONNRESET


@pytest.mark.parametrize("ends", ["cut", "closed"])
def test_aProbeThatIsOvertaken(road: Between, ends: str) -> None:
    client, server = road.connect()
    keepAlive(client)
    client.send(b"unread")
    road.link.cut()
    server.close()
    road.link.heal()
    if ends == "cut":
        road.link.cut()
    else:
        client.close()
    road.network.advance(60)
    assert client.error == 0


def test_whoHasClosedProbesNoMore(road: Between) -> None:
    client, _ = road.connect()
    keepAlive(client)
    road.link.cut()
    client.close()
    road.network.advance(100)
    assert client.error == 0


# -- receivers that stall


def test_stalled(road: Between) -> None:
    client, server = road.connect()
    road.link.stall(towards="there")
    sent = fill(client)
    server.send(b"the other way")
    assert client.recv(99) == b"the other way"
    fails(errno.EAGAIN, server.recv, 99)
    assert road.start().poll() == OUT  # connections are made all the same
    elsewhere = road.network.link("here", "here")
    elsewhere.stall()
    elsewhere.stall(stalled=False)  # another road of the same host's
    fails(errno.EAGAIN, server.recv, 99)
    road.link.stall(towards="there", stalled=False)
    assert server.inward.size
    received = 0
    while received < sent:
        received += len(server.recv(99_999))


# -- chance


def test_chanceDelaysButKeepsTheOrder() -> None:
    times = set()
    for seed in range(20):
        road = Between(seed)
        client, server = road.connect()
        start = road.network.now
        for letter in b"abcdefgh":
            client.send(bytes([letter]))
        client.shutdown(socket.SHUT_WR)
        received = b""
        while not server.inward.arrivedEnd or server.inward.size:
            if server.inward.size:
                received += server.recv(99)
            else:
                road.network.advance(0.0005)
        assert received == b"abcdefgh"
        times.add(round(road.network.now - start, 4))
    assert len(times) > 1


def test_chanceLetsDatagramsOvertakeBetweenHosts() -> None:
    orders = {False: set(), True: set()}  # type: dict[bool, set[bytes]]
    for seed in range(40):
        road = Between(seed)
        for inside in (False, True):
            one: Any = road.here.socket(TCP, UDP)
            two: Any = (road.here if inside else road.there).socket(TCP, UDP)
            two.bind(("", 7))
            for letter in b"ab":
                one.sendto(bytes([letter]), (two.host.addresses[0], 7))
            road.network.advance(1)
            orders[inside].add(two.recv(9) + two.recv(9))
    assert orders == {False: {b"ab", b"ba"}, True: {b"ab"}}


def test_unixSocketsAreLeftOutOfIt() -> None:
    road = Between(3)
    listener: Any = road.here.socket(UNIX, socket.SOCK_STREAM)
    listener.bind("/run/server")
    listener.listen(1)
    client: Any = road.here.socket(UNIX, socket.SOCK_STREAM)
    client.connect("/run/server")
    server = listener.accept()[0]
    while client.send(b"x") == 1:
        assert server.recv(9) == b"x"
        if road.network.trace.events[-1].what == "read" and len(road.network.trace.events) > 100:
            break
    assert road.network.now == 0
