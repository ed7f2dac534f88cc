"""Listener: who comes is accepted, or served by a coroutine of his own; and the end of all that."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from doors import patient
from drivers import Driver, Running, awaited, cancelled, everyDriver, onAsyncio, passesOnAsyncio, theReactor
from logs import LoggedErrors, text
from talks import Canceller, connecting, listening
from turning import turns, until
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IStreamServerEndpoint
from zope.interface import implementer

from twisted_net import streams
from twisted_net.address import TcpTarget
from twisted_net.errors import AddressError, BusyError, ClosedError, NetError, OptionError, TimedOutError
from twisted_net.sansio.faults import Latency
from twisted_net.streams import Limits, Listener, Stream
from twisted_net.streams.connection import Connection
from twisted_net.streams.listener import ACCEPT
from twisted_net.testing.network import MemoryNetwork
from twisted_net.wire.listen import bind
from twisted_net.wire.waiting import loopOf, outcome

everyKind = pytest.mark.parametrize("kind", ["tcp", "unix"])


# Listening


@everyKind
@awaited
async def test_accept(kind: str) -> None:
    async with listening(kind=kind) as listener:
        assert repr(listener) == f"<Listener {listener.address}>"
        assert listener.getSockName() == listener.address
        assert not listener.readable
        for _ in range(3):
            client = await connecting(listener)
            server = await listener.accept()
            await client.write(b"hello")
            assert await server.readExactly(5) == b"hello"
            await server.close()
            await client.close()
        await listener.close()
        await listener.close()
        assert repr(listener) == "<Listener closed>"
        assert listener.address
        assert listener.getSockName() is None
        with pytest.raises(ClosedError, match="accept: the listener is closed"):
            await listener.accept()
        with pytest.raises(ClosedError):
            listener.setTimeout(1)
        with pytest.raises(ClosedError):
            listener.setOption("keepalive")
        with pytest.raises(ClosedError):
            listener.setStats(1)


@awaited
async def test_whereTo(tmp_path: Any) -> None:
    reactor = theReactor()
    for where in ("127.0.0.1:0", TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"), "tcp:0:interface=127.0.0.1"):
        async with await streams.listen(where) as listener:
            assert listener.address.address == "127.0.0.1"
    with socket.socket() as skt:
        skt.bind(("127.0.0.1", 0))
        skt.listen()
        async with await streams.listen(os.dup(skt.fileno())) as listener:
            client = await connecting(listener)
            server = await listener.accept()
            await server.close()
            await client.close()
    bound = await outcome(reactor, bind(reactor, TcpTarget("127.0.0.1", 0)))
    listener = Listener(reactor)
    await listener.serveSocket(bound, backlog=5)
    assert listener.address.address == "127.0.0.1"
    await listener.close()
    await Listener(reactor).close()
    with pytest.raises(AddressError, match=r"is UDP; streams are TCP or UNIX"):
        await streams.listen("udp:127.0.0.1:0")
    with pytest.raises(NetError) as nowhere:
        await streams.listen(f"unix:{tmp_path}/no/such/folder")
    assert nowhere.value.code == "ENOENT"


@awaited
async def test_limits() -> None:
    """Who is not admitted is nobody's stream."""
    async with listening(limits=Limits(connections=1, mode="refuse")) as listener:
        first = await connecting(listener)
        server = await listener.accept()
        second = await connecting(listener)
        accepting = Running("twisted", listener.accept())
        await until_(lambda: listener.factory.counters["refused"] == 1)
        assert not accepting.done.called
        accepting.cancel()
        accepting.done.addErrback(lambda failure: None)
        for stream in (first, second, server):
            stream.abort()
            await stream.close()


def until_(condition: Callable[[], Any]) -> Any:
    """As `until`, for every driver."""
    return outcome(theReactor(), Deferred.fromCoroutine(until(condition)))


def turns_(count: int) -> Any:
    return outcome(theReactor(), Deferred.fromCoroutine(turns(count)))


@everyKind
@awaited
async def test_options(kind: str) -> None:
    async with listening(kind=kind) as listener:
        plain = await connecting(listener), await listener.accept()
        listener.setOption("keepalive")
        listener.setOption("linger", {"on": True, "timeout": 0})
        with pytest.raises(OptionError):
            listener.setOption("colour")
        client = await connecting(listener)
        server = await listener.accept()
        server.setOption("keepalive", False)
        other = await connecting(listener), await listener.accept()
        if kind == "tcp":
            found = [
                stream.protocol.transport.socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                for stream in (plain[1], server, other[1])
            ]
            assert found == [0, 0, 1], "one stream's options are not the next one's"
        for stream in (client, server, *plain, *other):
            stream.abort()
            await stream.close()


@awaited
async def test_stats() -> None:
    async with listening() as listener:
        assert listener.getStats()[:2] == (0, 0)
        listener.setStats(received=5)
        listener.setStats(sent=6, age=100.0)
        received, sent, age = listener.getStats()
        assert (received, sent) == (5, 6)
        assert 100 <= age < 110


# Accepting


def test_nobodyIsAcceptedAhead() -> None:
    """While one waits in the queue accepting rests, and clients wait in the kernel's."""
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with listening(network) as listener:
                clients = [await connecting(listener, network) for _ in range(5)]
                await network.sleep(1)
                assert listener.factory.acceptance.owners == (ACCEPT,)
                assert listener.readable
                assert len(listener._queue) == 1
                for client in clients:
                    server = await listener.accept()
                    await server.write(b"welcome")
                    assert await client.readExactly(7) == b"welcome"
                    await server.close()
                    await client.close()
                assert not listener.factory.acceptance.paused
                assert not listener.readable

        network.run(scenario)


def test_oneAtATime() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with listening(network) as listener:
                accepting = Running("twisted", listener.accept())
                with pytest.raises(BusyError, match="somebody else is accepting"):
                    await listener.accept()
                client = await connecting(listener, network)
                server = await accepting.done
                await server.close()
                await client.close()

        network.run(scenario)


def test_times() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with listening(network) as listener:
                for mode, seconds in (("b", 2), ("t", 3)):
                    began = network.now
                    listener.setTimeout(seconds, mode)  # type: ignore[arg-type]
                    with pytest.raises(TimedOutError, match=f"accept: nobody came within {seconds} s"):
                        await listener.accept()
                    assert network.now - began == seconds
                    listener.setTimeout(None, mode)  # type: ignore[arg-type]
                listener.setTimeout(2)
                accepting = Running("twisted", listener.accept())
                client = await connecting(listener, network)
                server = await accepting.done
                await server.close()
                await client.close()

        network.run(scenario)


def test_cancelledAtEveryWait() -> None:
    """Accepting is cancelled, and repeated: nobody who came is lost."""
    for later in (1, 2):
        at = 0
        while True:
            with MemoryNetwork() as network:
                network.link("client", "server").setFaults(Latency(0.01))
                canceller = Canceller(network.reactor, at, later)

                async def scenario(network: MemoryNetwork = network, canceller: Canceller = canceller) -> None:
                    async with listening(network) as listener:

                        async def client(number: int) -> None:
                            async with await connecting(listener, network) as stream:
                                await stream.write(b"%d" % number)
                                await stream.readAll()

                        clients = [Running("twisted", client(number)) for number in range(3)]
                        seen = b""
                        for _ in clients:
                            async with await canceller(listener.accept) as stream:
                                seen += await stream.readExactly(1)
                        for one in clients:
                            await one.done
                        assert sorted(seen) == sorted(b"012")

                network.run(scenario)
                if canceller.waits <= at:
                    break
            at += 1
        assert at > 0


@everyKind
@awaited
async def test_iterate(kind: str) -> None:
    served = 0
    async with listening(kind=kind) as listener:
        clients = [await connecting(listener) for _ in range(3)]
        async for stream in listener:
            served += 1
            await stream.close()
            await clients[served - 1].close()
            if served == 3:
                theReactor().callLater(0, lambda: Running("twisted", listener.close()))
    assert served == 3


@everyKind
@awaited
async def test_closedWithClientsWaiting(kind: str) -> None:
    async with listening(kind=kind) as listener:
        news: list[bool] = []

        def look() -> None:
            news.append(listener.readable)

        listener.watch(look)
        client = await connecting(listener)
        await until_(lambda: listener.readable)
        await listener.close()
        assert news == [True, True]
        listener.unwatch(look)
        with pytest.raises(NetError):  # the end of a UNIX socket has no reset, but is no line either
            await client.readLine()
        await client.close()


@everyDriver
@patient
async def test_closingEndsAccept(driver: Driver) -> None:
    async with listening() as listener:
        accepting = Running(driver, listener.accept())
        await turns(2)
        await listener.close()
        with pytest.raises(ClosedError):
            await accepting.done


@onAsyncio
@patient
async def test_cancelledAfterSomebodyHadCome() -> None:
    """asyncio cancels who accepts between the arrival and his resumption: whoever comes next to accept has him."""
    async with listening() as listener:
        accepting = Running("asyncio", listener.accept())
        await turns(2)
        connection = Running("twisted", connecting(listener))
        await until(lambda: listener.readable)
        accepting.cancel()
        await cancelled(accepting, "asyncio")
        client = await connection.done
        server = await listener.accept()
        await server.close()
        await client.close()


# Beginning that is cancelled


@implementer(IStreamServerEndpoint)
class Slow:
    """An endpoint whose port comes when the test says so."""

    def __init__(self, stubborn: bool) -> None:
        self.answer: Deferred[Any] = Deferred(self._cancelled if stubborn else None)
        self.factory: Any = None

    def _cancelled(self, deferred: Deferred[Any]) -> None:
        self.listens()

    def listen(self, factory: Any) -> Deferred[Any]:
        self.factory = factory
        return self.answer

    def listens(self) -> None:
        self.answer.callback(theReactor().listenTCP(0, self.factory, interface="127.0.0.1"))


@everyDriver
@pytest.mark.parametrize("stubborn", [False, True])
@patient
async def test_listenIsCancelled(driver: Driver, stubborn: bool) -> None:
    running = Running(driver, streams.listen(Slow(stubborn)))
    await turns(2)
    running.cancel()
    await cancelled(running, driver)


@onAsyncio
@patient
async def test_listenIsCancelledWhenItListens() -> None:
    endpoint = Slow(False)
    running = Running("asyncio", streams.listen(endpoint))
    await turns(2)
    endpoint.listens()
    running.cancel()
    await cancelled(running, "asyncio")


# Serving


@asynccontextmanager
async def serving(
    driver: Driver, handler: Any, kind: str = "tcp", grace: float | None = None, **options: Any
) -> AsyncIterator[Listener]:
    async with listening(kind=kind) as listener:
        running = Running(driver, listener.serve(handler, **options))
        await turns(2)
        try:
            yield listener
        finally:
            await listener.close(grace)
            await running.done
            assert listener.handlers == 0


async def echo(stream: Stream) -> None:
    async for chunk in stream:
        await stream.write(chunk)


@everyDriver
@everyKind
@patient
async def test_serve(driver: Driver, kind: str) -> None:
    async with serving(driver, echo, kind) as listener:
        clients = [await connecting(listener) for _ in range(3)]
        for number, client in enumerate(clients):
            await client.write(b"%d" % number)
            assert await client.readExactly(1) == b"%d" % number
        assert listener.handlers == 3
        with pytest.raises(BusyError, match="being served already"):
            await listener.serve(echo)
        for client in clients:
            await client.end()
            assert await client.readAll() == b""
            await client.close()
        await until(lambda: listener.handlers == 0)


@everyDriver
@patient
async def test_handlersAreRunByWhoRunsServe(driver: Driver) -> None:
    seen: list[bool] = []

    async def handler(stream: Stream) -> None:
        if driver == "asyncio":
            await asyncio.sleep(0)
            seen.append(asyncio.current_task() is not None)
        else:
            await turns(1)
            seen.append(loopOf(theReactor()) is None or asyncio.current_task() is None)

    async with serving(driver, handler) as listener, await connecting(listener) as client:
        assert await client.read() == b""
    assert seen == [True]


@everyDriver
@patient
async def test_aHandlerThatRaises(driver: Driver, loggedErrors: LoggedErrors) -> None:
    """Its failure is logged with the peer, and ends its own stream alone."""

    async def handler(stream: Stream) -> None:
        if await stream.readLine() == b"raise":
            raise ZeroDivisionError
        await stream.write(b"fine")

    async with serving(driver, handler) as listener:
        other = await connecting(listener)
        client = await connecting(listener)
        where = client.localAddress
        await client.write(b"raise\n")
        with pytest.raises(NetError):
            await client.readExactly(1)
        await client.close()
        await other.write(b"go on\n")
        assert await other.readAll() == b"fine"
        await other.close()
    (event,) = loggedErrors.flush(ZeroDivisionError)
    assert f"the handler of {where} raised; its stream was aborted" in text(event)


@everyDriver
@patient
async def test_anErrorOfTheConnection(driver: Driver) -> None:
    """A handler that does not catch how its connection ended has no defect; that is told, as a warning."""
    ended: list[BaseException] = []

    async def handler(stream: Stream) -> None:
        try:
            await stream.readAll()
        except BaseException as error:
            ended.append(error)
            raise

    async with serving(driver, handler) as listener:
        client = await connecting(listener)
        await until(lambda: listener.handlers == 1)
        client.abort()
        await until(lambda: listener.handlers == 0)
        await client.close()
    assert isinstance(ended[0], NetError)


@everyDriver
@patient
async def test_aHandlerThatIsCancelledByOthers(driver: Driver, loggedErrors: LoggedErrors) -> None:
    """What it waited for was cancelled, and not the handler: a failure like any other."""

    async def handler(stream: Stream) -> None:
        waited: Deferred[None] = Deferred()
        theReactor().callLater(0, waited.cancel)
        await outcome(theReactor(), waited)

    async with serving(driver, handler) as listener:
        client = await connecting(listener)
        with pytest.raises(NetError):
            await client.readExactly(1)
        await client.close()
    assert len(loggedErrors.flush("CancelledError")) == 1


@everyDriver
@patient
async def test_aHandlerThatGivesItsStreamAway(driver: Driver) -> None:
    kept: list[Any] = []

    async def handler(stream: Stream) -> None:
        kept.append(stream.handOver())

    async with serving(driver, handler) as listener:
        client = await connecting(listener)
        await until(lambda: kept)
        other = Stream(Connection.over(kept[0]))
        await other.write(b"still here")
        assert await client.readExactly(10) == b"still here"
        await other.close()
        await client.close()


@everyDriver
@patient
async def test_aHandlerThatGivesItsStreamAwayAndRaises(driver: Driver, loggedErrors: LoggedErrors) -> None:
    """Whose stream it was not any more is not aborted."""
    kept: list[Any] = []

    async def handler(stream: Stream) -> None:
        kept.append(stream.handOver())
        raise ZeroDivisionError

    async with serving(driver, handler) as listener:
        client = await connecting(listener)
        await until(lambda: kept and not listener.handlers)
        other = Stream(Connection.over(kept[0]))
        await other.write(b"still here")
        assert await client.readExactly(10) == b"still here"
        await other.close()
        await client.close()
    assert len(loggedErrors.flush(ZeroDivisionError)) == 1


@everyDriver
@patient
async def test_maximum(driver: Driver) -> None:
    async with serving(driver, echo, maximum=2) as listener:
        clients = [await connecting(listener) for _ in range(4)]
        for client in clients:
            await client.write(b"x")
        for client in clients[:2]:
            assert await client.readExactly(1) == b"x"
        assert listener.handlers == 2
        for first, later in ((0, 2), (1, 3)):
            await clients[first].close()
            assert await clients[later].readExactly(1) == b"x"
        assert listener.handlers == 2
        for client in clients[2:]:
            await client.close()


@awaited
async def test_maximumIsChecked() -> None:
    async with listening() as listener:
        with pytest.raises(OptionError, match="maximum is 0"):
            await listener.serve(echo, maximum=0)


def test_serveWaitsWhateverAcceptMayTake() -> None:
    """A time of 0 is for who asks, as LuaSocket's: no reason to ask again and again."""
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with listening(network) as listener:
                listener.setTimeout(0)
                serving = Running("twisted", listener.serve(echo))
                await network.sleep(1)
                assert network.host("server").reactor.getDelayedCalls() == []
                async with await connecting(listener, network) as client:
                    await client.write(b"x")
                    assert await client.readExactly(1) == b"x"
                await listener.close()
                await serving.done

        network.run(scenario)


@everyDriver
@patient
async def test_serveIsCancelled(driver: Driver) -> None:
    """Handlers go on; the listener may be served again."""
    async with listening() as listener:
        running = Running(driver, listener.serve(echo, maximum=1))
        await turns(2)
        client = await connecting(listener)
        await client.write(b"x")
        assert await client.readExactly(1) == b"x"
        running.cancel()
        await cancelled(running, driver)
        await client.write(b"y")
        assert await client.readExactly(1) == b"y"
        again = Running(driver, listener.serve(echo))
        other = await connecting(listener)
        await other.write(b"z")
        assert await other.readExactly(1) == b"z"
        await other.close()
        await client.close()
        await listener.close()
        await again.done


@everyDriver
@patient
async def test_serveReturnsAtOnce(driver: Driver) -> None:
    """Closing ends serve also where it waits for room; handlers have the time that they need."""
    async with listening() as listener:
        running = Running(driver, listener.serve(echo, maximum=1))
        await turns(2)
        client = await connecting(listener)
        await client.write(b"x")
        assert await client.readExactly(1) == b"x"
        closing = Running(driver, listener.close())
        await running.done
        assert not closing.done.called
        assert listener.handlers == 1
        await client.write(b"y")
        assert await client.readExactly(1) == b"y"
        await client.close()
        await closing.done


# The end


@everyDriver
@patient
async def test_grace(driver: Driver) -> None:
    """When its time is up, handlers are cancelled, and may clean up; nothing is logged."""
    ends: list[str] = []

    async def handler(stream: Stream) -> None:
        try:
            await stream.readAll()
        except BaseException as error:
            ends.append(type(error).__name__)
            raise

    async with serving(driver, handler, grace=0.01) as listener:
        clients = [await connecting(listener) for _ in range(2)]
        await until(lambda: listener.handlers == 2)
    assert ends == ["CancelledError"] * 2
    for client in clients:
        with pytest.raises(NetError):
            await client.readExactly(1)
        await client.close()


@onAsyncio
@patient
async def test_aTaskThatHasNotBegun() -> None:
    """asyncio cancels a task that has not begun without beginning it: that handler has ended, too."""
    async with listening() as listener:
        running = Running("asyncio", listener.serve(echo))
        await turns(2)
        client = await connecting(listener)
        while not listener.handlers:
            await asyncioTurn()
        listener._cancelAll(None)
        await until(lambda: not listener.handlers)
        await listener.close()
        await running.done
        with pytest.raises(NetError):
            await client.readExactly(1)
        await client.close()


def asyncioTurn() -> Any:
    loop = loopOf(theReactor())
    assert loop is not None
    future = loop.create_future()
    loop.call_soon(future.set_result, None)
    return Deferred.fromFuture(future)


@everyDriver
@patient
async def test_aHandlerThatClosesItsListener(driver: Driver) -> None:
    """It waits for the other handlers, and not for itself."""
    order: list[str] = []
    listeners: list[Listener] = []

    async def handler(stream: Stream) -> None:
        line = await stream.readLine()
        if line == b"quit":
            await listeners[0].close(grace=0.05)
            order.append("closed")
        else:
            order.append("other")

    async with serving(driver, handler) as listener:
        listeners.append(listener)
        other = await connecting(listener)
        client = await connecting(listener)
        await until(lambda: listener.handlers == 2)
        await client.write(b"quit\n")
        await turns(5)
        await other.write(b"bye\n")
        assert await client.readAll() == b""
        await other.close()
        await client.close()
    assert order == ["other", "closed"]


@everyDriver
@patient
async def test_aHandlerThatClosesItsListenerHasNoGrace(driver: Driver) -> None:
    """When the time is up the others are cancelled, and not the one that closes."""
    listeners: list[Listener] = []
    closed: list[bool] = []

    async def handler(stream: Stream) -> None:
        if await stream.readLine() == b"quit":
            await listeners[0].close(grace=0)
            closed.append(True)

    async with serving(driver, handler) as listener:
        listeners.append(listener)
        other = await connecting(listener)
        client = await connecting(listener)
        await until(lambda: listener.handlers == 2)
        await client.write(b"quit\n")
        with pytest.raises(NetError):
            await other.readExactly(1)
        assert await client.readAll() == b""
        await other.close()
        await client.close()
    assert closed == [True]


@everyDriver
@patient
async def test_closeIsCancelled(driver: Driver) -> None:
    async with listening() as listener:
        running = Running(driver, listener.serve(echo))
        await turns(2)
        client = await connecting(listener)
        await until(lambda: listener.handlers == 1)
        closing = [Running(driver, listener.close(grace=1000)) for _ in range(2)]
        await running.done
        await turns(3)
        closing[0].cancel()
        await cancelled(closing[0], driver)
        assert listener.handlers == 1
        await client.close()
        await closing[1].done
        with pytest.raises(OptionError, match="grace is 'x'"):
            await listener.close("x")  # type: ignore[arg-type]


def test_whoHearsOfAnEndCancelsAnother() -> None:
    with MemoryNetwork() as network:

        async def scenario() -> None:
            async with listening(network) as listener:
                serving_ = Running("twisted", listener.serve(echo))
                await network.sleep(1)
                client = await connecting(listener, network)
                await network.sleep(1)
                second: list[Running] = []

                async def first() -> None:
                    await listener.close()
                    second[0].cancel()

                running = Running("twisted", first())
                second.append(Running("twisted", listener.close()))
                await network.sleep(1)
                await client.close()
                await running.done
                await cancelled(second[0], "twisted")
                await serving_.done

        network.run(scenario)


@pytest.mark.skipif(loopOf(theReactor()) is not None, reason="this is that run")
def test_onAsyncio() -> None:
    passesOnAsyncio(__file__)
