"""An echo server of coroutines, run by Twisted on any reactor.

``python streams_echo.py [ADDRESS]``; Ctrl-C ends it.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.task import react

from twisted_net import streams

WHERE = sys.argv[1] if sys.argv[1:] else "127.0.0.1:8124"


async def echo(stream: streams.Stream) -> None:
    print("a client has come")
    async for chunk in stream:
        await stream.write(chunk)
    print("a client has gone")


async def main(reactor: Any) -> None:
    async with await streams.listen(WHERE) as listener:
        print("listening on", listener.address)
        await listener.serve(echo)


react(main)
