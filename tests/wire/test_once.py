"""The factory of one connection."""

from __future__ import annotations

import pytest
from lines import User
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from twisted_net.sansio.lifecycle import State
from twisted_net.wire.once import Once
from twisted_net.wire.protocol import SocketProtocol


def protocol() -> SocketProtocol:
    return SocketProtocol(User(), Clock())


def test_theProtocolOnce() -> None:
    one = protocol()
    factory = Once(one)
    assert verifyObject(IProtocolFactory, factory)
    factory.doStart()
    assert factory.buildProtocol(None) is one
    assert factory.buildProtocol(None) is None
    factory.doStop()


@pytest.mark.parametrize("state", [State.DROPPED, State.CLOSED])
def test_nobodyWantsAConnectionThatWasGivenUp(state: State) -> None:
    one = protocol()
    one.state = state
    assert Once(one).buildProtocol(None) is None
