"""``net echo``."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from launched import talk
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from twisted_net import service, udp
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


@pytest.mark.parametrize("place", ["udp:127.0.0.1:0", "unixgram:{}/echo.sock"])
@pytest_twisted.ensureDeferred
async def test_datagrams(place: str, tmp_path: Path) -> None:
    """Beside connections; one that nobody can answer costs nothing."""
    options = echo.Options()
    options.parseOptions(["--listen=127.0.0.1:0", f"--listen={place.format(tmp_path)}"])
    launched = echo.makeService(options)
    launched.serving.begin()
    address = Address.fromTwisted(launched.places[0].port.getHost())
    assert await deferToThread(talk, str(address), b"hello") == b"hello"
    where = launched.places[1].port.address
    if where.family == "unix":
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nameless:
            nameless.sendto(b"to nobody", where.address)
    async with await udp.connect(where.address if where.port is None else f"udp:{where}") as client:
        for data in (b"hello", b"", bytes(10_000)):
            await client.send(data)
            assert await client.recv() == data
    await launched.stopService()
    assert list(tmp_path.iterdir()) == []


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
    import struct

    from launched import connect

    with connect(address) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
