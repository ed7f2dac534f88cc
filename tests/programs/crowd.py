"""Many clients of a Redis server at once: ``crowd.py COUNT HOST PORT``.

Each connects and asks three times for an echo of its own. When all of them are there the program says ``COUNT at once``
and waits for a line; then each asks once more, and goes. Whoever hears something else than its own words ends the
program with a traceback.
"""

from __future__ import annotations

import asyncio
import resource
import sys

HASTE = 100
"""How many connect at the same time: no more than any backlog has room for."""


async def asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, words: bytes) -> None:
    writer.write(b"*2\r\n$4\r\nECHO\r\n$%d\r\n%s\r\n" % (len(words), words))
    expected = b"$%d\r\n%s\r\n" % (len(words), words)
    found = await reader.readexactly(len(expected))
    assert found == expected, (found, expected)


async def client(
    number: int, host: str, port: int, door: asyncio.Semaphore, here: asyncio.Barrier, go: asyncio.Event
) -> None:
    async with door:
        reader, writer = await asyncio.open_connection(host, port)
        for time in range(3):
            await asked(reader, writer, b"client %d, time %d" % (number, time))
    await here.wait()
    await go.wait()
    await asked(reader, writer, b"client %d leaves" % number)
    writer.close()
    await writer.wait_closed()


async def main(count: int, host: str, port: int) -> None:
    door, here, go = asyncio.Semaphore(HASTE), asyncio.Barrier(count + 1), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(client(number, host, port, door, here, go))
        await here.wait()
        print(count, "at once", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        go.set()


hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
asyncio.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3])))
