"""
The master object of LuaSocket: a TCP socket that becomes a server by ``listen``, or a client by ``connect`` (LUAS-1,
2, 3).

It is the one object that the manual has: what it has become is behind it, and the calls that go with that are passed
on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from twisted_net.address import Address, TcpTarget, checkPort
from twisted_net.errors import BusyError, ClosedError, NetError
from twisted_net.streams.connection import Patience
from twisted_net.streams.dialling import Pending, StillConnectingError, begin
from twisted_net.streams.listener import Listener
from twisted_net.streams.stream import Bytes, How, Stats, Stream, patienceWith
from twisted_net.wire.listen import BACKLOG, bind
from twisted_net.wire.options import SocketOptions
from twisted_net.wire.waiting import outcome


class Master:
    """A TCP object that is neither server nor client yet. Made by :func:`~twisted_net.streams.tcp`.

    :ivar listener: the server that it has become, or None.
    :ivar stream: the client that it has become, or None.
    """

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.listener: Listener | None = None
        self.stream: Stream | None = None
        self._pending: Pending | None = None
        self._socket: Any = None
        self._bound: Address | None = None
        self._patience = Patience()
        self._options = SocketOptions()
        self._closed = False
        self._born: float = reactor.seconds()
        self._stats = Stats(0, 0, 0.0)

    async def bind(self, address: str, port: int) -> None:
        """
        Bind it to a local address (LUAS-12): ``"*"`` is every IPv4 interface, port 0 one that is free.

        :raises AddressError: a port outside of 0 to 65535, or what is no address.
        :raises NetError: ``EADDRINUSE``, ``EADDRNOTAVAIL``...
        """
        self._checkFresh("bind")
        if self._socket is not None:
            raise BusyError(f"bind: it is bound to {self._bound} already; make another one")
        target = TcpTarget("" if address == "*" else address, checkPort(port))
        await outcome(self.reactor, bind(self.reactor, target).addCallback(self._take))
        self._checkOpen("bind")

    def _take(self, skt: Any) -> None:
        if self._closed:
            skt.close()
            return
        self._socket = skt
        host, number = skt.getsockname()[:2]
        self._bound = Address(host, number, "IPv6" if ":" in host else "IPv4")

    async def listen(self, backlog: int = BACKLOG) -> None:
        """Become a server (LUAS-13); unless it was bound, at a free port of every IPv4 interface.

        :param backlog: clients that may wait. When it is full, Linux makes further ones wait, where the manual has them
            refused.
        """
        self._checkFresh("listen")
        if self._socket is None:
            await self.bind("*", 0)
        listener = Listener(self.reactor)
        skt, self._socket = self._socket, None
        await listener.serveSocket(skt, backlog)
        self._endow(listener)
        self.listener = listener

    def _endow(self, one: Listener | Stream) -> None:
        """What it becomes has what was set here."""
        one.setTimeout(self._patience.wait, "b")
        one.setTimeout(self._patience.call, "t")
        one.takeOptions(self._options)
        one.setStats(*self.getStats())

    @property
    def _became(self) -> Listener | Stream | None:
        return self.listener or self.stream

    async def connect(self, address: str, port: int) -> None:
        """
        Become a client (LUAS-13).

        :raises AddressError: a port outside of 1 to 65535.
        :raises TimedOutError: the time of `setTimeout` is up. The attempt goes on: ``select`` reports this object as
            writable when it has ended, and calling this again tells how.
        :raises NetError: it could not be connected.
        """
        if self._pending is None:
            self._checkFresh("connect")
            target = TcpTarget(address, checkPort(port, lowest=1))
            local = None if self._bound is None else (self._bound.address, self._bound.port or 0)
            skt, self._socket = self._socket, None
            if skt is not None:
                skt.close()
            self._pending = begin(self.reactor, target, localAddress=local, options=self._options)
        limits = [limit for limit in self._patience if limit is not None]
        try:
            stream = await self._pending.wait(min(limits, default=None))
        except NetError as error:
            if not isinstance(error, StillConnectingError):
                self._pending = None
            raise
        self._pending = None
        self._endow(stream)
        self.stream = stream

    def setTimeout(self, seconds: float | None, mode: Literal["b", "t"] = "b") -> None:
        """See :meth:`Stream.setTimeout <twisted_net.streams.stream.Stream.setTimeout>`; what it becomes has it, too."""
        self._checkOpen("setTimeout")
        self._patience = patienceWith(self._patience, seconds, mode)
        if self._became is not None:
            self._became.setTimeout(seconds, mode)

    def setOption(self, name: str, value: Any = True) -> None:
        """LuaSocket's options (LUAS-47), for what it is or becomes: see
        :meth:`Stream.setOption <twisted_net.streams.stream.Stream.setOption>`."""
        self._checkOpen("setOption")
        (self._became or self._options).setOption(name, value)

    def getSockName(self) -> Address | None:
        """The local address; None before there is one, and when it is closed (LUAS-43)."""
        if self._closed:
            return None
        return self._bound if self._became is None else self._became.getSockName()

    def getPeerName(self) -> Address | None:
        """The peer's address; None where there is no peer."""
        return None if self.stream is None else self.stream.getPeerName()

    def getStats(self) -> Stats:
        """Bytes received and sent, and the age in seconds (LUAS-45)."""
        if self._became is not None:
            return self._became.getStats()
        return self._stats._replace(age=self._stats.age + self.reactor.seconds() - self._born)

    def setStats(self, received: int | None = None, sent: int | None = None, age: float | None = None) -> None:
        """Set what `getStats` counts from; None leaves it as it is."""
        self._checkOpen("setStats")
        if self._became is not None:
            self._became.setStats(received, sent, age)
            return
        now = self.getStats()
        self._born = self.reactor.seconds()
        self._stats = Stats(
            now.received if received is None else received,
            now.sent if sent is None else sent,
            now.age if age is None else age,
        )

    async def accept(self) -> Stream:
        """The server's: see :meth:`Listener.accept <twisted_net.streams.listener.Listener.accept>`."""
        return await self._server("accept").accept()

    async def send(self, data: Bytes, i: int = 1, j: int = -1) -> int:
        """The client's: see :meth:`Stream.send <twisted_net.streams.stream.Stream.send>`."""
        return await self._client("send").send(data, i, j)

    async def receive(self, pattern: str | int = "*l", prefix: Bytes = b"") -> bytes:
        """The client's: see :meth:`Stream.receive <twisted_net.streams.stream.Stream.receive>`."""
        return await self._client("receive").receive(pattern, prefix)

    async def shutdown(self, how: How = "both") -> None:
        """The client's: see :meth:`Stream.shutdown <twisted_net.streams.stream.Stream.shutdown>`."""
        await self._client("shutdown").shutdown(how)

    async def close(self) -> None:
        """Close whatever it is; the local address is free again (LUAS-6). Harmless when it was done."""
        self._closed = True
        skt, self._socket = self._socket, None
        if skt is not None:
            skt.close()
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.close()
        if self._became is not None:
            await self._became.close()

    # -- for select

    @property
    def readable(self) -> bool:
        """Whether it can be read from, or accepted from, without waiting."""
        return self._closed or (self._became is not None and self._became.readable)

    @property
    def writable(self) -> bool:
        """Whether it can be written to, or its attempt to connect has ended."""
        if self._pending is not None:
            return self._pending.writable
        return self._closed or (self.stream is not None and self.stream.writable)

    def watch(self, watcher: Callable[[], object]) -> None:
        """Call *watcher* whenever something has changed."""
        for one in (self._became, self._pending):
            if one is not None:
                one.watch(watcher)

    def unwatch(self, watcher: Callable[[], object]) -> None:
        """Take `watch` back."""
        for one in (self._became, self._pending):
            if one is not None:
                one.unwatch(watcher)

    def _server(self, what: str) -> Listener:
        self._checkOpen(what)
        if self.listener is None:
            raise NetError(f"{what}: this object is no server; bind() and listen() first", code="EINVAL", fault="user")
        return self.listener

    def _client(self, what: str) -> Stream:
        self._checkOpen(what)
        if self.stream is None:
            raise NetError(f"{what}: this object is not connected; connect() first", code="ENOTCONN", fault="user")
        return self.stream

    def _checkOpen(self, what: str) -> None:
        if self._closed:
            raise ClosedError(f"{what}: this object is closed; only close() may be called again")

    def _checkFresh(self, what: str) -> None:
        self._checkOpen(what)
        if self.listener is not None or self.stream is not None:
            became = "server" if self.stream is None else "client"
            raise NetError(f"{what}: this object is a {became} already; make another one", code="EISCONN", fault="user")
        if self._pending is not None:
            raise BusyError(f"{what}: this object is connecting; await connect() again, or make another one")
