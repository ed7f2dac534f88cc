"""What a program hears of forwarded connections, and that what it raises ends that one session alone."""

from __future__ import annotations

from typing import Any

import pytest
from between import Stage, between, hears, inCalm, isReset, running
from doors import patient
from logs import LoggedErrors
from weather import inEveryWeather

from twisted_net.errors import AbortedError, NetError
from twisted_net.forward import Direction, Ended, Hook, Session
from twisted_net.sansio.faults import Faults, Latency, LimitData
from twisted_net.testing.network import MemoryNetwork


class Heard(Hook):
    """Keeps what it hears; raises where it is told to."""

    def __init__(self, session: Session, raising: str = "") -> None:
        self.session = session
        self.events: list[str] = []
        self.data_: dict[Direction, bytes] = {"upstream": b"", "downstream": b""}
        self.ended: Ended | None = None
        self._raising = raising

    def connected(self, session: Session) -> None:
        assert session is self.session
        assert session.isConnected
        self._note("connected")

    def data(self, direction: Direction, data: bytes) -> None:
        self.data_[direction] += data
        self._note(direction)

    def closed(self, session: Session, ended: Ended) -> None:
        assert session is self.session
        self.ended = ended
        self._note("closed")

    def _note(self, event: str) -> None:
        self.events.append(event)
        if event == self._raising:
            raise KeyError(event)


class Quiet(Hook):
    """Has nothing to say to data, nor to anything else."""


def hooks(kept: list[Any], kind: Any = Heard, raising: dict[int, str] | None = None) -> Any:
    """Makes hooks, and keeps them."""

    def make(session: Session) -> Hook:
        hook = kind(session, (raising or {}).get(session.number, "")) if kind is Heard else kind()
        kept.append(hook)
        return hook

    return make


def test_seesData() -> None:
    class Late(Hook):
        def __init__(self) -> None:
            self.data = print  # type: ignore[assignment, method-assign]

    assert not Hook().seesData
    assert not Quiet().seesData
    assert Late().seesData
    assert Heard(None).seesData  # type: ignore[arg-type]
    # Somebody who wants nothing is called all the same.
    Hook().connected(None)  # type: ignore[arg-type]
    Hook().data("upstream", b"")
    Hook().closed(None, None)  # type: ignore[arg-type]


@inEveryWeather("client", "middle", "one")
async def test_everything(network: MemoryNetwork) -> None:
    kept: list[Heard] = []
    async with between(network, hook=hooks(kept)) as stage:
        client, server = await stage.meet()
        (hook,) = kept
        assert hook.session is stage.forwarder.sessions[0]
        assert repr(hook.session) == f"<Session 0: {hook.session.client} -> one:80>"
        writing = running(client.write(b"x" * 300_000))
        await server.readExactly(300_000)
        await writing
        await server.write(b"answer")
        await server.end()
        assert await client.readAll() == b"answer"
        await client.end()
        ended = await stage.over()
        assert hook.data_ == {"upstream": b"x" * 300_000, "downstream": b"answer"}
        assert hook.ended is ended
        assert (hook.events[0], hook.events[-1]) == ("connected", "closed")
        assert hook.events.count("connected") == hook.events.count("closed") == 1


@inCalm
async def test_pressureThroughAHook(network: MemoryNetwork) -> None:
    async with between(network, hook=hooks([])) as stage:
        client, server = await stage.meet()
        writing = running(client.write(bytes(2_000_000)))
        await stage.sleep(10)
        assert not writing.called
        assert stage.forwarder.sessions[0].bytesIn < 400_000
        assert await server.readExactly(2_000_000) == bytes(2_000_000)
        await writing


@inCalm
async def test_whoWasNeverServed(network: MemoryNetwork) -> None:
    kept: list[Heard] = []
    async with between(network, dead=["one"], hook=hooks(kept)) as stage:
        await isReset(await stage.connect())
        ended = await stage.over()
        assert kept[0].events == ["closed"]
        assert kept[0].ended is ended
        assert ended.target is None


@inCalm
async def test_whatASegmentIsBeforeTheFaults(network: MemoryNetwork) -> None:
    """A hook sees what came; what becomes of it on a bad network comes after."""
    kept: list[Heard] = []
    faults = Faults(Latency(1.0), LimitData(3))
    async with between(network, hook=hooks(kept), faultsUpstream=faults) as stage:
        client, server = await stage.meet()
        await client.write(b"hello")
        await stage.sleep(0.1)
        assert kept[0].data_["upstream"] == b"hello"
        assert await hears(server) == (b"hel", "end")
        assert network.now == pytest.approx(1.0, abs=0.01)


def carriers(stage: Stage) -> list[str]:
    """What carries the two directions of the one session that there is."""
    introduction: Any = stage.forwarder.sessions[0]._introduction
    return [type(party.carrier).__name__ for party in introduction._parties]


@inCalm
async def test_whoSeesNoDataCostsNothing(network: MemoryNetwork) -> None:
    """The straight way stays the straight way, where the kernel may carry."""
    for kind, expected in ((Quiet, "Straight"), (Heard, "Observed")):
        async with between(network, hook=hooks([], kind)) as stage:
            await stage.meet()
            assert carriers(stage) == [expected] * 2
    async with between(network, hook=hooks([], Quiet), faultsUpstream=Faults(Latency(0.1))) as stage:
        await stage.meet()
        assert carriers(stage) == ["Faulty", "Straight"]


@patient
async def test_theKernelDoesNotCarryWhatSomebodySees() -> None:
    for kind in (Quiet, Heard):
        async with between(None, hook=hooks([], kind)) as stage:
            client, server = await stage.meet()
            size = 30_000_000
            writing = running(client.write(bytes(size)))
            assert await server.readExactly(size) == bytes(size)
            await writing
            assert (stage.forwarder.snapshot()["spliced"] > 0) is (kind is Quiet)


@pytest.mark.parametrize("where", ["connected", "upstream", "downstream", "closed"])
@inCalm
async def test_whatItRaisesEndsThatSession(network: MemoryNetwork, loggedErrors: LoggedErrors, where: str) -> None:
    """It is logged; both sides hear that something was lost; nobody else suffers."""
    kept: list[Heard] = []
    async with between(network, hook=hooks(kept, raising={1: where})) as stage:
        bystander, itsServer = await stage.meet()
        client, server = await stage.meet()
        if where == "closed":
            client.abort()
        else:
            for stream in (client, server):
                try:
                    await stream.write(b"x")
                except NetError:
                    assert where == "connected"
        await stage.until(lambda: len(stage.journal) == 1)
        assert len(loggedErrors.flush(KeyError)) == 1
        for stream in (server,) if where == "closed" else (client, server):
            assert (await hears(stream))[1] == "ECONNRESET"
        assert kept[1].events.count("closed") == 1
        assert stage.journal[0].target == "one:80"
        if where != "closed":
            assert isinstance(stage.journal[0].error, KeyError)
        await bystander.write(b"y")
        assert await itsServer.readExactly(1) == b"y"
        await itsServer.write(b"z")
        assert await bystander.readExactly(1) == b"z"


@inCalm
async def test_whoCannotMakeAHook(network: MemoryNetwork, loggedErrors: LoggedErrors) -> None:
    """The client is turned away; there never was a session."""

    made: list[Session] = []

    def make(session: Session) -> Hook:
        assert repr(session).endswith("-> nobody yet>")
        made.append(session)
        if len(made) == 1:
            raise KeyError("no hook")
        return Quiet()

    async with between(network, hook=make) as stage:
        client = await stage.connect()
        assert await hears(client) == (b"", "end")
        assert len(loggedErrors.flush(KeyError)) == 1
        assert (stage.forwarder.sessions, stage.journal) == ((), [])
        await stage.meet()
        stage.forwarder.factory.counters.add("accepted", -1)  # it had been, and then there was no session


@pytest.mark.parametrize("when", ["made", "connected"])
@inCalm
async def test_whoWantsNoneOfIt(network: MemoryNetwork, when: str) -> None:
    """A hook may abort its session as soon as it knows of it."""

    class Strict(Quiet):
        def connected(self, session: Session) -> None:
            session.abort(AbortedError("not you", fault="user"))

    def make(session: Session) -> Hook:
        if when == "made":
            session.abort()
            return Quiet()
        return Strict()

    async with between(network, hook=make) as stage:
        client = await stage.connect()
        await isReset(client)
        ended = await stage.over()
        assert isinstance(ended.error, AbortedError)
        assert ended.target == (None if when == "made" else "one:80")
        assert stage.target("one").counters["sessions"] == (0 if when == "made" else 1)


@inCalm
async def test_whatAHookSeesInTheSnapshot(network: MemoryNetwork) -> None:
    """While it is told of the end, the session counts as living still, and its bytes count once."""
    seen: list[dict[str, Any]] = []

    class Curious(Quiet):
        def closed(self, session: Session, ended: Ended) -> None:
            seen.append(stage.forwarder.snapshot())

    async with between(network, hook=lambda session: Curious()) as stage:
        client, server = await stage.meet()
        await client.write(b"12345")
        assert await server.readExactly(5) == b"12345"
        client.abort()
        await stage.over()
        (told,) = seen
        assert (told["sessions"], told["served"], told["bytesIn"]) == (1, 0, 5)
        assert told["targets"][0]["bytesTo"] == 5
