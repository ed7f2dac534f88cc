"""A client and a server on a bad network: the forwarder between them is told what becomes of bytes.

Each line says what the client got of 1000 bytes that the server echoes. The same seed gives the same lines.
"""

from __future__ import annotations

import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from twisted_net import streams
from twisted_net.address import Address
from twisted_net.errors import NetError
from twisted_net.forward import Forwarder
from twisted_net.sansio.faults import Faults

SEED = int(sys.argv[1]) if sys.argv[1:] else 7

ROADS = [
    "",  # a good one
    "latency:delay=50ms,jitter=10ms; slicer:size=100",  # all arrives, later and in slices
    "limit_data:bytes=250",  # an end in good order, but too early
    "reset_peer:at=400",  # a reset, at exactly this byte
    "refuse:first=1",  # the first attempt to connect
]


async def echo(stream: streams.Stream) -> None:
    async for chunk in stream:
        await stream.write(chunk)


async def ask(address: str) -> str:
    """How a conversation of 1000 bytes goes."""
    got = 0
    try:
        async with await streams.connect(address) as stream:
            stream.setTimeout(20)
            await stream.write(b"x" * 1000)
            while got < 1000:
                chunk = await stream.read()
                if not chunk:
                    return f"{got} bytes and the end"
                got += len(chunk)
    except NetError as error:
        return f"{got} bytes and {error.code}"
    return f"{got} bytes"


async def main(reactor: Any) -> None:
    listener = await streams.listen("127.0.0.1:0")
    serving = Deferred.fromCoroutine(listener.serve(echo))
    for road in ROADS:
        forwarder = Forwarder([str(listener.address)], faultsDownstream=Faults.parse(road), seed=SEED)
        port: Any = await forwarder.listen("127.0.0.1:0")
        address = str(Address.fromTwisted(port.getHost()))
        print(f"{road or 'nothing'}: {await ask(address)}")
        await forwarder.close()
    await listener.close()
    await serving


react(main)
