"""Lune's manual, "Serve Loop", line by line; the manual's own lines stand above ours.

``python lune_serve.py`` listens on port 3000, as in the manual; ``python lune_serve.py 127.0.0.1:0`` anywhere else. It
serves until it is stopped.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.task import react

from twisted_net import streams

WHERE = sys.argv[1] if sys.argv[1:] else "0.0.0.0:3000"


async def main(reactor: Any) -> None:
    server = await streams.listen(WHERE)
    print("Server listening on", server.address)

    # server:serve(function(conn)
    #     local request = conn:read(4096)
    #
    #     -- Parse request and generate response
    #     local response = "HTTP/1.1 200 OK\r\n"
    #         .. "Content-Type: text/plain\r\n"
    #         .. "\r\n"
    #         .. "Hello from Lune!"
    #
    #     conn:write(response)
    #     conn:close()
    # end)
    async def handle(conn: streams.Stream) -> None:
        request = await conn.read(4096)
        print("Request:", request.partition(b"\r\n")[0].decode())

        response = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nHello from Lune!"

        await conn.write(response)
        await conn.close()

    await server.serve(handle)


react(main)
