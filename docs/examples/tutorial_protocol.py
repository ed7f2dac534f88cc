"""A server that adds up: one number a line. Whoever has ended is sent the total; whoever says nothing is let go.

``python tutorial_protocol.py`` serves it on port 8125: ``seq 10 | nc -N 127.0.0.1 8125`` prints 55.
"""

# mypy: allow-untyped-calls

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, connectionDone
from twisted.protocols.basic import LineOnlyReceiver
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

#: Seconds without a line after which a client is let go.
IDLE = 30 * 60


@implementer(IHalfCloseableProtocol)
class Total(LineOnlyReceiver, TimeoutMixin):
    """Adds up what one client sends."""

    transport: Any
    delimiter = b"\n"

    def connectionMade(self) -> None:
        self.total = 0
        self.setTimeout(IDLE)

    def lineReceived(self, line: bytes) -> None:
        self.resetTimeout()
        try:
            self.total += int(line)
        except ValueError:
            self.sendLine(b"no number: " + line)
            self.transport.loseConnection()

    def readConnectionLost(self) -> None:
        self.sendLine(b"%d" % self.total)
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None: ...

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.setTimeout(None)


if __name__ == "__main__":
    from twisted.internet.endpoints import serverFromString
    from twisted.internet.task import react

    async def main(reactor: Any, where: str = "tcp:8125:interface=127.0.0.1") -> None:
        port = await serverFromString(reactor, where).listen(Factory.forProtocol(Total))
        print("listening on", port.getHost().port, flush=True)
        await Deferred()

    react(main, sys.argv[1:])
