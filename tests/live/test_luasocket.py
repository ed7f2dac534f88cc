"""LuaSocket (Debian package lua-socket) in Lua 5.1: its blocking calls against our events, and against our streams."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import pytest_twisted
from drivers import awaited
from launched import PATIENCE
from scenes import Journal, patient
from strangers import Stranger, apart, ask, digest, needs, patterned, service
from turning import until

from twisted_net import net, streams
from twisted_net.errors import TimedOutError
from twisted_net.streams import Listener, Stats
from twisted_net.wire.waiting import outcome


def _lacksLuaSocket() -> bool:
    lua = shutil.which("lua5.1")
    found = lua and subprocess.run([lua, "-e", 'require "socket"'], capture_output=True, timeout=PATIENCE, check=False)
    return not found or found.returncode != 0


pytestmark = [
    pytest.mark.live,
    needs("lua5.1"),
    pytest.mark.skipif(_lacksLuaSocket(), reason="not installed: lua-socket"),
]

# Each script gets its port as ``port``; ``is(found, expected)`` ends it when the two differ.
PRELUDE = """
    local socket = require "socket"
    local port = tonumber(arg[1])
    io.stdout:setvbuf("no")
    local function is(found, expected)
        if found ~= expected then error(tostring(found) .. " is not " .. tostring(expected), 2) end
    end
"""


def script(folder: Path, text: str) -> str:
    """A file with the script; returns its path."""
    path = folder / "script.lua"
    path.write_text(PRELUDE + text)
    return str(path)


LINES_AND_BLOCKS = """
    local client = assert(socket.tcp())
    assert(client:connect("127.0.0.1", port))
    client:settimeout(30)
    is(client:send("one\\r\\ntwo\\n\\nlast"), 14)
    is(client:receive("*l"), "one")
    is(client:receive(), "two")
    is(client:receive("*l"), "")
    is(client:receive(2), "la")
    is(client:receive(4, "fir"), "firs")          -- the prefix counts: one byte more
    -- nothing more comes: a timeout, with what there was
    client:settimeout(0.05)
    local found, problem, partial = client:receive(10)
    is(found, nil) is(problem, "timeout") is(partial, "t")
    client:settimeout(0)
    is(select(2, client:receive("*l")), "timeout")
    client:settimeout(30)
    -- a part of a text
    is(client:send("0123456789", 3, 5), 5)
    is(client:receive(3), "234")
    -- half-close: all that is under way still comes, and then the end
    is(client:send(string.rep("x", 100000)), 100000)
    is(client:shutdown("send"), 1)
    is(#client:receive("*a"), 100000)
    is(select(2, client:receive("*l")), "closed")
    is(client:close(), 1)
    print("well")
"""


def test_asClient(tmp_path: Path) -> None:
    """Lines, blocks, prefixes, timeouts and half-close against our echo."""
    folder = tmp_path / "run"
    folder.mkdir()
    with service(folder, "echo", "--listen", "127.0.0.1:0") as program:
        port = program.address().rpartition(":")[2]
        assert ask("lua5.1", script(tmp_path, LINES_AND_BLOCKS), port) == b"well\n"
        program.wait(r"closed \(ended\): 100017 bytes in, 100017 bytes out")
        program.signal(signal.SIGTERM)
        assert program.end().code == 0


MUCH = """
    local client = assert(socket.connect("127.0.0.1", port))
    client:settimeout(0)
    local all = io.read("*a")
    local sent, back = 0, {}
    local received = 0
    while received < #all do
        local readable, writable = socket.select({client}, sent < #all and {client} or nil, 30)
        assert(readable[1] or writable[1], "stuck")
        if writable[1] then
            local last, problem, partial = client:send(all, sent + 1)
            sent = last or partial
            if sent == #all then client:shutdown("send") end
        end
        if readable[1] then
            local data, problem, partial = client:receive(65536)
            data = data or partial
            received = received + #data
            back[#back + 1] = data
        end
    end
    client:settimeout(30)
    is(select(2, client:receive(1)), "closed")
    io.write(table.concat(back))
"""


def test_much(tmp_path: Path) -> None:
    """20 MB by LuaSocket's non-blocking ``send`` and ``select``."""
    with service(tmp_path, "echo", "--listen", "127.0.0.1:0") as program:
        port = program.address().rpartition(":")[2]
        lua = script(tmp_path, MUCH)
        assert digest(ask("lua5.1", lua, port, given=patterned())) == digest(patterned())
        program.wait(r"closed \(ended\): 20000000 bytes in, 20000000 bytes out")


IDLE = """
    local client = assert(socket.connect("127.0.0.1", port))
    client:settimeout(30)
    is(client:send("x"), 1)
    is(client:receive(1), "x")
    is(select(2, client:receive(1)), "closed")
    print("well")
"""


def test_theIdleLimit(tmp_path: Path) -> None:
    """LuaSocket sees the idle limit as "closed"."""
    with service(tmp_path, "echo", "--listen", "127.0.0.1:0", "--timeout-idle", "200ms") as program:
        port = program.address().rpartition(":")[2]
        assert ask("lua5.1", script(tmp_path, IDLE), port) == b"well\n"
        program.wait(r"closed \(ETIMEDOUT\): 1 bytes in, 1 bytes out")


SERVER = """
    local server = assert(socket.bind("127.0.0.1", 0))
    print("listening " .. select(2, server:getsockname()))
    local client = assert(server:accept())
    client:settimeout(30)
    is(client:receive("*l"), "hello")
    is(client:receive(5), "block")
    assert(client:send("welcome\\r\\n"))
    client:settimeout(0.05)
    is(select(2, client:receive("*l")), "timeout")
    client:settimeout(30)
    print("waiting")
    is(client:receive("*a"), string.rep("y", 300000))
    -- we have ended; it has not
    assert(client:send("late answer"))
    is(client:shutdown("send"), 1)
    print("received " .. select(1, client:getstats()))
    client:close()
"""


@pytest_twisted.ensureDeferred
async def test_asServer(tmp_path: Path) -> None:
    """Our socket, half-open, against LuaSocket's server."""
    with Stranger("lua5.1", script(tmp_path, SERVER)) as lua:
        client = net.connect(int(lua.says(r"listening (\d+)")[1]), "127.0.0.1", allowHalfOpen=True)
        journal = Journal(client, without=("drain",))
        client.write("hello\r\nblock")
        await patient(until(lambda: journal.data == b"welcome\r\n"))
        await apart(lua.says, "waiting")
        client.end("y" * 300_000)
        await patient(client.whenClosed())
        status, out, err = await apart(lua.end)
        assert (status, out, err) == (0, b"received 300012\n", b"")
    assert journal.data == b"welcome\r\nlate answer"
    assert journal.events == ["connect", "ready", "data", "finish", "data", "end", "close"]
    assert journal.hadError == [False]


# Against the await face, by each driver: the same calls on both sides

SIZES = (1, 2, 1000, 65535, 65536, 65537, 1_000_000, 8_388_608)
"""Bytes of a block."""


CLIENT = """
    local client = assert(socket.tcp())
    assert(client:connect("127.0.0.1", port))
    client:settimeout(30)
    -- lines, both ways
    is(client:send("one\\r\\ntwo\\n\\nlong " .. string.rep("x", 60000) .. "\\n"), 60016)
    is(client:receive("*l"), "uno")
    is(client:receive(), "dos")
    is(client:receive(), "")
    -- blocks, ASCII and binary, there and back
    for size in string.gmatch(arg[2], "%d+") do
        local text = string.rep("a", size)
        local bytes = string.sub(string.rep("\\0\\r\\n\\255", math.ceil(size / 4)), 1, size)
        for _, block in ipairs({text, bytes}) do
            is(client:send(block), #block)
            is(client:receive(#block), block)
        end
    end
    -- timeouts with a partial result, and what follows it
    client:settimeout(0.05, "t")
    local found, problem, partial = client:receive(10)
    is(found, nil) is(problem, "timeout") is(partial, "part")
    client:settimeout(30, "t")
    assert(client:send("now\\n"))
    is(client:receive(10, partial), "partial 10")
    assert(client:send("slow"))
    is(client:receive("*l"), "timeout after slow")
    assert(client:send(" line\\n"))
    -- substrings
    is(client:send("0123456789", 3, 5), 5)
    is(client:send("0123456789", -2), 10)
    is(client:receive("*l"), "23489")
    -- half-close
    assert(client:send("the rest"))
    is(client:shutdown("send"), 1)
    is(client:receive("*a"), "and ours")
    is(select(2, client:receive("*l")), "closed")
    print(client:getstats())
"""


async def server(listener: Listener) -> Stats:
    """What `CLIENT` expects."""
    async with await listener.accept() as stream:
        assert [await stream.receive(), await stream.receive("*l"), await stream.receive()] == [b"one", b"two", b""]
        assert await stream.receive() == b"long " + b"x" * 60_000
        for line in ("uno\r\n", "dos\n", "\n"):
            await stream.send(line.encode())
        for size in SIZES:
            for block in (b"a" * size, (b"\0\r\n\xff" * (size // 4 + 1))[:size]):
                assert await stream.receive(size) == block
                assert await stream.send(block) == size
        await stream.send(b"part")
        assert await stream.receive() == b"now"
        await stream.send(b"ial 10")
        stream.setTimeout(0.05, "t")
        await streams.select([stream])
        try:
            await stream.receive()
        except TimedOutError as timeout:
            partial = timeout.partial
        await stream.send(b"timeout after " + partial + b"\n")
        stream.setTimeout(None, "t")
        assert await stream.receive("*l", partial) == b"slow line"
        await stream.send(await stream.receive(5) + b"\n")
        assert await stream.receive("*a") == b"the rest"
        await stream.send(b"and ours")
        await stream.end()  # what is sent is counted when the kernel has it
        return stream.getStats()


@awaited
async def test_theirClientAndOurListener(tmp_path: Path) -> None:
    async with await streams.listen("127.0.0.1:0") as listener:
        words = (script(tmp_path, CLIENT), str(listener.address.port), " ".join(map(str, SIZES)))
        lua = apart(ask, "lua5.1", *words)
        received, sent, age = await server(listener)
        theirs = await outcome(listener.reactor, lua)
    assert theirs.split()[:2] == [b"%d" % sent, b"%d" % received], "what one sent the other received"
    assert 0 < age < PATIENCE


THEIR_SERVER = """
    local server = assert(socket.bind("127.0.0.1", 0))
    print("listening " .. select(2, server:getsockname()))
    local client = assert(server:accept())
    client:settimeout(30)
    is(client:receive("*l"), "hello")
    assert(client:send("welcome\\r\\n"))
    for size in string.gmatch(arg[2], "%d+") do
        for _ = 1, 2 do
            local block = assert(client:receive(tonumber(size)))
            assert(client:send(block))
        end
    end
    -- a line that comes in two parts: the other side sees a timeout between them
    assert(client:send("half"))
    is(client:receive("*l"), "half")
    assert(client:send(" and half\\n"))
    -- somebody who does not read: the other side's send times out, and goes on
    is(client:receive(6), "8 MB: ")
    print("not reading")
    assert(io.read() == "read")
    print(#assert(client:receive(8388608)))
    -- its end, and ours
    is(client:receive("*a"), "the rest")
    assert(client:send("late answer"))
    is(client:shutdown("send"), 1)
    is(select(2, client:receive(1)), "closed")
    print(client:getstats())
    client:close()
"""


@awaited
async def test_ourStreamAndTheirServer(tmp_path: Path) -> None:
    with Stranger("lua5.1", script(tmp_path, THEIR_SERVER), "0", " ".join(map(str, SIZES))) as lua:
        stream = streams.tcp()
        await stream.connect("127.0.0.1", int(lua.says(r"listening (\d+)")[1]))
        reactor = stream.reactor
        await stream.send(b"hello\r\n")
        assert await stream.receive() == b"welcome"
        for size in SIZES:
            for block in (b"a" * size, patterned(size)):
                assert await stream.send(block) == size
                assert await stream.receive(size) == block
        stream.setTimeout(0.05)
        with pytest.raises(TimedOutError) as caught:
            await stream.receive()
        assert caught.value.partial == b"half"
        await stream.send(b"half\n")
        stream.setTimeout(None)
        assert await stream.receive("*l", caught.value.partial) == b"half and half"
        await stream.send(b"8 MB: ")
        await outcome(reactor, apart(lua.says, "not reading"))
        block = patterned(8_388_608)
        stream.setTimeout(0.05)
        with pytest.raises(TimedOutError) as caught:
            await stream.send(block)
        assert 0 < caught.value.sent < len(block)
        stream.setTimeout(None)
        lua.stdin.write(b"read\n")
        assert await stream.send(block, caught.value.sent + 1) == len(block)
        await outcome(reactor, apart(lua.says, "8388608"))
        await stream.send(b"the rest")
        await stream.shutdown("send")
        assert await stream.receive("*a") == b"late answer"
        received, sent, _ = stream.getStats()
        await stream.close()
        status, out, err = await outcome(reactor, apart(lua.end))
    assert (status, err) == (0, b"")
    assert out.split()[:2] == [b"%d" % sent, b"%d" % received], "what one sent the other received"


TOO_LATE = """
    local master = assert(socket.tcp())
    master:settimeout(0.05)
    is(select(2, master:connect("127.0.0.1", port)), "timeout")
    is(#select(2, socket.select(nil, {master}, 0)), 0)
    print("late")
    is(#select(2, socket.select(nil, {master}, 30)), 1)
    assert(master:send("here\\n"))
    print("well")
"""


@awaited
async def test_theirConnectGoesOn(tmp_path: Path) -> None:
    """A full backlog of ours: they wait, as our own ``connect`` does (LUAS-22)."""
    master = streams.tcp()
    await master.bind("127.0.0.1", 0)
    await master.listen(1)
    where = master.getSockName()
    waiting = [await streams.connect(str(where)) for _ in range(3)]
    with Stranger("lua5.1", script(tmp_path, TOO_LATE), str(where.port if where else None)) as lua:
        await outcome(master.reactor, apart(lua.says, "late"))
        for client in waiting:
            await client.close()
            await (await master.accept()).close()
        async with await master.accept() as accepted:
            assert await accepted.receive() == b"here"
        assert await outcome(master.reactor, apart(lua.end)) == (0, b"well\n", b"")
    await master.close()
