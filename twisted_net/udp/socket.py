"""
UdpSocket: datagrams in coroutines (Lune's ``udp``).

The engine's port holds what comes; here is who waits for it. A datagram that has come wakes the one who has waited
longest, and stays where it is until somebody takes it: so whatever ends a wait (a timeout, a cancellation) loses none,
and passes on the word to the next one.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Any, NamedTuple, Self

from twisted.internet.defer import Deferred, succeed

from twisted_net.address import Address
from twisted_net.errors import ClosedError, NetError, OptionError, TimedOutError
from twisted_net.wire.casting import DatagramOptions
from twisted_net.wire.clocks import limitOf
from twisted_net.wire.datagram import LONGEST, Data, DatagramPort
from twisted_net.wire.destination import Destination, RawPlace, addressOf, locate, placeOf
from twisted_net.wire.waiting import Waiter


class Received(NamedTuple):
    """A datagram that came."""

    data: bytes
    """What was sent, or the beginning of it."""

    address: Address
    """Who sent it; ``sendTo(data, address)`` answers (LUNE-5)."""

    truncated: bool
    """Whether it was longer than what was asked for: the rest is lost."""


class UdpSocket:
    """
    A UDP or UNIX datagram socket. Made by :func:`twisted_net.udp.bind` and :func:`twisted_net.udp.connect`.

    ``async for packet in socket`` gives each datagram as `recvFrom` does, until the socket is closed; ``async with
    socket`` closes it. Any number of coroutines may send and receive at once.
    """

    def __init__(self, port: DatagramPort) -> None:
        self._port = port
        self._receivers: deque[Waiter] = deque()
        self._patience: float | None = None
        self._error: NetError | None = None
        port.receive = self._received
        port.start(self)

    def __repr__(self) -> str:
        return f"<UdpSocket {self.address}{', closed' if self.closed else ''}>"

    # -- the engine's news

    def _received(self, data: bytes, place: RawPlace) -> None:
        if self._port.hold(data, place):
            self._wakeOne()

    def _wakeOne(self) -> None:
        if self._receivers:
            self._receivers.popleft().fire()

    def failed(self, error: NetError) -> None:
        """What was sent earlier did not arrive: the next call says so, or one that waits."""
        if self._receivers:
            self._receivers.popleft().fire(error)
        else:
            self._error = error

    def ended(self, error: NetError | None) -> None:
        """The port is closed."""
        receivers, self._receivers = self._receivers, deque()
        for receiver in receivers:
            closed = ClosedError("recv: the socket was closed while this waited")
            closed.__cause__ = error
            receiver.fire(closed)

    # -- sending

    async def sendTo(self, data: Data, address: Destination) -> int:
        """
        Send a datagram to *address* (LUNE-2): ``"host:port"``, ``"unix:/path"``, ``(host, port)``, or the address of a
        datagram that came (LUNE-5). Waits while the system has no room for it. A name is looked up each time.

        :returns: how many bytes were sent: all of them.
        :raises AddressError: *address* is none, or none that this socket can send to.
        :raises ClosedError: the socket is closed, or was while this waited.
        :raises TimedOutError: there was no room in the time allowed (`setTimeout`); it is not sent.
        :raises NetError: ``EMSGSIZE``: it is too long; ``EACCES``: broadcasting is not allowed; ``ENETUNREACH``... On a
            socket that is connected, also what became of earlier datagrams (`send`).
        """
        port = self._port
        place = placeOf(port.family, address)
        if place is None:
            port.checkOpen("sendTo")
            place = await locate(port.reactor, port.family, address)
        return await self._send(data, place)

    async def send(self, data: Data) -> int:
        """
        Send a datagram to whom the socket is connected (LUNE-4); otherwise as `sendTo`.

        :raises RefusedError: an earlier datagram was refused: nobody has that port. This is said once, by the next call
            of any kind; this datagram is not sent, and the socket can be used on.
        :raises NetError: ``ENOTCONN``: it is not connected.
        """
        return await self._send(data, None)

    async def _send(self, data: Data, place: RawPlace) -> int:
        self._raiseError()
        sent = self._port.send(data, place)
        return await self._sendLater(data, place) if sent is None else sent

    async def _sendLater(self, data: Data, place: RawPlace) -> int:
        port = self._port
        waiter = Waiter(port.reactor, lambda waiter: port.withdraw(unsent))
        unsent = port.enqueue(data, place, waiter.fire)
        await self._timed(waiter, self._deadline(), "send", "there was no room in the system")
        return len(unsent.data)

    # -- receiving

    async def recvFrom(self, max: int = LONGEST) -> Received:
        """
        The next datagram (LUNE-3); an empty one is one, too.

        :param max: bytes; what is longer is cut, and ``truncated`` says so. Never more than 65,535.
        :raises TimedOutError: none came in the time allowed (`setTimeout`).
        :raises ClosedError: the socket is closed, or was while this waited.
        :raises RefusedError: as `send`.
        """
        data, place = await self._next("recvFrom", max)
        address = addressOf(self._port.family, place)
        return Received(data, address, False) if len(data) <= max else Received(data[:max], address, True)

    async def recv(self, max: int = LONGEST) -> bytes:
        """
        As `recvFrom`, the bytes alone (LUNE-4); for a socket that is connected.

        :raises NetError: ``ENOTCONN``: it is not.
        """
        if self._port.peer is None and not self._port.isClosed:
            raise NetError(
                "recv: this socket is not connected; connect() first, or use recvFrom", code="ENOTCONN", fault="user"
            )
        data, _ = await self._next("recv", max)
        return data[:max]

    async def _next(self, what: str, most: int) -> tuple[bytes, RawPlace]:
        if isinstance(most, bool) or not isinstance(most, int) or not 0 <= most <= LONGEST:
            raise OptionError(f"{what}: max is {most!r}; it is a whole number of bytes, 0 to {LONGEST:,}")
        port = self._port
        held = port.held
        if self._patience == 0.0 and not held:
            port.doRead()  # without waiting, what has come counts as soon as it is in the kernel
        deadline = self._deadline()
        while True:
            self._raiseError()
            port.checkOpen(what)
            if held:
                return held.popleft()
            waiter = Waiter(port.reactor, self._receivers.remove)
            self._receivers.append(waiter)
            try:
                await self._timed(waiter, deadline, what, "nothing came")
            except BaseException:
                if held:
                    self._wakeOne()
                raise

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Received:
        try:
            return await self.recvFrom()
        except ClosedError:
            raise StopAsyncIteration from None

    # -- waiting

    def setTimeout(self, seconds: float | None) -> None:
        """
        How long each call may wait: for a datagram, or for room to send one.

        :param seconds: None (the default), or a negative number: for ever; 0: not at all.
        :raises OptionError: it is no number.
        """
        self._patience = limitOf("seconds", seconds)

    def _deadline(self) -> float | None:
        return None if self._patience is None else self._port.reactor.seconds() + self._patience

    async def _timed(self, waiter: Waiter, deadline: float | None, what: str, why: str) -> None:
        seconds = None if deadline is None else max(0.0, deadline - self._port.reactor.seconds())
        await waiter.within(seconds, partial(_late, what, why))

    def _raiseError(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    # -- whom to

    async def connect(self, address: Destination) -> None:
        """
        Send to *address*, and hear from nobody else (LUNE-4); may be called again for another one.

        What has come before stays in the queue, whoever it is from.

        :raises NetError: as `sendTo`.
        """
        port = self._port
        port.checkOpen("connect")
        port.connect(await locate(port.reactor, port.family, address))

    @property
    def address(self) -> Address:
        """Where the socket is bound (LUNE-1); it stays known when it is closed."""
        return self._port.address

    @property
    def peer(self) -> Address | None:
        """Whom it is connected to; None for nobody."""
        return self._port.peer

    def joinGroup(self, group: str, interface: str | None = None) -> None:
        """
        Hear what is sent to *group* (an IP address) at this socket's port.

        :param interface: the name of an interface, or its IPv4 address; None leaves it to the system's routes.
        :raises AddressError: *group* is none, or of the other version.
        :raises NetError: ``EADDRINUSE``: it is a member already; ``ENODEV``: no interface leads there.
        """
        self._port.joinGroup(group, interface)

    def leaveGroup(self, group: str, interface: str | None = None) -> None:
        """
        Hear it no more.

        :raises NetError: ``EADDRNOTAVAIL``: it is no member. Otherwise as `joinGroup`.
        """
        self._port.leaveGroup(group, interface)

    def setOptions(self, **options: Any) -> None:
        """
        Change options of :class:`~twisted_net.wire.casting.DatagramOptions`: ``broadcast``, ``ttl``, ``loop``...

        :raises OptionError: one is unknown, has no such value, or can only be given to ``bind``.
        :raises NetError: the system refuses.
        """
        self._port.setOptions(DatagramOptions.named(options))

    # -- counts

    @property
    def queueLimit(self) -> int:
        """How many datagrams are kept while nobody receives; may be set, 1 or more."""
        return self._port.queueLimit

    @queueLimit.setter
    def queueLimit(self, limit: int) -> None:
        self._port.queueLimit = limit

    @property
    def dropped(self) -> int:
        """Datagrams that came and found the queue full. What the kernel drops before is not known here."""
        return self._port.dropped

    @property
    def received(self) -> int:
        """Datagrams that came, the dropped ones included."""
        return self._port.received

    @property
    def sent(self) -> int:
        """Datagrams that were sent."""
        return self._port.sent

    # -- its end

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._port.isClosed

    def close(self) -> Deferred[None]:
        """
        Close it, now: the port is free when this returns, whoever waits is told with a ClosedError, and what was not
        received is dropped. Harmless when it was done.

        :returns: something that may be awaited, as with streams, and need not be.
        """
        self._port.close()
        return succeed(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *failure: object) -> None:
        self._port.close()


def _late(what: str, why: str, seconds: float) -> TimedOutError:
    return TimedOutError(f"{what}: {why} in time; allow more (setTimeout), or try again", syscall=what)
