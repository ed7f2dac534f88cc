"""A client in the manner of Evo's TcpClient, for ``evo_server.py``.

``python evo_client.py ADDRESS NAME`` prints what the others say, until the server ends; with further arguments it says
those, each a line, and ends.
"""

from __future__ import annotations

import sys

from twisted.internet.task import react

from twisted_net import NetError, net


async def main(reactor: object, where: str, name: str, *lines: str) -> None:
    # "Instead of dealing with callbacks and session management yourself, you can simply connect to a given server, send
    # and receive data, or register event handlers for common socket events."
    client = net.connect(where)
    client.write(f"{name}\n")
    for line in lines:
        client.write(f"{line}\n")
    if lines:
        client.end()

    @client.on("data")
    def received(data: bytes) -> None:
        print(data.decode(), end="")

    client.on("end", lambda: print("the server has ended"))

    @client.on("error")
    def failed(error: NetError) -> None:
        print("error:", error)

    await client.whenClosed()


if __name__ == "__main__":
    react(main, sys.argv[1:])
