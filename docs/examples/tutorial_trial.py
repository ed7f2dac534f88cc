"""The tests of the server that adds up, for trial: ``python -m twisted.trial tutorial_trial``."""

from __future__ import annotations

from typing import Any

from tutorial_protocol import IDLE, Total
from twisted.trial.unittest import SynchronousTestCase, TestCase

from twisted_net.testing.explore import explore, replay
from twisted_net.testing.network import MemoryNetwork
from twisted_net.testing.scene import Scene
from twisted_net.testing.trial import NetworkTestCase


class TotalTests(NetworkTestCase, TestCase):
    """What holds on every network."""

    def test_theTotalComesAfterTheEnd(self) -> Any:
        async def body() -> None:
            served = await self.serve(Total)
            client = await served.connects()
            client.sends(b"1\n2\n")
            client.sends(b"39\n")
            client.ends()
            await client.hears(b"42\n")
            await client.hears("end")

        return self.play(body)

    def test_whatIsNoNumberEndsTheConnection(self) -> Any:
        async def body() -> None:
            served = await self.serve(Total)
            client = await served.connects()
            client.sends(b"four\n")
            assert await client.hearsAll() == b"no number: four\n"

        return self.play(body)


class LoopbackTotalTests(TotalTests):
    """The same on real sockets."""

    ground = "loopback"


class TimeTests(NetworkTestCase, SynchronousTestCase):
    """What takes half an hour, or a network that breaks."""

    def test_whoSaysNothingIsLetGo(self) -> None:
        async def body() -> None:
            served = await self.serve(Total)
            client = await served.connects()
            client.sends(b"1\n")
            await client.hearsNothing(IDLE - 1)
            client.sends(b"1\n")  # that was in time
            await client.hearsNothing(IDLE - 1)
            await client.hears("end")
            assert self.network.now < 2 * IDLE

        self.play(body)

    def test_aShortPartitionLosesNothing(self) -> None:
        async def body() -> None:
            served = await self.serve(Total)
            client = await served.connects()
            client.sends(b"40\n")
            self.network.partition(["client"], ["server"])
            client.sends(b"2\n")
            client.ends()
            await client.hearsNothing(600)
            self.network.heal()
            await client.hears(b"42\n")

        self.play(body)

    def test_aLongPartitionLeavesNothingBehind(self) -> None:
        async def body() -> None:
            served = await self.serve(Total)
            client = await served.connects()
            client.sends(b"1\n")
            await self.network.sleep(1)
            self.network.partition(["client"], ["server"])
            client.sends(b"2\n")
            await self.network.sleep(IDLE)
            await client.hears("reset")
            assert [line for line in self.network.leaks() if "connection" in line] == []

        self.play(body)


class ExploreTests(SynchronousTestCase):
    """What may come otherwise each time."""

    def test_itAddsUpHoweverTheBytesCome(self) -> None:
        tried = explore(addsUp, seeds=range(200))
        assert tried.steps > 200

    def test_aNumberMayComeInPieces(self) -> None:
        replay(addsUp, "seed=3, cut client:49152>server:49152#0=1/6")


async def addsUp(network: MemoryNetwork) -> None:
    scene = Scene(network)
    served = await scene.serve(Total)
    client = await served.connects()
    client.sends(b"12\n30\n")
    client.ends()
    await client.hears(b"42\n")
    scene.ends()
