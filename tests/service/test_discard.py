"""``net discard``."""

from __future__ import annotations

import pytest
import pytest_twisted
from launched import talk
from turning import until
from twisted.internet.threads import deferToThread

from twisted_net import udp
from twisted_net.address import Address
from twisted_net.errors import TimedOutError
from twisted_net.service import discard
from twisted_net.wire.factory import Ended


@pytest.mark.parametrize("words", [[], ["--half-open"]])
@pytest_twisted.ensureDeferred
async def test_nothingComesBack(words: list[str]) -> None:
    options = discard.Options()
    options.parseOptions(["--listen=127.0.0.1:0", *words])
    launched = discard.makeService(options)
    ended: list[Ended] = []
    launched.factory.journal = ended.append
    address = Address.fromTwisted(launched.places[0].port.getHost())
    assert await deferToThread(talk, str(address), b"x" * 300_000) == b""
    (one,) = ended
    assert (one.bytesRead, one.bytesWritten, one.error) == (300_000, 0, None)
    await launched.stopService()


@pytest_twisted.ensureDeferred
async def test_datagrams() -> None:
    options = discard.Options()
    options.parseOptions(["--listen=udp:127.0.0.1:0"])
    launched = discard.makeService(options)
    port = launched.places[0].port
    async with await udp.connect(f"udp:{port.address}") as client:
        for _ in range(3):
            await client.send(b"hello")
        await until(lambda: port.received == 3)
        client.setTimeout(0)
        with pytest.raises(TimedOutError):
            await client.recv()
    await launched.stopService()
