"""Node's own ``net`` (Debian package nodejs): the event face follows its manual, so here the two meet.

A scene is a part for each end: for each event what that end does the first time it comes. It is played by Node against
Node, which gives what each end should hear, and then with us at either end, and at both.
"""

from __future__ import annotations

import json
import socket as sockets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from scenes import Journal, patient
from strangers import PLENTY, Stranger, apart, ask, digest, needs, patterned, service

from twisted_net import NetError, net

pytestmark = [pytest.mark.live, needs("node")]

FOLDER = Path(__file__).parent
ACTOR = ("node", str(FOLDER / "actor.js"))
STREAM = ("node", str(FOLDER / "stream.js"))

Part = dict[str, Any]
Heard = dict[str, Any]

HALF_OPEN = {"allowHalfOpen": True}

# (the server's part, or None for one whom nobody reaches; the client's part)
SCENES: dict[str, tuple[Part | None, Part]] = {
    "the server ends": ({"connection": [["end", "bye"]]}, {}),
    "the client ends": ({}, {"connect": [["end", "hello"]]}),
    "the client ends without a word": ({}, {"connect": [["end"]]}),
    "the server answers an end": (
        {"options": HALF_OPEN, "end": [["write", "late "], ["end", "answer"]]},
        {"connect": [["end", "hello"]]},
    ),
    "the client answers an end": (
        {"connection": [["end", "hello"]]},
        {"options": HALF_OPEN, "end": [["write", "late "], ["end", "answer"]]},
    ),
    "the answer to an end is written in its listener": (
        {"end": [["flood", PLENTY]]},
        {"connect": [["end", "x"], ["pause"], ["setTimeout", 50]], "timeout": [["resume"]]},
    ),
    "the server destroys": ({"connection": [["destroy"]]}, {}),
    "the client destroys when ready": ({}, {"ready": [["destroy"]]}),
    "the client destroys at data": ({"connection": [["write", "hello"]]}, {"data": [["destroy"]]}),
    "the client destroys at the end": ({"connection": [["end", "hello"]]}, {"end": [["destroy"]]}),
    "the client destroys with an error": ({}, {"ready": [["fail"]]}),
    "the server destroys with an error": ({"connection": [["fail"]]}, {}),
    "destroyed before it is connected": (None, {"start": [["destroy"]]}),
    "destroyed with an error before it is connected": (None, {"start": [["fail"]]}),
    "destroySoon": ({}, {"connect": [["write", "hello"], ["destroySoon"]]}),
    "the server resets": ({"data": [["resetAndDestroy"]]}, {"connect": [["write", "hello"]]}),
    "the client resets": ({}, {"ready": [["resetAndDestroy"]]}),
    "written before it is connected": ({}, {"start": [["write", "early "], ["end", "bird"]]}),
    "drain": (
        {"connection": [["pause"], ["setTimeout", 50]], "timeout": [["resume"]]},
        {"connect": [["flood", PLENTY]], "drain": [["end", "that was it"]]},
    ),
    "an end instead of a drain": (
        {"connection": [["pause"], ["setTimeout", 50]], "timeout": [["resume"]]},
        {"connect": [["flood", PLENTY], ["end"]]},
    ),
    "idle": ({}, {"connect": [["setTimeout", 20]], "timeout": [["end", "too late"]]}),
    "idle, and destroyed": ({}, {"connect": [["setTimeout", 20]], "timeout": [["destroy"]]}),
}

# Scenes that we play differently, each end's events: Node's and ours.
DIFFERENT: dict[str, tuple[Part, Part, list[list[str]], list[list[str]]]] = {
    # Node calls a socket ready that was destroyed meanwhile.
    "the client destroys when connected": (
        {},
        {"connect": [["destroy"]]},
        [["connection", "end", "finish", "close false", "server close"], ["connect", "ready", "close false"]],
        [["connection", "end", "finish", "close false", "server close"], ["connect", "close false"]],
    ),
    # Node goes on reading while it is paused, until something comes, and so it notices the end; our pause is one
    # (LUV-22).
    "a listener pauses": (
        {"connection": [["end", "hello"]]},
        {"data": [["pause"], ["setTimeout", 50]], "timeout": [["resume"]]},
        [
            ["connection", "finish", "end", "close false", "server close"],
            ["connect", "ready", "data", "end", "finish", "close false"],
        ],
        [
            ["connection", "finish", "end", "close false", "server close"],
            ["connect", "ready", "data", "timeout", "end", "finish", "close false"],
        ],
    ),
    # The server's 'close' comes after its last client's (Evo), and once.
    "the server is closed before its client": (
        {"connection": [["server.close"], ["write", "hello"]]},
        {"data": [["end", "bye"]]},
        [
            ["connection", "data", "end", "finish", "server close", "close false", "server close"],
            ["connect", "ready", "data", "finish", "end", "close false"],
        ],
        [
            ["connection", "data", "end", "finish", "close false", "server close"],
            ["connect", "ready", "data", "finish", "end", "close false"],
        ],
    ),
}


class Actor:
    """The actor of actor.js, on twisted_net."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._played: set[str] = set()
        self._data: list[bytes] = []
        self._heard: list[str] = []

    @property
    def heard(self) -> Heard:
        return {"heard": self._heard, "data": digest(b"".join(self._data))}

    def server(self) -> net.Server:
        server: net.Server = net.createServer(self._part.get("options"))

        @server.on("connection")
        def connected(socket: net.Socket) -> None:
            self._heard.append("connection")
            self._listen(socket, server)
            self._play("connection", socket, server)

        server.on("close", lambda: self._heard.append("server close"))
        return server.listen(0, "127.0.0.1")

    def client(self, port: int) -> net.Socket:
        socket = net.Socket(self._part.get("options"))
        self._listen(socket, None)
        socket.connect(port, "127.0.0.1")
        self._play("start", socket, None)
        return socket

    def _listen(self, socket: net.Socket, server: net.Server | None) -> None:
        def heard(name: str) -> Callable[..., None]:
            def listener(*args: Any) -> None:
                text = name
                if name == "data":
                    self._data.append(args[0])
                elif name == "error":
                    text = f"error {args[0].code}"
                elif name == "close":
                    text = f"close {str(args[0]).lower()}"
                if name != "data" or self._heard[-1:] != ["data"]:
                    self._heard.append(text)
                self._play(name, socket, server)
                if name == "close" and server is not None:
                    server.close()

            return listener

        for name in ("connect", "ready", "end", "finish", "timeout", "drain", "lookup", "data", "error", "close"):
            socket.on(name, heard(name))

    def _play(self, name: str, socket: net.Socket, server: net.Server | None) -> None:
        if name in self._played:
            return
        self._played.add(name)
        for verb, *args in self._part.get(name, ()):
            if verb == "flood":
                socket.write(bytes(args[0]))
            elif verb == "fail":
                socket.destroy(NetError("on purpose", code="EPURPOSE"))
            elif verb == "server.close":
                assert server is not None
                server.close()
            else:
                getattr(socket, verb)(*args)


def ended(stranger: Stranger) -> Heard:
    """What Node's actor has heard."""
    status, out, err = stranger.end()
    assert (status, err) == (0, b"")
    heard: Heard = json.loads(out)
    return heard


async def play(server: Part | None, client: Part, *, ours: str) -> tuple[Heard | None, Heard]:
    """Play one scene; *ours* is which of ``server`` and ``client`` is played by us."""
    if "server" in ours:
        host = Actor(server or {})
        listening = await patient(host.server().whenListening())
        heard = await playClient(listening.address().port, client, ours)
        if server is None:
            listening.close()
        await patient(listening.whenClosed())
        return None if server is None else host.heard, heard
    with Stranger(*ACTOR, "server", json.dumps(server or {})) as node:
        heard = await playClient(int(node.says(r"listening (\d+)")[1]), client, ours)
        return None if server is None else await apart(ended, node), heard


async def playClient(port: int, client: Part, ours: str) -> Heard:
    if "client" in ours:
        guest = Actor(client)
        await patient(guest.client(port).whenClosed())
        return guest.heard
    heard: Heard = json.loads(await apart(ask, *ACTOR, "client", str(port), json.dumps(client)))
    return heard


@pytest.mark.parametrize("scene", SCENES)
@pytest_twisted.ensureDeferred
async def test_sameEvents(scene: str) -> None:
    server, client = SCENES[scene]
    expected = await play(server, client, ours="")
    for ours in ("client", "server", "server and client"):
        found = await play(server, client, ours=ours)
        assert found == expected, f"{ours} ours"


@pytest.mark.parametrize("scene", DIFFERENT)
@pytest_twisted.ensureDeferred
async def test_otherEvents(scene: str) -> None:
    """Where we differ, and know it; when Node changes its ways this tells."""
    server, client, theirs, ours = DIFFERENT[scene]
    for who, expected in (("", theirs), ("server and client", ours)):
        found = await play(server, client, ours=who)
        assert [one["heard"] for one in found if one] == expected, who or "Node"


@pytest_twisted.ensureDeferred
async def test_refused() -> None:
    with sockets.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    expected = await playClient(port, {}, "")
    assert expected["heard"] == ["error ECONNREFUSED", "close true"]
    assert await playClient(port, {}, "client") == expected


@pytest_twisted.ensureDeferred
async def test_aBusyPort() -> None:
    """Node's server takes a port; ours cannot have it, hears so, and gets it when Node is gone."""
    server = net.createServer()
    journal = Journal(server)
    with Stranger(*ACTOR, "server", "{}") as node:
        port = int(node.says(r"listening (\d+)")[1])
        server.listen(port, "127.0.0.1")
        await patient(journal.happened("error"))
        assert journal.codes == ["EADDRINUSE"]
    server.listen(port, "127.0.0.1")
    await patient(server.whenListening())
    server.close()
    await patient(server.whenClosed())
    assert journal.events == ["error", "listening", "close"]


# Much


@pytest.mark.parametrize("words", [(), ("--half-open",), ("--rate-read", "100MB/s", "--timeout-idle", "1m")])
def test_muchFromNode(tmp_path: Path, words: tuple[str, ...]) -> None:
    """Node minds its write() and its 'drain', and stops reading now and then; 20 MB come back, and it never holds
    more than a chunk above its mark."""
    with service(tmp_path, "echo", "--listen", "127.0.0.1:0", *words) as program:
        port = program.address().rpartition(":")[2]
        told = json.loads(ask(*STREAM, "client", port, str(PLENTY)))
        program.wait(r"closed \(ended\): 20000000 bytes in, 20000000 bytes out")
    assert told.pop("drains") > 0
    assert told.pop("most") <= 200_000
    assert told == {"bytes": PLENTY, "same": True, "hadError": False}


@pytest_twisted.ensureDeferred
async def test_muchToNode() -> None:
    """Our socket, a mark of 64 KiB and a reader that stops now and then, against Node's ``socket.pipe(socket)``."""
    from twisted.internet import reactor

    with Stranger(*STREAM, "server") as node:
        client = net.connect(int(node.says(r"listening (\d+)")[1]), "127.0.0.1", allowHalfOpen=True)
        journal = Journal(client)
        left = memoryview(patterned())
        most = pauses = 0

        def send() -> None:
            nonlocal left, most
            more = True
            while left and more:
                more = client.write(left[:50_000])
                left = left[50_000:]
                most = max(most, client.writableLength)
            if not left:
                client.end()

        def stopping(data: bytes) -> None:
            nonlocal pauses
            if client.bytesRead // 1_000_000 > pauses:
                pauses += 1
                client.pause()
                reactor.callLater(0.002, client.resume)

        client.on("drain", send).on("connect", send).on("data", stopping)
        assert await patient(client.whenClosed()) is False
        assert (await apart(node.end))[0] == 0
    assert digest(journal.data) == digest(patterned())
    assert pauses > 5
    assert most < 64 * 1024 + 50_000
    assert (client.bytesRead, client.bytesWritten) == (PLENTY, PLENTY)
