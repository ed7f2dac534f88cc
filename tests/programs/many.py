"""Opens, uses and closes 5,000 connections in batches; prints how many descriptors, timers and objects of ours and of
Twisted's have come to stay since the first batch, and how many connections there were. Argument: as ``echoed.py``."""

from __future__ import annotations

import gc
import os
import sys
from collections import Counter
from typing import Any

from twisted.internet import reactor as globalReactor
from twisted.internet.defer import Deferred, gatherResults

from twisted_net import net

BATCH, ROUNDS = 250, 20

reactor: Any = globalReactor


def census() -> tuple[int, int, Counter[str]]:
    gc.collect()
    kinds = (type(one) for one in gc.get_objects())
    objects = Counter(kind.__qualname__ for kind in kinds if str(kind.__module__).partition(".")[0] in HOUSES)
    return len(os.listdir("/proc/self/fd")), len(reactor.getDelayedCalls()), objects


HOUSES = ("twisted", "twisted_net")


async def use(where: dict[str, Any]) -> None:
    client = net.connect(where)
    client.setTimeout(60_000)
    client.on("data", lambda data: client.end())
    client.write("hello")
    assert await client.whenClosed() is False


def turn() -> Deferred[None]:
    done: Deferred[None] = Deferred()
    reactor.callLater(0, done.callback, None)
    return done


async def main() -> None:
    limits = net.Limits(idleTimeout=60, perPeer=BATCH, readRate=1_000_000)
    server = net.createServer(lambda one: one.pipe(one), limits=limits)
    server.listen({"path": sys.argv[1]} if sys.argv[1:] else {"port": 0, "host": "127.0.0.1"})
    await server.whenListening()
    address = server.address()
    assert address is not None
    where = {"path": address.address} if address.port is None else {"port": address.port, "host": "127.0.0.1"}
    before = None
    for _ in range(ROUNDS):
        await gatherResults([Deferred.fromCoroutine(use(where)) for _ in range(BATCH)])
        while server.connections:
            await turn()
        await turn()
        now = census()
        before = before or now  # the first round fills what is kept for good
    assert before is not None
    grown = now[2] - before[2]
    print(now[0] - before[0], now[1] - before[1], dict(grown), server.factory.counters["closed"])
    server.close()
    await server.whenClosed()


def begin() -> None:
    done = Deferred.fromCoroutine(main())
    done.addErrback(lambda failure: failure.printTraceback(sys.stderr))
    done.addBoth(lambda result: reactor.stop())


reactor.callWhenRunning(begin)
reactor.run()
