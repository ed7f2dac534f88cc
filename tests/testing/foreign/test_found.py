"""What code that nobody here wrote has found in the network in memory: each fault's smallest scene."""

from __future__ import annotations

from collections import Counter

from pairs import Side
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import ClientFactory, Factory
from twisted.internet.task import deferLater

from twisted_net.sansio.faults import Bandwidth, Latency
from twisted_net.testing.network import MemoryNetwork


def test_keepAliveFindsOutAboutAPeerThatHasForgotten() -> None:
    """Only a peer that did not answer was found out about, and not one that answers with RST."""
    with MemoryNetwork() as network:
        client, server = network.host("client"), network.host("server")

        async def scenario() -> None:
            there = Side()
            port = await TCP4ServerEndpoint(server.reactor, 80).listen(Factory.forProtocol(lambda: there))
            here = await connectProtocol(TCP4ClientEndpoint(client.reactor, "server", 80), Side())
            await there.happened("made")
            there.transport.setTcpKeepAlive(1)
            link = network.link(client, server)
            link.cut()
            here.transport.abortConnection()
            await deferLater(client.reactor, 1)
            link.heal()
            await there.happened("lost")
            assert network.now == 7201
            await port.stopListening()

        network.run(scenario)


def test_aWindowIsNotFilledUpByTheCrumb() -> None:
    """A megabyte over a narrow line came in thousands of segments, each smaller than the one before."""
    with MemoryNetwork(5) as network:
        client, server = network.host("client"), network.host("server")
        network.link(client, server).setFaults(Latency(0.02), Bandwidth(1_000_000))

        async def scenario() -> None:
            there = Side()
            port = await TCP4ServerEndpoint(server.reactor, 80).listen(Factory.forProtocol(lambda: there))
            here = await connectProtocol(TCP4ClientEndpoint(client.reactor, "server", 80), Side())
            here.transport.write(bytes(1_000_000))
            here.transport.loseConnection()
            await there.until(lambda: len(there.received) == 1_000_000)
            there.transport.loseConnection()
            await here.happened("lost")
            await port.stopListening()

        network.run(scenario)
        assert Counter(event.what for event in network.trace.events)["read"] < 200


def test_oneResetIsOneEvent() -> None:
    """Who was never accepted was reset twice, in the trace."""
    with MemoryNetwork() as network:
        client, server = network.host("client"), network.host("server")

        async def scenario() -> None:
            port = await TCP4ServerEndpoint(server.reactor, 80).listen(Factory.forProtocol(Side))
            port.pauseProducing()
            here = await connectProtocol(TCP4ClientEndpoint(client.reactor, "server", 80), Side())
            await port.stopListening()
            await here.happened("lost")

        network.run(scenario)
        assert Counter(event.what for event in network.trace.events)["reset"] == 1


def test_whoComesWhenDescriptorsHaveRunOutIsTurnedAway() -> None:
    """The spare descriptor, with which Twisted's ports do so, was never opened: they tried again, for ever."""
    with MemoryNetwork() as network:
        client, server = network.host("client"), network.host("server")

        async def scenario() -> None:
            there = Side()
            port = await TCP4ServerEndpoint(server.reactor, 80).listen(Factory.forProtocol(lambda: there))
            endpoint = TCP4ClientEndpoint(client.reactor, "server", 80)
            left, server.descriptorLimit = server.descriptorLimit, server.descriptorLimit - server.descriptorsLeft()
            turnedAway = await connectProtocol(endpoint, Side())
            await turnedAway.happened("lost")
            server.descriptorLimit = left
            welcome = await connectProtocol(endpoint, Side())
            welcome.transport.write(b"hello")
            await there.until(lambda: there.received == b"hello")
            welcome.transport.loseConnection()
            there.transport.loseConnection()
            await port.stopListening()

        network.run(scenario)


def test_aServerAcceptsWhenItsClientHasAnswered() -> None:
    """It accepted as soon as SYN had come, and so met clients that had heard nothing, and never would."""
    with MemoryNetwork() as network:
        client, server = network.host("client"), network.host("server")
        network.link(client, server).setFaults(Latency(1.0))

        async def scenario() -> None:
            there, here = Side(), Side()
            port = await TCP4ServerEndpoint(server.reactor, 80).listen(Factory.forProtocol(lambda: there))
            connecting = connectProtocol(TCP4ClientEndpoint(client.reactor, "server", 80), here)
            await there.happened("made")
            assert network.now == 3
            await connecting
            late = client.reactor.connectTCP("server", 80, ClientFactory())
            await deferLater(client.reactor, 1.5)
            late.disconnect()
            await deferLater(client.reactor, 5)
            assert len(server.sockets()) == 2
            for side in (here, there):
                side.transport.loseConnection()
            await port.stopListening()

        network.run(scenario)
        assert [event.what for event in network.trace.events].count("accept") == 1


def test_aListenerThatIsClosedInMidHandshake() -> None:
    """Who has been answered, and will not be accepted, is reset."""
    with MemoryNetwork() as network:
        client, server = network.host("client"), network.host("server")
        network.link(client, server).setFaults(Latency(1.0))

        async def scenario() -> None:
            here = Side()
            port = await TCP4ServerEndpoint(server.reactor, 80).listen(Factory.forProtocol(Side))
            connecting = connectProtocol(TCP4ClientEndpoint(client.reactor, "server", 80), here)
            await deferLater(client.reactor, 1.5)
            await port.stopListening()
            await connecting
            await here.happened("lost")
            assert network.now == 4

        network.run(scenario)
