"""The client's calls of LuaSocket's manual, each as it stands in Lua above ours; for ``luasocket_server.py``.

``python luasocket_client.py PORT``
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.task import react

# local socket = require("socket")
from twisted_net import streams
from twisted_net.errors import EndError, TimedOutError

PORT = int(sys.argv[1])


async def main(reactor: Any) -> None:
    # master = socket.tcp()
    # master:settimeout(10)
    master = streams.tcp()
    master.setTimeout(10)

    # master:connect("127.0.0.1", port)
    await master.connect("127.0.0.1", PORT)
    client = master

    # client:setoption("keepalive", true)
    # client:setoption("tcp-nodelay", true)
    # client:setoption("linger", {on = true, timeout = 5})
    client.setOption("keepalive", True)
    client.setOption("tcp-nodelay", True)
    client.setOption("linger", {"on": True, "timeout": 5})

    # ip, port = client:getpeername()
    print("connected to", client.getPeerName())

    # last = client:send("hello\n")
    print("sent up to byte", await client.send(b"hello\n"))

    # last = client:send("0123456789\n", 3)
    # last = client:send("0123456789\n", -4, -1)
    print("sent up to byte", await client.send(b"0123456789\n", 3))
    print("sent up to byte", await client.send(b"0123456789\n", -4, -1))

    # line = client:receive()
    # line = client:receive("*l", "and then ")
    print(await client.receive())
    print(await client.receive("*l", b"and then "))

    # data = client:receive(3)
    print(await client.receive(3))

    # client:settimeout(0.05)
    # data, err, partial = client:receive(100)     -- nil, "timeout", "\n"
    client.setTimeout(0.05)
    try:
        await client.receive(100)
    except TimedOutError as error:
        print("timeout, partial result", error.partial)
    client.setTimeout(10)

    # readable, writable, err = socket.select({client}, {client}, 5)
    readable, writable = await streams.select([client], [client], 5)
    print(len(readable), "readable", len(writable), "writable")

    # client:send("stop\nlast words")
    # client:shutdown("send")
    await client.send(b"stop\nlast words")
    await client.shutdown("send")

    # rest = client:receive("*a")
    print(await client.receive("*a"))

    # line, err = client:receive()                 -- nil, "closed"
    try:
        await client.receive()
    except EndError:
        print("closed")

    # client:setstats(0, 0, 0)
    # received, sent, age = client:getstats()
    print("received", client.getStats().received, "sent", client.getStats().sent)
    client.setStats(0, 0, 0)
    print("received", client.getStats().received, "sent", client.getStats().sent)

    # client:close()
    await client.close()


react(main)
