"""The same echo server, run by asyncio: next to whatever else runs in its loop.

``python streams_echo_asyncio.py [ADDRESS]``; Ctrl-C ends it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine
from typing import Any

from twisted.internet import asyncioreactor

from twisted_net import streams

WHERE = sys.argv[1] if sys.argv[1:] else "127.0.0.1:8124"


async def echo(stream: streams.Stream) -> None:
    print("a client has come, in", type(asyncio.current_task()).__name__)
    async for chunk in stream:
        await asyncio.wait_for(stream.write(chunk), 60)
    print("a client has gone")


async def main() -> None:
    async with await streams.listen(WHERE) as listener:
        print("listening on", listener.address)
        await listener.serve(echo)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner() as runner:  # which cancels what still runs at the end
        loop = runner.get_loop()
        asyncioreactor.install(loop)  # before anybody imports the reactor
        from twisted.internet import reactor

        task = loop.create_task(coroutine)

        def ended(task: asyncio.Task[None]) -> None:
            if reactor.running:
                reactor.stop()

        task.add_done_callback(ended)
        reactor.run()
        if task.done():
            task.result()  # why it could not go on


run(main())
