"""Contracts of what users may implement or hand over.

Only the seams are here: what the engine asks of the object that stands behind a connection.  What the engine *offers*
is documented on its classes.
"""

from __future__ import annotations

from typing import Any

from twisted.python.failure import Failure
from zope.interface import Attribute, Interface


class IConnectionUser(Interface):
    """What stands behind a :class:`~twisted_net.wire.protocol.SocketProtocol`: a face, or anything of yours.

    The bytes themselves do not come through here: the user assigns a callable to ``protocol.receive`` and assigns
    another one whenever somebody else wants them.  While it is ``None`` the bytes are kept (up to
    ``protocol.holdLimit``, then the peer is made to wait).

    A method that raises has its failure logged, and that connection is dropped; other connections go on.
    """

    def connectionOpened(protocol: Any) -> None:
        """The connection stands: *protocol* is its ``SocketProtocol``, with a ``transport``.  Called once, before any
        byte."""

    def readEnded() -> None:
        """The peer will send nothing more (FIN), and everything that it sent was delivered.  At most once, before
        `connectionClosed`."""

    def writeEnded() -> None:
        """Our FIN is with the kernel, after everything that was written.  At most once, before `connectionClosed`."""

    def drained() -> None:
        """A ``write`` had returned False, and now nothing is unsent."""

    def connectionClosed(error: Exception | None, reason: Failure) -> None:
        """The connection is gone; called exactly once, after everything else.

        :param error: what went wrong (a NetError, or whatever ``drop(error)`` was given), or None when both sides ended
            in good order (or we dropped it ourselves).
        :param reason: Twisted's own account of it.
        """

    def limitPassed(name: str, action: str) -> None:
        """A limit was met: its name in :class:`~twisted_net.wire.limits.Limits`, and what was done (``"paused"`` or
        ``"closed"``)."""

    def raised(where: str, error: Exception) -> None:
        """A callable of the user raised *error*; *where* names it.  To be logged; the engine then drops the
        connection."""


class IExactTransport(Interface):
    """The transport that owns a connection's descriptor, with what `ITransport` leaves unsaid: what became of the
    bytes, how to end without RST, and why the connection was lost.

    Transports of the reactor `twisted_net.uvreactor` offer it, and so may any other.  That reactor knows nothing of
    this package, so nobody declares the interface: a transport that has ``dropConnection`` is taken to have all of it.
    For stock transports :func:`twisted_net.wire.layers.exact` makes a stand-in.
    """

    disconnecting = Attribute("Whether ``loseConnection`` was called: it closes when everything is sent.")
    ending = Attribute("Whether that, or ``loseWriteConnection``, was called.")
    lossErrno = Attribute("The errno of what failed when the connection was lost; None: nothing did, or it is unknown.")

    wasReset = Attribute("Whether `sendNow` has met the peer's RST, so that what a reader meets then is no FIN.")

    def sendNow(data: bytes) -> int:
        """Send *data*, at once if nothing waits before it.

        :return: how many of its bytes the kernel has not taken yet; they are sent when there is room.
        """

    def tellDrained(producer: Any) -> None:
        """Have ``producer.resumeProducing`` called whenever the kernel has taken the last byte, TLS or not; and once
        before this returns.  While it is registered, closing waits for `tellDrainedNoMore`."""

    def tellDrainedNoMore() -> None:
        """Take that back."""

    def nudge() -> None:
        """Have the drain told once more, also when nothing waits."""

    def silence() -> None:
        """Read and write nothing from now on, and tell nobody."""

    def finishWriting() -> None:
        """Send FIN; for a transport with nothing unsent.  The protocol is not told."""

    def dropConnection(reason: Failure) -> None:
        """Close now and without RST, what is unsent dropped; ``connectionLost`` is called before this returns.
        Harmless when the connection is gone."""

    def relinquish() -> None:
        """Give the descriptor back now, or as soon as can be, and tell nobody; `dropConnection` has to follow."""


class ITurningReactor(Interface):
    """A reactor that can be asked for the end of its turn.

    The reactor of `twisted_net.uvreactor` offers it, and so may any other.  It knows nothing of this package: a reactor
    that has ``soon`` is taken to offer it.
    """

    def soon(call: Any) -> Any:
        """Have *call* called once all descriptors that are ready now were served, before new ones are waited for."""


class ISocketMaker(Interface):
    """A reactor whose sockets are not the operating system's: the test kit's reactors in memory.

    What opens sockets by itself asks for this first; a reactor that does not provide it uses the system's.
    """

    def makeSocket(family: int, kind: int) -> Any:
        """A socket with the methods of ``socket.socket``, non-blocking, that provides `ISimulatedSocket`."""

    def serveSocket(skt: Any, factory: Any) -> Any:
        """Take over *skt*, which is bound and listens, and serve it with *factory*: an ``IListeningPort``."""


class ISimulatedSocket(Interface):
    """A socket that is no descriptor of this process: poll(2), dup(2) and getrlimit(2) know nothing of it."""

    def poll() -> int:
        """What poll(2) would report: a mask of ``POLLIN``, ``POLLOUT``, ``POLLERR`` and ``POLLHUP``."""

    def descriptorsLeft() -> int:
        """How many more descriptors its program can open."""
