"""A server of the event face as a program of its own, for tests that break it from outside.

``python server.py REACTOR HANDLER OPTIONS``: REACTOR is a name that twistd knows, HANDLER a function below, OPTIONS a
JSON object: ``limits`` (keywords of Limits), ``descriptors`` (the soft limit of open files) and whatever createServer
takes.

Prints a line ``listening PORT``, then a line for each event; ends at end of input, after closing in good order.
"""

from __future__ import annotations

import json
import resource
import sys
from typing import Any

if __name__ == "__main__":
    from twisted.application.reactors import installReactor

    installReactor(sys.argv[1])

from twisted.internet import reactor as globalReactor
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.logger import globalLogBeginner, textFileLogObserver

from twisted_net import NetError, net

reactor: Any = globalReactor


def say(*words: object) -> None:
    print(*words, flush=True)


def echo(client: net.Socket) -> None:
    client.pipe(client)


def raising(client: net.Socket) -> None:
    """Echoes; the byte ``!`` makes the listener raise."""

    @client.on("data")
    def received(data: bytes) -> None:
        if b"!" in data:
            raise ValueError("a mistake in a listener")
        client.write(data)


def flood(client: net.Socket) -> None:
    """Echoes; a segment that begins with ``*`` is answered by 64 MiB."""

    @client.on("data")
    def received(data: bytes) -> None:
        client.write(bytes(64 * 1024 * 1024) if data.startswith(b"*") else data)


def memory(client: net.Socket) -> None:
    """Echoes through a pipe; ``?`` alone is answered by this process's resident memory in kB."""

    @client.on("data")
    def received(data: bytes) -> None:
        if data == b"?":
            with open("/proc/self/status", encoding="ascii") as status:
                line = next(line for line in status if line.startswith("VmRSS"))
            client.end(line.split()[1])
        elif not client.write(data):
            client.pause()
            client.once("drain", client.resume)


class UntilEndOfInput(Protocol):
    def connectionLost(self, reason: object = None) -> None:
        server.close(lambda: reactor.stop())
        for client in tuple(server.clients):
            client.destroy()


def started() -> None:
    address = server.address()
    assert address is not None
    say("listening", address.port)
    StandardIO(UntilEndOfInput())


options = json.loads(sys.argv[3])
limits = net.Limits(**options.pop("limits", {}))
descriptors = options.pop("descriptors", None)
globalLogBeginner.beginLoggingTo([textFileLogObserver(sys.stderr)], redirectStandardIO=False)
server = net.createServer({**options, "limits": limits}, globals()[sys.argv[2]])
server.on(
    "connection",
    lambda client: client.on(
        "error", lambda error: say("error", error.code if isinstance(error, NetError) else repr(error))
    ),
)
server.on("limit", lambda name, client, action: say("limit", name, action))
server.listen(0, "127.0.0.1", started)
if descriptors is not None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
reactor.run()
