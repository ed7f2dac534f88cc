"""
One client and its target, from the client's admission until both are gone.

::

    admitted --- pick, dial ---> introduced --- both gone ---> over
        |  ^        |
        |  +-retry--+ refused, or not in time: the next target
        |           |
        |           +-- nobody is left: the client is told, by RST or by FIN ---> over
        +-- the client has gone ---> over

*While the target is dialled* the client is not read: what it sends waits in the kernel, and costs nothing here. Nothing
tells of such a connection's reset, so the engine looks for it once a second, and then the attempt is given up. A FIN
alone proves nothing: the client may have asked its whole question, and is waiting.

*Who is to blame.* An attempt that fails for want of descriptors or of local ports says nothing of the target, and would
say the same of the next one: the client is told, and no target suffers for it.

*Afterwards* the two connections serve each other (:mod:`~twisted_net.wire.relay`), and the session only waits for their
end. What a client is told of a failure by FIN has to be waited for, too: a connection that is closed while bytes lie
unread answers with RST instead (RFC 1122, 4.2.2.13). So whatever the client still sends is read and dropped for a while
(nginx calls that a lingering close).

*When one of the two is gone*, the other one is still sent what was on its way, and its clocks may be none: the client's
have gone with it. So it gets the client's limits then: without a byte for the half-open or the idle time, whichever is
less, or at the end of the client's lifetime, it is aborted. Otherwise a target that does not read would hold a session
for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from twisted_net.address import Address, EndpointTarget, TcpTarget, UnixTarget
from twisted_net.errors import AbortedError, NetError, RefusedError, TimedOutError
from twisted_net.forward.hooks import Hook
from twisted_net.forward.targets import Pool, Target
from twisted_net.interfaces import IConnectionUser
from twisted_net.sansio.lifecycle import State
from twisted_net.wire.dial import dial
from twisted_net.wire.once import Once
from twisted_net.wire.options import SocketOptions
from twisted_net.wire.outlet import Batch
from twisted_net.wire.protocol import UNCLAIMED, SocketProtocol
from twisted_net.wire.reasons import translate
from twisted_net.wire.relay import Introduction, Way
from twisted_net.wire.splice import Splices

__all__ = ["Ended", "Plan", "Session"]

TARGET: Final = "target"
"""The owner of the pause in the client's reading until there is a target."""

LINGER: Final = 5.0
"""Seconds for which a client that is told of a failure by FIN may go on sending: nginx's ``lingering_timeout``."""

LOCAL_CODES: Final = frozenset({"EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EADDRNOTAVAIL", "EADDRINUSE", "EAGAIN"})
"""Errors of an attempt that tell of this machine and not of the target."""

_NODELAY: Final = SocketOptions()
_NODELAY.noDelay = True  # segments are passed on as they come; the senders' Nagle has gathered them once


@dataclass(frozen=True, slots=True)
class Ended:
    """What is known of a session that is over, for a journal."""

    client: Address
    """Who it was."""
    target: str | None
    """The name of the target that served it; None when none did."""
    bytesIn: int
    """Bytes that came from the client."""
    bytesOut: int
    """Bytes that were sent to it."""
    seconds: float
    """From its admission to the end."""
    error: Exception | None
    """What went wrong, or None after an end in good order."""


class Plan(Protocol):
    """What a session asks of the forwarder that it belongs to."""

    pool: Pool
    retries: int
    timeoutConnect: float | None
    onFailure: Literal["reset", "close"]
    splices: Splices | None
    batch: Batch | None

    def ways(self, session: Session) -> tuple[Way | None, Way | None]:
        """How bytes go there and back, where that is not the straight way."""

    def refuses(self) -> NetError | None:
        """Why this client is not to be served, if it is not."""

    def over(self, session: Session, ended: Ended) -> None:
        """It is over."""


@implementer(IConnectionUser)
class Session:
    """
    One client and its target; what a hook and `Forwarder.sessions` show.

    :ivar number: which one it is, counted from 0 by the forwarder.
    :ivar target: the target that is dialled or serves it; None before there is one.
    """

    _log = Logger()

    __slots__ = (
        "_began",
        "_client",
        "_clientAddress",
        "_dialling",
        "_error",
        "_introduction",
        "_lingering",
        "_opened",
        "_over",
        "_plan",
        "_server",
        "_tried",
        "hook",
        "number",
        "target",
    )

    def __init__(self, plan: Plan, client: SocketProtocol, number: int, hook: Callable[[Session], Hook] | None) -> None:
        self._plan = plan
        self._client = client
        self._server: SocketProtocol | None = None
        self._clientAddress = Address.fromTwisted(client.getPeer())
        self._began: float = client.reactor.seconds()
        self._dialling: Deferred[Any] | None = None
        self._introduction: Introduction | None = None
        self._lingering: IDelayedCall | None = None
        self._error: Exception | None = None
        self._tried: list[Target] = []
        self._opened = False
        self._over = False
        self.number = number
        self.target: Target | None = None
        self.hook = None if hook is None else hook(self)

    def __repr__(self) -> str:
        return f"<Session {self.number}: {self.client} -> {'nobody yet' if self.target is None else self.target.name}>"

    # -- what a hook may ask and do

    @property
    def client(self) -> Address:
        """Who the client is."""
        return self._clientAddress

    @property
    def bytesIn(self) -> int:
        """Bytes that came from the client so far."""
        return self._client.bytesRead

    @property
    def bytesOut(self) -> int:
        """Bytes that were given to it so far."""
        return self._client.bytesWritten

    @property
    def isConnected(self) -> bool:
        """Whether client and target are joined."""
        return self._introduction is not None

    def abort(self, error: Exception | None = None) -> None:
        """
        End it now, with RST on both sides. Harmless when it is over.

        :param error: why; for the log.
        """
        error = error or AbortedError("the session was aborted", fault="user")
        if not self._opened:  # by who made the hook: the engine has not begun, and would tell nobody of the end
            self._error = error
            return
        self._client.abort(error)
        if self._server is not None:  # the client may have gone before
            self._server.abort(error)

    # -- towards the target

    def connectionOpened(self, protocol: SocketProtocol) -> None:
        """The client stands."""
        self._opened = True
        if self._error is not None:
            protocol.abort(self._error)
            return
        protocol.pause(TARGET)
        with suppress(NetError):  # it has left already; that comes as its end
            _NODELAY.apply(protocol.transport)
        refusal = self._plan.refuses()
        if refusal is None:
            self._dialNext()
        else:
            self._fail(refusal)

    def _dialNext(self) -> None:
        target = self._plan.pool.pick(repr(self._client.peerKey).encode(), self._tried)
        if target is None:
            self._fail(self._nobody())
            return
        self._tried.append(target)
        self.target = target
        self._plan.pool.entered(target, self)
        server = self._server = SocketProtocol(UNCLAIMED, self._client.reactor)
        assert isinstance(target.where, TcpTarget | UnixTarget | EndpointTarget), "a pool has one kind"
        dialling = dial(
            server.reactor, Once(server), target.where, timeout=self._plan.timeoutConnect, options=_NODELAY
        )
        self._dialling = dialling
        dialling.addCallbacks(self._connected, self._notConnected)

    def _nobody(self) -> NetError:
        if self._error is not None:
            assert isinstance(self._error, NetError)
            return self._error
        return RefusedError("no target is up; look at their logs, and at why they were taken out above")

    def _connected(self, protocol: object) -> None:
        self._dialling = None
        target, server = self.target, self._server
        assert server is not None
        if self._over:  # an endpoint that was told to stop too late
            server.abort()
            return
        assert target is not None
        self._error = None
        self._plan.pool.succeeded(target)
        there, back = self._plan.ways(self)
        self._introduction = _Joined(
            self._client,
            server,
            self._ended,
            self._oneGone,
            there=there,
            back=back,
            splices=self._plan.splices,
            batch=self._plan.batch,
        )
        if self.hook is not None:
            self.tell("connected", self.hook.connected, self)
        self._client.resume(TARGET)

    def _notConnected(self, failure: Failure) -> None:
        self._dialling = None
        if self._over:
            return
        self._server = None
        target = self._leaveTarget()
        assert target is not None
        error = translate(failure, address=target.where, syscall="connect")
        assert error is not None, "what did not come about has not ended in good order"
        self._error = error
        if error.code in LOCAL_CODES:
            self._fail(error)
            return
        self._plan.pool.failed(target, error)
        if len(self._tried) <= self._plan.retries:
            self._dialNext()
        else:
            self._fail(error)

    def _fail(self, error: NetError) -> None:
        """Nobody serves this client: it is told so."""
        self._error = error
        client = self._client
        if self._plan.onFailure == "reset":
            client.abort(error)
            return
        # FIN, and not RST: nothing may lie unread when it is closed.
        client.attach(_discard)
        client.resume(TARGET)
        client.end()
        self._lingering = client.reactor.callLater(LINGER, client.drop)

    # -- the client's end before there is a target; afterwards the introduction hears of it

    def readEnded(self) -> None:
        """Told of the linger: the client has ended, too."""

    def writeEnded(self) -> None:
        """The failure was told."""

    def drained(self) -> None:
        """Nothing was written."""

    def connectionClosed(self, error: Exception | None, reason: Failure) -> None:
        """The client is gone, and was never served."""
        dialling = self._dialling
        self._leaveTarget()
        self._ended(self._error or error)
        if dialling is not None:
            dialling.cancel()

    def limitPassed(self, name: str, action: str) -> None:
        """What that means comes with `connectionClosed`."""

    def tell(self, where: str, method: Callable[..., object], *args: object) -> bool:
        """
        Call a hook's method. When it raises, that is logged, and the session ended on both sides: neither shall take
        what it was sent for all there was.

        :returns: False when it has raised.
        """
        try:
            method(*args)
        except Exception as error:
            self.raised(where, error)
            self.abort(error)
            return False
        return True

    def raised(self, where: str, error: Exception) -> None:
        """A hook has raised."""
        self._log.failure("{where} raised", failure=Failure(error), where=where)

    # -- the end

    def _leaveTarget(self) -> Target | None:
        """The target that was dialled does not serve this client, and says nothing of it in any count."""
        target, self.target = self.target, None
        if target is not None:
            self._plan.pool.left(target, self)
        return target

    def _oneGone(self) -> None:
        """The client or the target is gone; perhaps the other one, too."""
        if self._over:
            return
        client, server = self._client, self._server
        assert server is not None
        clientIsGone = client.state is State.CLOSED
        left = server if clientIsGone else client
        limits = client.limits
        rests = [seconds for seconds in (limits.halfOpenTimeout, limits.idleTimeout) if seconds is not None]
        if rests:
            rest = min(rests)
            left.setRestClock("halfOpenTimeout", rest, partial(self._abandon, left, "halfOpenTimeout", rest))
        if clientIsGone and limits.lifetime is not None:
            until = max(0.0, self._began + limits.lifetime - client.reactor.seconds())
            self._lingering = client.reactor.callLater(until, self._abandon, left, "lifetime", limits.lifetime)

    def _abandon(self, left: SocketProtocol, name: str, seconds: float) -> None:
        """Whoever is left does not take what was sent to it."""
        door = self._client.door
        assert door is not None, "clients come by a factory"
        door.limitPassed(name)
        left.abort(
            TimedOutError(
                f"the connection with {left.describePeer()} has not taken what was sent to it, and the other side is "
                f"gone: {seconds:g} s ({name}); it was aborted"
            )
        )

    def _ended(self, error: Exception | None) -> None:
        self._over = True
        lingering, self._lingering = self._lingering, None
        if lingering is not None and lingering.active():
            lingering.cancel()
        target = self.target
        if target is not None:
            self._plan.pool.left(target, self)
            target.counters.add("bytesTo", self.bytesIn)
            target.counters.add("bytesFrom", self.bytesOut)
        ended = Ended(
            client=self.client,
            target=None if target is None else target.name,
            bytesIn=self.bytesIn,
            bytesOut=self.bytesOut,
            seconds=self._client.reactor.seconds() - self._began,
            error=error,
        )
        if self.hook is not None:
            self.tell("closed", self.hook.closed, self, ended)
        self._plan.over(self, ended)
        # What a hook keeps of a session keeps no connection.
        self._introduction = None


class _Joined(Introduction):
    """Tells *oneGone* whenever one of the two is gone, after everybody else."""

    def __init__(
        self,
        client: SocketProtocol,
        server: SocketProtocol,
        done: Callable[[Exception | None], object],
        oneGone: Callable[[], object],
        **options: Any,
    ) -> None:
        self._oneGone = oneGone
        super().__init__(client, server, done, **options)

    def lost(self, error: Exception | None) -> None:
        """As `Introduction.lost`."""
        super().lost(error)
        self._oneGone()


def _discard(data: bytes) -> None:
    """Nobody reads what a client that was refused still sends."""
