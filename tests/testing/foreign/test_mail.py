"""twisted.mail on a network in memory: a message by SMTP, and servers that are away for a while."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import pytest
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.mail.smtp import (
    IMessage,
    IMessageDelivery,
    SMTPBadRcpt,
    SMTPConnectError,
    SMTPDeliveryError,
    SMTPFactory,
    sendmail,
)
from weather import inEveryWeather
from zope.interface import implementer

from twisted_net.testing.network import MemoryNetwork

TEXT = b"Subject: hello\n\n" + b"".join(b"line %d\n" % number for number in range(2000)) + b".\n"


@implementer(IMessage)
class Letter:
    """One message, kept when it is complete."""

    def __init__(self, box: list[bytes]) -> None:
        self._box = box
        self._lines: list[bytes] = []

    def lineReceived(self, line: bytes) -> None:
        self._lines.append(line)

    def eomReceived(self) -> Deferred[None]:
        self._box.append(b"\r\n".join(self._lines) + b"\r\n")
        return succeed(None)

    def connectionLost(self) -> None:
        self._lines.clear()


@implementer(IMessageDelivery)
class Box:
    """Takes mail for one user."""

    def __init__(self) -> None:
        self.letters: list[bytes] = []

    def receivedHeader(self, helo: Any, origin: Any, recipients: Any) -> bytes:
        return b"Received: here"

    def validateFrom(self, helo: Any, origin: Any) -> Any:
        return origin

    def validateTo(self, user: Any) -> Any:
        if user.dest.local != b"ann":
            raise SMTPBadRcpt(user)
        return lambda: Letter(self.letters)


class Server(SMTPFactory):
    """Serves one box."""

    def __init__(self, box: Box) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._box = box

    def buildProtocol(self, addr: Any) -> Any:
        protocol: Any = super().buildProtocol(addr)  # type: ignore[no-untyped-call]
        protocol.delivery = self._box
        return protocol


async def send(network: MemoryNetwork, user: str) -> Any:
    """Send a message from the client to a user of the server's."""
    reactor = network.host("client").reactor
    return await sendmail("server", "bob@client", [f"{user}@server"], BytesIO(TEXT), reactor=reactor)


@inEveryWeather()
async def test_aMessage(network: MemoryNetwork) -> None:
    box = Box()
    port = network.host("server").reactor.listenTCP(25, Server(box))
    count, results = await send(network, "ann")
    assert (count, [result[:2] for result in results]) == (1, [(b"ann@server", 250)])
    assert box.letters == [b"Received: here\r\n" + TEXT.replace(b"\n", b"\r\n")]
    await maybeDeferred(port.stopListening)


@inEveryWeather()
async def test_aUserWhoIsNotThere(network: MemoryNetwork) -> None:
    port = network.host("server").reactor.listenTCP(25, Server(Box()))
    with pytest.raises(SMTPDeliveryError):
        await send(network, "nobody")
    await maybeDeferred(port.stopListening)


@inEveryWeather()
async def test_noServer(network: MemoryNetwork) -> None:
    # Twisted before 25 gives the reason itself.
    with pytest.raises((SMTPConnectError, ConnectionRefusedError), match="refused"):
        await send(network, "ann")
