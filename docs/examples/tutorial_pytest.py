"""The tests of the server that adds up, for pytest: ``pytest tutorial_pytest.py``."""

from __future__ import annotations

from typing import Any

import pytest
from tutorial_protocol import IDLE, Total

from twisted_net.testing.explore import explore, replay
from twisted_net.testing.network import MemoryNetwork
from twisted_net.testing.scene import Scene


@pytest.mark.network("memory", "loopback")
async def test_theTotalComesAfterTheEnd(netServer: Any) -> None:
    served = await netServer(Total)
    client = await served.connects()
    client.sends(b"1\n2\n")
    client.sends(b"39\n")
    client.ends()
    await client.hears(b"42\n")
    await client.hears("end")


@pytest.mark.network("memory", "loopback")
async def test_whatIsNoNumberEndsTheConnection(netServer: Any) -> None:
    served = await netServer(Total)
    client = await served.connects()
    client.sends(b"four\n")
    assert await client.hearsAll() == b"no number: four\n"


async def test_whoSaysNothingIsLetGo(memoryNetwork: MemoryNetwork, netServer: Any) -> None:
    served = await netServer(Total)
    client = await served.connects()
    client.sends(b"1\n")
    await client.hearsNothing(IDLE - 1)
    client.sends(b"1\n")  # that was in time
    await client.hearsNothing(IDLE - 1)
    await client.hears("end")
    assert memoryNetwork.now < 2 * IDLE


async def test_aShortPartitionLosesNothing(memoryNetwork: MemoryNetwork, netServer: Any) -> None:
    served = await netServer(Total)
    client = await served.connects()
    client.sends(b"40\n")
    memoryNetwork.partition(["client"], ["server"])
    client.sends(b"2\n")
    client.ends()
    await client.hearsNothing(600)
    memoryNetwork.heal()
    await client.hears(b"42\n")


async def test_aLongPartitionLeavesNothingBehind(memoryNetwork: MemoryNetwork, netServer: Any) -> None:
    served = await netServer(Total)
    client = await served.connects()
    client.sends(b"1\n")
    await memoryNetwork.sleep(1)
    memoryNetwork.partition(["client"], ["server"])
    client.sends(b"2\n")
    await memoryNetwork.sleep(IDLE)
    await client.hears("reset")
    assert [line for line in memoryNetwork.leaks() if "connection" in line] == []


async def addsUp(network: MemoryNetwork) -> None:
    scene = Scene(network)
    served = await scene.serve(Total)
    client = await served.connects()
    client.sends(b"12\n30\n")
    client.ends()
    await client.hears(b"42\n")
    scene.ends()


def test_itAddsUpHoweverTheBytesCome() -> None:
    tried = explore(addsUp, seeds=range(200))
    assert tried.steps > 200


def test_aNumberMayComeInPieces() -> None:
    replay(addsUp, "seed=3, cut client:49152>server:49152#0=1/6")
