"""``net echo``."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from launched import talk
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from twisted_net import service
from twisted_net.address import Address
from twisted_net.service import echo
from twisted_net.wire.factory import Ended


@pytest.mark.parametrize("words", [[], ["--half-open"]])
@pytest_twisted.ensureDeferred
async def test_everythingComesBack(words: list[str]) -> None:
    options = service.Options()
    options.parseOptions(["echo", "--listen=127.0.0.1:0", *words])
    launched: Any = service.makeService(options)
    ended: list[Ended] = []
    launched.factory.journal = ended.append
    address = Address.fromTwisted(launched.places[0].port.getHost())
    data = bytes(range(256)) * 1000
    assert await deferToThread(talk, str(address), data) == data
    (one,) = ended
    assert (one.bytesRead, one.bytesWritten, one.error) == (len(data), len(data), None)
    await launched.stopService()


@pytest_twisted.ensureDeferred
async def test_aResetIsNotLoggedTwice() -> None:
    from twisted.internet import reactor

    options = echo.Options()
    options.parseOptions(["--listen=127.0.0.1:0"])
    launched = echo.makeService(options)
    address = Address.fromTwisted(launched.places[0].port.getHost())
    ended: list[Ended] = []
    launched.factory.journal = ended.append
    await deferToThread(resets, str(address))
    while not ended:
        await deferLater(reactor, 0.01)
    assert getattr(ended[0].error, "code", None) == "ECONNRESET"
    await launched.stopService()


def resets(address: str) -> None:
    import socket
    import struct

    from launched import connect

    with connect(address) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
