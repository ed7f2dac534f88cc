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
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal

from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import TestCase

from twisted_net.errors import OptionError
from twisted_net.testing.loopback import LoopbackNetwork
from twisted_net.testing.network import MemoryNetwork
from twisted_net.testing.peers import Peer
from twisted_net.testing.scene import Scene, Served, Transport

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase as _Case
else:
    _Case = object


class NetworkTestCase(_Case):
    """Mixed into ``twisted.trial.unittest.TestCase`` or ``SynchronousTestCase``, before it.

    :ivar network: the network of the test that runs.
    """

    #: Where the tests run: ``"memory"`` or ``"loopback"``.
    ground: Literal["memory", "loopback"] = "memory"
    #: What `pair` and `serve` use: ``"tcp"`` or ``"unix"``.
    transport: Transport = "tcp"
    #: What is left to chance is decided by it; None: nothing is.
    seed: int | None = None

    network: Any

    def setUp(self) -> None:
        super().setUp()
        if self.ground == "memory":
            self.network = MemoryNetwork(self.seed)
        elif isinstance(self, TestCase):
            self.network = LoopbackNetwork()
        else:
            raise OptionError(
                f"ground is {self.ground!r} in a SynchronousTestCase; derive from twisted.trial.unittest.TestCase, "
                'or use ground = "memory"'
            )
        self._scene = Scene(self.network, self.transport)

    def play(self, body: Callable[[], Coroutine[Any, Any, Any]], *, timeout: float | None = None) -> Any:
        """
        Run *body* on the network, and then end everything that it began by `pair` and `serve`; what else it leaves open
        fails the test.

        To be returned by the test: in memory it has been run, and its failure is raised; on the loopback interface this
        is a Deferred.

        :param timeout: seconds of the network's time that it may take.
        """
        given = {} if timeout is None else {"timeout": timeout}
        if self.ground == "memory":
            self._inMemory(body, given)
            return None
        return self._onLoopback(body, given)

    def _inMemory(self, body: Callable[[], Any], given: dict[str, float]) -> None:
        with self.network as network:
            network.run(body, **given)
            network.run(self._scene.closes)

    @inlineCallbacks
    def _onLoopback(self, body: Callable[[], Any], given: dict[str, float]) -> Any:
        try:
            yield self.network.begin(body, **given)
        finally:
            yield self.network.begin(self._scene.closes)
            yield self.network.ended()

    async def pair(self) -> tuple[Peer, Peer]:
        """Client and server of a connection that stands."""
        return await self._scene.pair()

    async def serve(self, what: Any) -> Served:
        """Serve a protocol class, a factory, or a function of a socket."""
        return await self._scene.serve(what)
