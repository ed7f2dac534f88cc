"""Whoever is said to stand behind a connection has every method of the contract, with the arguments it names."""

from __future__ import annotations

import pytest
from twisted.python.failure import Failure
from zope.interface import classImplements
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyClass

from twisted_net.interfaces import IConnectionUser
from twisted_net.net import Socket
from twisted_net.wire.hosting import Guest


@pytest.mark.parametrize("user", [Socket, Guest])
def test_ours(user: type) -> None:
    assert verifyClass(IConnectionUser, user)


def test_whatIsMissingIsFound() -> None:
    class Deaf:
        def connectionClosed(self, error: Exception | None, reason: Failure) -> None: ...

    classImplements(Deaf, IConnectionUser)  # type: ignore[misc]
    with pytest.raises(Invalid, match="connectionOpened"):
        verifyClass(IConnectionUser, Deaf)
