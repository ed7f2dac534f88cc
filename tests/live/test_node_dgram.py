"""Node's own ``dgram`` (Debian package nodejs): the event manner follows its manual, so here the two meet."""

from __future__ import annotations

import base64
import random
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from strangers import Stranger, apart, ask, ifIPv6, needs
from turning import until

from twisted_net import udp
from twisted_net.errors import RefusedError

pytestmark = [pytest.mark.live, needs("node")]

DGRAM = ("node", str(Path(__file__).parent / "dgram.js"))

# Empty, of one byte, across the usual sizes of a packet, and the longest that IPv4 has; no two alike.
PAYLOADS = [random.Random(size).randbytes(size) for size in (0, 1, 2, 511, 512, 1472, 1473, 9000, 65_507)]

types = pytest.mark.parametrize("type", ["udp4", *ifIPv6("udp6")])


@types
@pytest_twisted.ensureDeferred
async def test_ourEventsAndTheirEcho(type: str) -> None:
    with Stranger(*DGRAM, "echo", type) as node:
        port = int(node.says(r"listening (\d+)")[1])
        heard: list[bytes] = []
        socket = udp.createSocket(type, lambda data, address: heard.append(data))
        errors: list[Any] = []
        socket.on("error", errors.append)
        for count, payload in enumerate([*PAYLOADS, b"bye"], 1):
            socket.send(payload, port)
            await until(lambda count=count: len(heard) == count or errors)  # type: ignore[misc]
        assert errors == []
        assert heard == [*PAYLOADS, b"bye"]
        socket.close()
        assert (await apart(node.end))[0] == 0


@types
@pytest_twisted.ensureDeferred
async def test_ourCoroutineAndTheirEcho(type: str) -> None:
    with Stranger(*DGRAM, "echo", type) as node:
        host = "127.0.0.1" if type == "udp4" else "[::1]"
        port = node.says(r"listening (\d+)")[1]
        async with await udp.connect(f"{host}:{port}") as socket:
            for payload in (*PAYLOADS, b"bye"):
                await socket.send(payload)
                assert await socket.recv() == payload
        assert (await apart(node.end))[0] == 0


def questions() -> bytes:
    return b"".join(base64.b64encode(payload) + b"\n" for payload in PAYLOADS if payload)


def answered(out: bytes) -> list[bytes]:
    return [base64.b64decode(line) for line in out.splitlines()]


@types
@pytest_twisted.ensureDeferred
async def test_theirClientAndOurEvents(type: str) -> None:
    server = udp.createSocket(type)
    server.on("message", server.send)
    server.bind(0, "127.0.0.1" if type == "udp4" else "::1")
    await until(server.address)
    port = str(server.address().port)  # type: ignore[union-attr]
    out = await apart(ask, *DGRAM, "ask", type, port, given=questions())
    assert answered(out) == [payload for payload in PAYLOADS if payload]
    server.close()


@types
@pytest_twisted.ensureDeferred
async def test_theirClientAndOurCoroutine(type: str) -> None:
    async with await udp.bind("127.0.0.1:0" if type == "udp4" else "[::1]:0") as server:
        asking = apart(ask, *DGRAM, "ask", type, str(server.address.port), given=questions())
        asking.addBoth(lambda out: (server.close(), out)[1])
        async for packet in server:
            await server.sendTo(packet.data, packet.address)
        assert answered(await asking) == [payload for payload in PAYLOADS if payload]


@pytest_twisted.ensureDeferred
async def test_bothAreRefused() -> None:
    """The same event, with the same code."""
    async with await udp.bind("127.0.0.1:0") as gone:
        port = gone.address.port
    theirs = await apart(ask, *DGRAM, "refused", "udp4", str(port))
    assert theirs.decode().strip() == "ECONNREFUSED"
    errors: list[Any] = []
    socket = udp.createSocket("udp4")
    socket.on("error", errors.append)
    socket.connect(port).send(b"hello")
    await until(lambda: errors)
    assert isinstance(errors[0], RefusedError)
    assert errors[0].code == "ECONNREFUSED"
    socket.close()
