"""Host names before the reactor runs."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_twisted
from twisted.internet.interfaces import IHostnameResolver, IHostResolution
from zope.interface.verify import verifyObject

from twisted_net.errors import NetError
from twisted_net.service.lookup import blockingLookup
from twisted_net.wire.lookup import lookup


@pytest.fixture
def reactor() -> Any:
    from twisted.internet import reactor

    return reactor


def test_anAnswerAtOnce(reactor: Any) -> None:
    before = reactor.nameResolver
    found: list[list[str]] = []
    with blockingLookup(reactor):
        verifyObject(IHostnameResolver, reactor.nameResolver)
        lookup(reactor, "localhost", 80, 4).addCallback(found.append)
    assert found == [["127.0.0.1"]]
    assert reactor.nameResolver is before


def test_eitherFamily(reactor: Any) -> None:
    found: list[str] = []
    with blockingLookup(reactor):
        for host, family in (("127.0.0.1", 0), ("::1", 0), ("::1", 6)):
            lookup(reactor, host, 80, family).addCallback(found.extend)  # type: ignore[arg-type]
    assert found == ["127.0.0.1", "::1", "::1"]


@pytest_twisted.ensureDeferred
async def test_noAddress(reactor: Any) -> None:
    with blockingLookup(reactor):
        answer, other = lookup(reactor, "host.invalid", 80), lookup(reactor, "127.0.0.1", 80, 6)
    with pytest.raises(NetError, match="ENOTFOUND"):
        await other
    with pytest.raises(NetError) as caught:
        await answer
    assert caught.value.code == "ENOTFOUND"


def test_nothingIsLeftToCancel(reactor: Any) -> None:
    class Receiver:
        def resolutionBegan(self, resolution: Any) -> None:
            self.resolution = resolution

        def addressResolved(self, address: Any) -> None:
            pass

        def resolutionComplete(self) -> None:
            pass

    receiver = Receiver()
    with blockingLookup(reactor):
        resolution = reactor.nameResolver.resolveHostName(receiver, "127.0.0.1")
    assert verifyObject(IHostResolution, resolution)
    assert receiver.resolution is resolution
    resolution.cancel()
