"""Lune's manual, "UDP Game Server", line by line; the manual's own lines stand above ours.

``python lune_game_server.py`` binds port 27015, as in the manual; ``python lune_game_server.py 127.0.0.1:0`` anywhere
else. It serves until it is stopped.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from twisted.internet.task import react

# local net = require("@lune/net")
from twisted_net import udp
from twisted_net.errors import ClosedError

WHERE = sys.argv[1] if sys.argv[1:] else "0.0.0.0:27015"


async def main(reactor: Any) -> None:
    # local socket = net.udp.bind("0.0.0.0:27015")
    # print("Game server listening on UDP 27015")
    socket = await udp.bind(WHERE)
    print("Game server listening on UDP", socket.address)

    # while true do
    #     local result = socket:recvFrom(512)
    #     local packet = result.data
    #     local client = result.address
    with suppress(ClosedError):  # it is closed when the program is stopped
        while True:
            result = await socket.recvFrom(512)
            packet = result.data
            client = result.address
            print("Packet:", packet)

            # -- Process packet and send response
            # socket:sendTo("ACK", client)
            await socket.sendTo(b"ACK", client)
            # end


react(main)
