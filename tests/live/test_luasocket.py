"""LuaSocket (Debian package lua-socket) in Lua 5.1: its blocking calls against our events."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path

import pytest
import pytest_twisted
from launched import PATIENCE
from scenes import Journal, patient
from strangers import Stranger, apart, ask, digest, needs, patterned, service
from turning import until

from twisted_net import net


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


def test_asClient(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """Lines, blocks, prefixes, timeouts and half-close against our echo."""
    folder = tmp_path / "run"
    folder.mkdir()
    with service(request, folder, "echo", "--listen", "127.0.0.1:0") as program:
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


def test_much(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """20 MB by LuaSocket's non-blocking ``send`` and ``select``."""
    with service(request, tmp_path, "echo", "--listen", "127.0.0.1:0") as program:
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


def test_theIdleLimit(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """LuaSocket sees the idle limit as "closed"."""
    with service(request, tmp_path, "echo", "--listen", "127.0.0.1:0", "--timeout-idle", "200ms") as program:
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
