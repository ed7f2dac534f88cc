"""Lune's manual, "UDP Sockets", line by line; the manual's own lines stand above ours.

``python lune_udp.py ADDRESS PEER`` binds ADDRESS (the manual's is 0.0.0.0:8080) and talks to PEER (its
192.168.1.100:9000), which has to answer each datagram: ``socat UDP4-RECVFROM:9000,fork EXEC:cat`` does.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.task import react

# local net = require("@lune/net")
from twisted_net import udp

WHERE, PEER = sys.argv[1:] or ("0.0.0.0:8080", "192.168.1.100:9000")


async def main(reactor: Any) -> None:
    # local socket = net.udp.bind("0.0.0.0:8080")
    # print("Bound to:", socket.address)
    socket = await udp.bind(WHERE)
    print("Bound to:", socket.address)

    # -- Send to specific address
    # socket:sendTo("Hello, World!", "192.168.1.100:9000")
    await socket.sendTo(b"Hello, World!", PEER)

    # local result = socket:recvFrom(1024) -- max 1024 bytes
    # print("Received:", result.data)
    # print("From:", result.address)
    result = await socket.recvFrom(1024)
    print("Received:", result.data)
    print("From:", result.address)

    # socket:connect("192.168.1.100:9000")
    await socket.connect(PEER)

    # socket:send("Hello")
    # local data = socket:recv(1024)
    await socket.send(b"Hello")
    data = await socket.recv(1024)
    print("Then:", data)

    socket.close()


react(main)
