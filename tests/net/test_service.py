"""ServerService: a server in Twisted's tree of services."""

from __future__ import annotations

import pytest
from logs import LoggedErrors
from scenes import Journal, Scene, played
from turning import turns, until
from twisted.application.service import IService, MultiService
from zope.interface.verify import verifyObject

from twisted_net.errors import AddressError
from twisted_net.net import Server, ServerService
from twisted_net.testing.clock import VirtualTime


@played()
async def test_itRunsUnderAMultiService(scene: Scene) -> None:
    tree = MultiService()
    server = scene.keep(Server(lambda socket: socket.pipe(socket)))
    service = ServerService(server, scene.place())
    assert verifyObject(IService, service)
    tree.addService(service)
    tree.privilegedStartService()
    assert not server.listening
    await server.whenListening()
    tree.startService()
    assert service.running
    client = scene.client(server)
    heard = Journal(client)
    client.write("hello")
    await heard.happened("data")
    stopped = tree.stopService()
    await turns(10)
    assert not server.listening
    assert client.readyState == "open", "stopping drains: who is there may finish"
    client.end()
    await stopped
    assert heard.hadError == []
    await heard.happened("close")
    assert heard.hadError == [False]


@played()
async def test_withoutAPrivilegedStart(scene: Scene) -> None:
    server = scene.keep(Server())
    service = ServerService(server, scene.place())
    service.startService()
    await server.whenListening()
    await service.stopService()
    service.startService()
    await server.whenListening()
    assert server.listening, "a service may be started again"
    await service.stopService()


@played()
async def test_theGraceIsLimited(scene: Scene) -> None:
    time = VirtualTime(scene.reactor)
    server = scene.keep(Server(reactor=time))
    service = ServerService(server, grace=5, **scene.place())
    service.startService()
    await server.whenListening()
    _, socket = await scene.stranger(server)
    heard = Journal(socket)
    stopped = service.stopService()
    await turns(3)
    time.advance(4.9)
    await turns(3)
    assert heard.events == []
    time.advance(0.2)
    await stopped
    assert heard.codes == ["ECONNABORTED"]
    assert not time.getDelayedCalls()


@played()
async def test_stoppedBeforeItListened(scene: Scene) -> None:
    server = scene.keep(Server())
    service = ServerService(server, scene.place())
    service.startService()
    await service.stopService()
    assert service.error is None
    assert not server.listening


@played()
async def test_aBusyAddressIsKeptAndLogged(scene: Scene, loggedErrors: LoggedErrors) -> None:
    there = await scene.server()
    server = scene.keep(Server())
    service = ServerService(server, scene.where(there))
    for _ in range(2):
        service.startService()
        await until(lambda: service.error is not None)
        assert service.error is not None
        assert service.error.code == "EADDRINUSE"
        assert len(loggedErrors.flush("EADDRINUSE")) == 1
        service.error = None
        await service.stopService()
    heard = Journal(server, "error")
    service.startService()
    await heard.happened("error")
    assert service.error is heard.errors[0]
    assert loggedErrors.flush() == [], "who listens to 'error' has heard it"


@played("tcp")
async def test_aPlaceThatIsNoneIsSaidAtOnce(scene: Scene) -> None:
    service = ServerService(Server(), "udp:127.0.0.1:53")
    for _ in range(2):
        with pytest.raises(AddressError):
            service.privilegedStartService()
