"""Lune's manual, "Example: Echo Server", line by line; the manual's own lines stand above ours.

``python lune_echo.py`` listens on port 7, as in the manual, which takes root's rights; ``python lune_echo.py
127.0.0.1:0`` anywhere else. It serves until it is stopped.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.task import react

# local net = require("@lune/net")
from twisted_net import streams

WHERE = sys.argv[1] if sys.argv[1:] else "0.0.0.0:7"


async def main(reactor: Any) -> None:
    # local server = net.tcp.listen("0.0.0.0:7")
    # print("Echo server running on port 7")
    server = await streams.listen(WHERE)
    print("Echo server running on", server.address)

    # server:serve(function(conn)
    #     while true do
    #         local data = conn:read(1024)
    #         if not data or #data == 0 then
    #             break
    #         end
    #         conn:write(data)
    #     end
    #     conn:close()
    # end)
    async def echo(conn: streams.Stream) -> None:
        while True:
            data = await conn.read(1024)
            if not data:
                break
            await conn.write(data)
        await conn.close()

    await server.serve(echo)


react(main)
