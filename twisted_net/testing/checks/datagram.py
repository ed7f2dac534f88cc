"""What a port of datagrams owes: each datagram whole, on its own, and from whom."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import deferLater

from twisted_net.testing.checks.conformance import Check
from twisted_net.testing.checks.stream import pattern
from twisted_net.testing.checks.subject import MAX_DATAGRAM, QUIET, Subject

checkDatagram = Check("datagram", "datagram")

Datagram = tuple[bytes, tuple[str, int]]


@checkDatagram.case()
async def aDatagramComesWhole(subject: Subject) -> None:
    """Each datagram comes once, whole, and with nothing of its neighbours (RFC 768; IUDPTransport.write)."""
    async with _room(subject) as room:
        here, there = room.opens(), room.opens()
        for data in (b"one", b"two two", b"three three three"):
            here.sends(data, there)
        heard = [data for data, _ in await there.hears(3)]
        assert heard == [b"one", b"two two", b"three three three"], f"it heard {heard}"
        await there.hearsNothing()


@checkDatagram.case()
async def anEmptyDatagramComesToo(subject: Subject) -> None:
    """A datagram without a byte is one (RFC 768: the least length is that of the header)."""
    async with _room(subject) as room:
        here, there = room.opens(), room.opens()
        here.sends(b"", there)
        assert await there.hears(1) == [(b"", here.address)]


@checkDatagram.case()
async def theLargestDatagramComes(subject: Subject) -> None:
    """65,507 bytes are what a datagram can hold, and they come (RFC 768, RFC 791, udp(7))."""
    async with _room(subject) as room:
        here, there = room.opens(), room.opens()
        here.sends(pattern(MAX_DATAGRAM), there)
        assert await there.hears(1) == [(pattern(MAX_DATAGRAM), here.address)]


@checkDatagram.case()
async def aDatagramThatIsTooLongIsRefused(subject: Subject) -> None:
    """What is longer than a datagram can be raises MessageLengthError, and is not sent (IUDPTransport.write;
    EMSGSIZE in udp(7))."""
    async with _room(subject) as room:
        here, there = room.opens(), room.opens()
        try:
            here.sends(bytes(MAX_DATAGRAM + 1), there)
        except MessageLengthError:
            await there.hearsNothing()
        else:
            raise AssertionError("it was taken")


@checkDatagram.case()
async def datagramsOfOneSenderKeepTheirOrder(subject: Subject) -> None:
    """Between two sockets of one machine nothing is lost or overtaken while there is room (udp(7) on the loopback
    device)."""
    async with _room(subject) as room:
        here, there = room.opens(), room.opens()
        sent = [b"%d" % number for number in range(100)]
        for data in sent:
            here.sends(data, there)
        heard = [data for data, _ in await there.hears(len(sent))]
        assert heard == sent, f"it heard {heard}"


@checkDatagram.case()
async def aDatagramSaysWhereItIsFrom(subject: Subject) -> None:
    """Whoever hears a datagram is told its sender's address, and can answer there
    (DatagramProtocol.datagramReceived)."""
    async with _room(subject) as room:
        here, other, there = room.opens(), room.opens(), room.opens()
        here.sends(b"from here", there)
        other.sends(b"from another", there)
        heard = dict(await there.hears(2))
        assert heard == {b"from here": here.address, b"from another": other.address}, f"it heard {heard}"
        there.transport.write(b"answer", heard[b"from here"])
        assert await here.hears(1) == [(b"answer", there.address)]
        await other.hearsNothing()


@checkDatagram.case()
async def aPortHasANumber(subject: Subject) -> None:
    """Port 0 gives a free port, and getHost tells which (IReactorUDP.listenUDP, IUDPTransport.getHost)."""
    async with _room(subject) as room:
        first, second = room.opens(), room.opens()
        assert 0 < first.address[1] < 65536, f"its address is {first.address}"
        assert first.address != second.address, "two ports have one address"
        assert first.transport.getHost().port == first.address[1]


@checkDatagram.case()
async def aConnectedPortSendsWithoutAnAddress(subject: Subject) -> None:
    """After connect, write needs no address (IUDPTransport.connect)."""
    async with _room(subject) as room:
        here, there = room.opens(), room.opens()
        here.transport.connect(*there.address)
        here.transport.write(b"to you")
        assert await there.hears(1) == [(b"to you", here.address)]
        there.sends(b"and back", here)
        assert await here.hears(1) == [(b"and back", there.address)]


@checkDatagram.case()
async def aConnectedPortHearsItsPeerOnly(subject: Subject) -> None:
    """After connect, datagrams of others do not come (IUDPTransport.connect; connect(2))."""
    async with _room(subject) as room:
        here, there, other = room.opens(), room.opens(), room.opens()
        here.transport.connect(*there.address)
        other.sends(b"psst", here)
        await here.hearsNothing()


@checkDatagram.case("refused")
async def aConnectedPortIsToldThatNobodyListens(subject: Subject) -> None:
    """Who is connected to where nobody listens, and writes, is told connectionRefused
    (IUDPTransport.connect, DatagramProtocol.connectionRefused; ECONNREFUSED in udp(7))."""
    async with _room(subject) as room:
        here, there = room.opens(), room.opens()
        here.transport.connect(*there.address)
        await there.closes()
        here.transport.write(b"anybody?")
        await here.isRefused()


@checkDatagram.case()
async def whoIsNotConnectedIsNotToldThatNobodyListens(subject: Subject) -> None:
    """Writing to where nobody listens does no harm to who is not connected: later datagrams come and go (udp(7))."""
    async with _room(subject) as room:
        here, gone, there = room.opens(), room.opens(), room.opens()
        nobody = gone.address
        await gone.closes()
        for _ in range(3):
            here.transport.write(b"anybody?", nobody)
        here.sends(b"you", there)
        assert await there.hears(1) == [(b"you", here.address)]
        assert here.refusals == 0, f"it was told {here.refusals} times"


@checkDatagram.case()
async def twoPortsCannotHaveOneAddress(subject: Subject) -> None:
    """Listening where somebody listens already raises CannotListenError (IReactorUDP.listenUDP)."""
    async with _room(subject) as room:
        first = room.opens()
        try:
            room.opens(first.address[1])
        except CannotListenError:
            return
        raise AssertionError("two ports listen at one address")


@checkDatagram.case()
async def stopListeningFreesTheAddress(subject: Subject) -> None:
    """When stopListening has fired, the protocol has been stopped, nothing comes any more, and the address is free
    (IListeningPort.stopListening, DatagramProtocol.stopProtocol)."""
    async with _room(subject) as room:
        here, there = room.opens(), room.opens()
        await there.closes()
        assert there.calls == ["start", "stop"], f"it was told {there.calls}"
        again = room.opens(there.address[1])
        here.sends(b"to the next one", again)
        assert await again.hears(1) == [(b"to the next one", here.address)]
        assert not there.heard, f"it heard {there.heard}"


class _Mailbox(DatagramProtocol):
    """One socket: keeps the datagrams that come."""

    transport: Any
    noisy = False

    def __init__(self, subject: Subject) -> None:
        self.heard: list[Datagram] = []
        self.refusals = 0
        self.calls: list[str] = []
        self._subject = subject
        self._port: IListeningPort | None = None
        self._waiter: Deferred[None] | None = None

    def opens(self, number: int) -> None:
        assert self._subject.listenDatagram is not None
        assert self._subject.address is not None
        self._port = self._subject.listenDatagram(self, number)
        self.address = self._subject.address(self._port)

    async def closes(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await maybeDeferred(port.stopListening)

    def sends(self, data: bytes, to: _Mailbox) -> None:
        self.transport.write(data, to.address)

    async def hears(self, count: int) -> list[Datagram]:
        """The next *count* datagrams."""
        while len(self.heard) < count:
            await self._happens(f"{count} datagrams were to come, and {self.heard!r:.200} came")
        heard, self.heard = self.heard[:count], self.heard[count:]
        return heard

    async def isRefused(self) -> None:
        """Wait until it was told that nobody listens."""
        while not self.refusals:
            await self._happens("it was not told that nobody listens")

    async def hearsNothing(self) -> None:
        await deferLater(self._subject.reactor, QUIET, lambda: None)
        assert not self.heard, f"nothing was to come, and {self.heard!r:.200} came"

    async def _happens(self, failure: str) -> None:
        def late(result: object, seconds: float) -> None:
            raise AssertionError(f"{failure} in {seconds:g} seconds")

        self._waiter = Deferred()
        await self._waiter.addTimeout(self._subject.patience, self._subject.reactor, late)

    def _note(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.callback(None)

    def startProtocol(self) -> None:
        self.calls.append("start")

    def stopProtocol(self) -> None:
        self.calls.append("stop")

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.heard.append((datagram, addr))
        self._note()

    def connectionRefused(self) -> None:
        self.refusals += 1
        self._note()


class _Room:
    """Opens mailboxes, and closes them all."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._boxes: list[_Mailbox] = []

    def opens(self, number: int = 0) -> _Mailbox:
        box = _Mailbox(self._subject)
        box.opens(number)
        self._boxes.append(box)
        return box

    async def closes(self) -> None:
        for box in self._boxes:
            await box.closes()


@asynccontextmanager
async def _room(subject: Subject) -> AsyncIterator[_Room]:
    room = _Room(subject)
    try:
        yield room
    finally:
        await room.closes()
