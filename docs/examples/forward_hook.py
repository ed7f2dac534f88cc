"""A forwarder that shows what passes, and ends who says a forbidden word.

``python forward_hook.py LISTEN TARGET``; Ctrl-C ends it.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twisted_net.forward import Direction, Ended, Forwarder, Hook, Session

WHERE, TARGET = sys.argv[1:]


class Shown(Hook):
    """Hears of one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def connected(self, session: Session) -> None:
        assert session.target is not None
        print(f"{session.number}: to {session.target.name}")

    def data(self, direction: Direction, data: bytes) -> None:
        print(f"{self.session.number}: {'>' if direction == 'upstream' else '<'} {data!r}")
        if b"forbidden" in data:
            self.session.abort()

    def closed(self, session: Session, ended: Ended) -> None:
        why = "in order" if ended.error is None else getattr(ended.error, "code", ended.error)
        print(f"{session.number}: over, {ended.bytesIn} bytes in, {ended.bytesOut} bytes out, {why}")


async def main(reactor: Any) -> None:
    forwarder = Forwarder([TARGET], hook=Shown)
    port: Any = await forwarder.listen(WHERE)
    print("listening on port", port.getHost().port)
    reactor.addSystemEventTrigger("before", "shutdown", forwarder.close)
    await Deferred()  # until it is stopped


react(main)
