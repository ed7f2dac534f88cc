"""ServerService: a Server under ``twistd``, or in any other Twisted service tree."""

from __future__ import annotations

from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from twisted_net.errors import NetError
from twisted_net.net.server import Server


class ServerService(Service):
    """A service that listens while it runs.

    It begins to listen at the *privileged* start, before ``twistd`` gives up root, so that ports below 1024 and sockets
    under ``/run`` work; stopping it drains: no more connections are accepted, those that live go on for *grace*
    seconds, then they are aborted.

    :param server: the server; its `Server.listen` is called with *args* and *keywords*.
    :param grace: seconds that connections have to finish; None waits for ever.
    """

    def __init__(self, server: Server, *args: Any, grace: float | None = 30.0, **keywords: Any) -> None:
        #: The server.
        self.server = server
        #: Seconds that connections have to finish when the service stops.
        self.grace = grace
        #: Why the server does not listen, when it could not.
        self.error: NetError | None = None
        self._args = args
        self._keywords = keywords
        self._begun = False

    def privilegedStartService(self) -> None:
        """Begin to listen."""
        super().privilegedStartService()  # type: ignore[no-untyped-call]
        self._begin()

    def startService(self) -> None:
        """Begin to listen, unless the privileged start did."""
        super().startService()  # type: ignore[no-untyped-call]
        self._begin()

    def _begin(self) -> None:
        if not self._begun:
            self.error = None
            self.server.listen(*self._args, **self._keywords)
            self._begun = True
            self.server.whenListening().addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self._begun = False
        error = failure.value
        assert isinstance(error, NetError), failure
        if error.code != "ECANCELED":
            self.error = error
            if not self.server.listenerCount("error"):
                self.server.errorUnheard(error)

    def stopService(self) -> Deferred[None]:
        """Drain: fires when the last connection has ended."""
        super().stopService()  # type: ignore[no-untyped-call]
        self._begun = False
        return self.server.drain(self.grace)
