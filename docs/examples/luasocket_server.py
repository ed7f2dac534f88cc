"""The server's calls of LuaSocket's manual, each as it stands in Lua above ours.

``python luasocket_server.py [PORT]`` waits for clients, and answers each line in capitals, until one says "stop".
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.task import react

# local socket = require("socket")
from twisted_net import streams
from twisted_net.errors import EndError, TimedOutError

PORT = int(sys.argv[1]) if sys.argv[1:] else 0


async def main(reactor: Any) -> None:
    # master = socket.tcp()
    master = streams.tcp()

    # master:setoption("reuseaddr", true)
    master.setOption("reuseaddr", True)

    # master:bind("*", port)
    await master.bind("*", PORT)

    # master:listen(32)
    await master.listen(32)
    server = master

    # ip, port = server:getsockname()
    name = server.getSockName()
    assert name is not None
    print("listening on", name.address, name.port)

    # server:settimeout(0.01)
    # client, err = server:accept()            -- nil, "timeout"
    server.setTimeout(0.01)
    try:
        await server.accept()
    except TimedOutError:
        print("timeout")

    # server:settimeout(nil)
    server.setTimeout(None)

    line = b""
    while line != b"stop":
        # client = server:accept()
        client = await server.accept()

        # client:settimeout(60, "t")
        client.setTimeout(60, "t")

        # ip, port = client:getpeername()
        peer = client.getPeerName()
        assert peer is not None
        print("from", peer.address)

        # while true do
        #     line, err, partial = client:receive("*l")
        #     if err then break end
        #     client:send(string.upper(line) .. "\n")
        # end
        while True:
            try:
                line = await client.receive("*l")
            except EndError as error:
                print("closed, partial result", error.partial)
                break
            last = await client.send(line.upper() + b"\n")
            print("sent up to byte", last)

        # received, sent, age = client:getstats()
        received, sent, _ = client.getStats()
        print("received", received, "sent", sent)

        # client:close()
        await client.close()

    # server:close()
    await server.close()


react(main)
