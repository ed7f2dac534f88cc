"""Lune's manual, "Creating a TCP Server" and "Accepting Connections", line by line; the manual's own lines stand above
ours.

``python lune_accept.py`` listens on port 3000, as in the manual; ``python lune_accept.py 127.0.0.1:0`` anywhere else.
It answers one client, and ends.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.task import react

# local net = require("@lune/net")
from twisted_net import streams

WHERE = sys.argv[1] if sys.argv[1:] else "0.0.0.0:3000"


async def main(reactor: Any) -> None:
    # local server = net.tcp.listen("0.0.0.0:3000")
    # print("Server listening on port 3000")
    server = await streams.listen(WHERE)
    print("Server listening on", server.address)

    # -- Accept a single connection
    # local conn = server:accept()
    # print("Client connected from:", conn.address)
    conn = await server.accept()
    print("Client connected from:", conn.address)

    # local data = conn:read(1024)
    # conn:write("HTTP/1.1 200 OK\r\n\r\nHello!")
    # conn:close()
    data = await conn.read(1024)
    print("Received:", data)
    await conn.write(b"HTTP/1.1 200 OK\r\n\r\nHello!")
    await conn.close()

    await server.close()


react(main)
