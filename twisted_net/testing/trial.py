"""
A mixin for trial's test cases: a network for each test, which must be left as it was found.

::

    class EchoTests(NetworkTestCase, SynchronousTestCase):
        def test_echo(self):
            async def body():
                served = await self.serve(Echo)
                client = await served.connects()
                client.sends(b"hello")
                await client.hears(b"hello")

            return self.play(body)

With ``ground = "loopback"`` the same bodies run on real sockets; that needs ``TestCase``, since the reactor has to run.

Theory
======
A test ends in its clean-up, which trial runs whatever has happened. There everything that `pair` and `serve` have begun
is ended, and what else is open then is a leak. The leaks of a body that has failed say nothing more, and are not told.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, get_args

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from twisted_net.errors import OptionError
from twisted_net.testing.loopback import LoopbackNetwork
from twisted_net.testing.network import MemoryNetwork
from twisted_net.testing.peers import Peer
from twisted_net.testing.runaway import LeakError
from twisted_net.testing.scene import Scene, Served, Transport

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase as _Case
else:
    _Case = object

Ground = Literal["memory", "loopback"]


class NetworkTestCase(_Case):
    """Mixed into ``twisted.trial.unittest.TestCase`` or ``SynchronousTestCase``, before it.

    :ivar network: the network of the test that runs: a :class:`~twisted_net.testing.network.MemoryNetwork` or a
        :class:`~twisted_net.testing.loopback.LoopbackNetwork`. It is made in ``setUp``.
    """

    #: Where the tests run: ``"memory"`` or ``"loopback"``.
    ground: Ground = "memory"
    #: What `pair` and `serve` use: ``"tcp"`` or ``"unix"``.
    transport: Transport = "tcp"
    #: What is left to chance is decided by it; None: nothing is. Means nothing on the loopback interface.
    seed: int | None = None

    network: Any

    def setUp(self) -> None:
        super().setUp()
        self.network = self._makeNetwork()
        self._scene = Scene(self.network, self.transport)
        self._bodies: list[Deferred[Any]] = []
        self._broken = False
        self.addCleanup(self._end)

    def _makeNetwork(self) -> MemoryNetwork | LoopbackNetwork:
        if self.ground not in get_args(Ground):
            raise OptionError(f"ground is {self.ground!r}; it must be one of {', '.join(map(repr, get_args(Ground)))}")
        if self.ground == "memory":
            return MemoryNetwork(self.seed)
        if isinstance(self, TestCase):
            return LoopbackNetwork()
        raise OptionError(
            f"ground is {self.ground!r} in a SynchronousTestCase; derive from twisted.trial.unittest.TestCase, "
            'or use ground = "memory"'
        )

    def play(self, body: Callable[[], Coroutine[Any, Any, Any]], *, timeout: float | None = None) -> Any:
        """
        Run *body* on the network.

        To be returned by the test (or awaited, in an ``async def`` one): on the loopback interface it is a Deferred. In
        memory it has been run, and its failure is raised.

        :param timeout: seconds of the network's time that it may take.
        """
        given = {} if timeout is None else {"timeout": timeout}
        if not self.network.inMemory:
            played = self.network.begin(body, **given).addErrback(self._failed)
            self._bodies.append(played)
            return played
        try:
            self.network.run(body, **given)
        except Exception as error:
            self._broken = True
            error.add_note(self.network.story())
            raise
        return None

    def _failed(self, failure: Failure) -> Failure:
        self._broken = True
        return failure

    def _end(self) -> Deferred[None] | None:
        if not self.network.inMemory:
            return Deferred.fromCoroutine(self._endOnLoopback())
        self.network.run(self._scene.ends)
        if self._broken:
            self.network.shut()
        else:
            self.network.close()
        return None

    async def _endOnLoopback(self) -> None:
        unfinished = [body for body in self._bodies if not body.called]
        for body in unfinished:
            body.addErrback(lambda cancelled: None)
            body.cancel()
        self._scene.ends()
        try:
            await self.network.ended()
        except LeakError:
            if not self._broken:
                raise
        if unfinished:
            raise RuntimeError("the test has ended before what it plays: return what play() gives, or await it")

    async def pair(self) -> tuple[Peer, Peer]:
        """Client and server of a connection that stands."""
        return await self._scene.pair()

    async def serve(self, what: Any) -> Served:
        """Serve a protocol class, a factory, or a function of a socket: see `twisted_net.testing.scene.Scene.serve`."""
        return await self._scene.serve(what)
