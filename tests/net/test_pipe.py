"""Pipes: everything arrives, as fast as it is taken, and nothing of a pipe outlives it."""

from __future__ import annotations

import os
from io import BytesIO
from pathlib import Path

import pytest
from programs import finished
from scenes import Journal, Scene, engine, played
from turning import turns, until

from twisted_net.net import Socket

MiB = 1024 * 1024
PLENTY = 20_000_000
"""More bytes than the kernel, the transport and the high-water marks of both ends hold together."""


def ignore(*args: object) -> None:
    """Listens, and that is all."""


def echo(socket: Socket) -> None:
    socket.on("error", ignore)
    socket.pipe(socket)


@played()
async def test_pipeEchoesAnyAmount(scene: Scene) -> None:
    server = await scene.server(echo)
    client = scene.client(server)
    heard = Journal(client)
    blob = os.urandom(MiB) * 20
    client.end(blob)
    await heard.happened("close")
    assert heard.data == blob
    assert heard.hadError == [False]


@played()
async def test_pipeForwardsWithPressureAndEnd(scene: Scene) -> None:
    def forward(socket: Socket) -> None:
        onward = scene.client(behind)
        assert socket.pipe(onward) is onward
        onward.pipe(socket)

    behind = await scene.server()
    front = await scene.server(forward)
    client, middle = await scene.pair(front)
    await until(lambda: behind.connections)
    (last,) = behind.clients
    client.write(bytes(PLENTY))
    await until(lambda: engine(middle).pressure.owners == ("peer",))
    await turns(50)
    assert client.writableLength > PLENTY / 2, "the slow end is felt by the first one"
    kept = Journal(last)
    client.end()
    await kept.happened("end")
    assert kept.size == PLENTY
    await client.whenClosed()


@played()
async def test_pipeIntoWhateverWrites(scene: Scene) -> None:
    client, accepted = await scene.pair()
    file = BytesIO()
    assert accepted.pipe(file, end=False) is file
    client.end("hello")
    await accepted.whenClosed()
    assert file.getvalue() == b"hello"


@played()
async def test_pipeWithoutEnd(scene: Scene) -> None:
    one, accepted = await scene.pair()
    other, sink = await scene.pair()
    kept = Journal(sink)
    accepted.pipe(other, end=False)
    one.end("first")
    await accepted.whenClosed()
    assert other.listenerCount("drain") == other.listenerCount("close") == 0, "a pipe takes itself away"
    other.end(", second")
    await kept.happened("close")
    assert kept.data == b"first, second"


@played()
async def test_pipeIntoWhatCloses(scene: Scene) -> None:
    one, accepted = await scene.pair()
    other, _ = await scene.pair()
    accepted.pipe(other)
    one.write(bytes(PLENTY))
    await until(lambda: engine(accepted).pressure.owners == ("peer",))
    other.destroy()
    await other.whenClosed()
    assert not accepted.listenerCount("data")
    assert "peer" not in engine(accepted).pressure.owners, "no longer held by the one that has gone"
    kept = Journal(accepted)
    one.end()
    await kept.happened("close")
    assert 0 < kept.size < PLENTY


@played()
async def test_pipeInASecondLife(scene: Scene) -> None:
    server = await scene.server(lambda socket: socket.on("data", ignore).end(bytes(PLENTY)))
    client = scene.keep(Socket(allowHalfOpen=True))
    for _ in range(2):
        client.connect(scene.where(server))
        await client.whenConnected()
        client.pipe(client)
        await client.whenClosed()
        assert client.bytesRead == PLENTY
        assert client.eventNames() == []


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_pipeHoldsLittleMemory(kind: str, tmp_path: Path) -> None:
    """20 MB echoed to a slow reader, in a process of its own: what it holds at most grows by less than 8 MiB."""
    size, grown = map(int, finished("echoed", kind, tmp_path).split())
    assert size == 20_000_000
    assert grown < 8 * 1024, f"{grown} KiB"
