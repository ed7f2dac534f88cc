"""
Transports, ports and factories that are broken in one way each: what a conformance suite has to catch.

``Glass`` is a faithful wrapper that hides nothing; its subclasses have one flaw. They are put around a subject's
factories by ``flawed(subject, DropsAByte)``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import alsoProvides, directlyProvides, providedBy

from twisted_net.testing.checks import Case, Check, Subject

SHORT = 0.4
"""Seconds after which a flaw has shown that it is one."""

Flaw = Callable[[Subject], Subject]


class Glass(ProtocolWrapper):
    """Passes everything on, half-close included."""

    transport: Any
    wrappedProtocol: Any

    def __init__(self, factory: Any, wrapped: Any) -> None:
        super().__init__(factory, wrapped)
        self.gone = False
        self.making = False
        self._offers()

    def _offers(self) -> None:
        if IHalfCloseableProtocol.providedBy(self.wrappedProtocol):
            alsoProvides(self, IHalfCloseableProtocol)

    def makeConnection(self, transport: Any) -> None:
        directlyProvides(self, providedBy(transport))
        self._offers()
        self.transport = transport
        self.factory.registerProtocol(self)
        self.making = True
        self.wrappedProtocol.makeConnection(self)
        self.making = False

    def readConnectionLost(self) -> None:
        self.wrappedProtocol.readConnectionLost()

    def writeConnectionLost(self) -> None:
        self.wrappedProtocol.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.gone = True
        self.factory.unregisterProtocol(self)
        self.wrappedProtocol.connectionLost(reason)

    def abortConnection(self) -> None:
        self.transport.abortConnection()


class GlassFactory(WrappingFactory):
    """Its wrappers are of the kind that it was made with."""

    noisy = False

    def __init__(self, kind: type[Glass], factory: Any) -> None:
        super().__init__(factory)  # type: ignore[no-untyped-call]
        self._kind = kind

    def buildProtocol(self, addr: Any) -> Any:
        wrapped = self.wrappedFactory.buildProtocol(addr)
        return None if wrapped is None else self._kind(self, wrapped)


def flawed(kind: Callable[[Any, Any], Any], *, server: bool = True, client: bool = True) -> Flaw:
    """What puts wrappers of this kind around servers, clients or both."""

    def wrap(subject: Subject) -> Subject:
        wrapper = lambda factory: GlassFactory(kind, factory)  # type: ignore[arg-type]  # noqa: E731
        return subject.wrapped(wrapper if server else None, wrapper if client else None, kind.__name__)

    return wrap


@contextmanager
def folder() -> Iterator[str]:
    """A new folder with a short path, as the names of UNIX sockets need it; socket files in it go with it."""
    with tempfile.TemporaryDirectory() as name:
        yield name


def subjects(kind: str, where: str) -> Subject:
    """The subject of that kind on the running reactor."""
    from twisted.internet import reactor

    if kind == "unix":
        return Subject.unix(reactor, where)
    if kind == "tls":
        from certificates import selfSigned

        return Subject.tls(reactor, selfSigned().forServer(), selfSigned().forClient())
    if kind == "udp":
        return Subject.udp(reactor)
    return Subject.tcp(reactor, "::1" if kind == "tcp6" else "127.0.0.1")


async def caught(case: Case, flaw: Flaw, subject: Subject) -> str:
    """What *case* says of the subject with this flaw; fails the test when it sees none."""
    try:
        await case(flaw(replace(subject, patience=SHORT)))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    pytest.fail(f"{case} does not see it")


def named(check: Check) -> dict[str, Case]:
    """The cases of a check by their own names."""
    return {str(case).partition(".")[2]: case for case in check}
