"""
Handlers of datagrams: a function that is called with each one, or a coroutine that is given the socket.

Their places are bound as all others are (:mod:`~twisted_net.service.launch`). There is nothing to accept, to admit or
to drain: limits, rates and deadlines are of connections. When the service stops the sockets are closed at once;
coroutines have the time of grace to end by themselves, then they are cancelled.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.logger import Logger

from twisted_net.address import Address
from twisted_net.interfaces import IConnectionUser
from twisted_net.service.deferreds import interpreted
from twisted_net.service.launch import Serving, beginCoroutine
from twisted_net.service.loading import isCoroutineFunction
from twisted_net.service.options import Choices
from twisted_net.udp import DatagramSocket, UdpSocket
from twisted_net.wire.datagram import DatagramPort
from twisted_net.wire.factory import SocketFactory
from twisted_net.wire.protocol import SocketProtocol

__all__ = ["Coroutines", "callForEach", "forDatagrams"]

#: What Node calls sockets of each family.
_TYPES: Final[dict[int, str]] = {socket.AF_INET: "udp4", socket.AF_INET6: "udp6", socket.AF_UNIX: "unix"}

_log: Final = Logger("twisted_net.service")


def forDatagrams(handler: Callable[..., Any], choices: Choices, reactor: Any) -> Serving:
    """
    Hand every datagram to *handler*, with its sender and a DatagramSocket; or, if it is a coroutine function, every
    socket, as a UdpSocket.
    """
    factory = SocketFactory(_nobody, reactor)
    if not isCoroutineFunction(handler):
        return Serving(factory, receive=callForEach(handler))
    coroutines = Coroutines(handler, reactor)
    return Serving(factory, coroutines.begin, coroutines.finish, coroutines.receive)


def _nobody(protocol: SocketProtocol) -> IConnectionUser:
    raise AssertionError("no port accepts connections for datagrams")


def callForEach(handler: Callable[[bytes, Address, DatagramSocket], object]) -> Callable[[DatagramPort], object]:
    """
    Return what makes a port call *handler* with each datagram that comes. One that raises is logged with its sender;
    the next ones go on.
    """

    def receive(port: DatagramPort) -> None:
        own = DatagramSocket(_TYPES[port.family], reactor=port.reactor)
        own.on("message", partial(_handle, handler, own))
        own.adopt(port)

    return receive


def _handle(handler: Callable[..., object], own: DatagramSocket, data: bytes, address: Address) -> None:
    try:
        handler(data, address, own)
    except Exception:
        _log.failure("the handler raised for a datagram of {peer}", peer=str(address))


class Coroutines:
    """
    Runs a coroutine for each port; its socket is closed when it has ended.

    :param handler: called with each socket.
    :param reactor: the reactor.
    """

    def __init__(self, handler: Callable[[UdpSocket], Any], reactor: Any) -> None:
        self._handler = interpreted(handler, reactor)
        self._reactor = reactor
        self._early: list[UdpSocket] | None = []
        self._running: list[Deferred[None]] = []

    def receive(self, port: DatagramPort) -> None:
        """Run one for *port*; before `begin` what comes there is kept."""
        own = UdpSocket(port)
        if self._early is None:
            self._begin(own)
        else:
            self._early.append(own)

    def begin(self) -> None:
        """Run those that have waited, and from now on all."""
        early, self._early = self._early or [], None
        for own in early:
            self._begin(own)

    def _begin(self, own: UdpSocket) -> None:
        running = beginCoroutine(self._reactor, self._run(own))
        running.addErrback(lambda cancelled: None)
        self._running.append(running)

    async def _run(self, own: UdpSocket) -> None:
        async with own:
            try:
                await self._handler(own)
            except CancelledError:
                raise
            except Exception:
                _log.failure("the handler of {place} raised; its socket is closed", place=str(own.address))

    def finish(self, grace: float) -> Deferred[None]:
        """Cancel those that have not ended after *grace* seconds; fires when all have."""
        ended: Deferred[Any] = gatherResults(self._running)
        late = self._reactor.callLater(grace, self._cancel)
        ended.addCallback(lambda results: late.cancel() if late.active() else None)
        return ended

    def _cancel(self) -> None:
        for one in self._running:
            one.cancel()
