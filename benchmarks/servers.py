"""The servers that benchmarks measure, each in a process of its own: ours, Twisted's, and those of others.

``start(name, scene)`` runs one. Scenes:

========  =============================================================================================
``echo``  TCP; what comes goes back
``eight`` the same, in pieces of 8 bytes, each a write of its own
``tls``   the same as ``echo``, over TLS
``udp``   each datagram goes back
``page``  a static page of ``twisted.web``'s
========  =============================================================================================

A server prints its port. For each line that it is given it collects its garbage and prints how many Python calls its
thread has made (0 where they are not counted); it ends with its standard input. It runs by itself, too::

    python benchmarks/servers.py "net.Socket on epoll" echo
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import resource
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NamedTuple, Self

import compiler

PIECE = 8
BACKLOG = 511
CHUNK = 65536
PATIENCE = 60.0
PAGE = b"<!DOCTYPE html><title>A page</title><p>It never changes.</p>\n" * 16


class Task(NamedTuple):
    """What a server of this process is to do."""

    scene: str
    certificate: str | None
    """A PEM file with a key and its certificate."""
    counted: bool
    """Whether its Python calls are."""


class Count:
    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            self.calls += 1


def ready(task: Task, port: int) -> None:
    """Say on which port, answer lines (in a thread, which costs nothing while nobody asks), and count from now on."""
    count = Count()

    def answer() -> None:
        for _ in sys.stdin:
            gc.collect()
            print(count.calls, flush=True)
        os._exit(0)

    threading.Thread(target=answer, daemon=True).start()
    print(port, flush=True)
    if task.counted:
        sys.setprofile(count)


# -- Twisted's reactors, and what runs on them


def install(name: str) -> Any:
    """The reactor *name*, which becomes the global one."""
    from twisted.internet import asyncioreactor, epollreactor

    if name == "epoll":
        epollreactor.install()
    elif name == "asyncioreactor":
        asyncioreactor.install()
    elif name == "asyncioreactor+uvloop":
        import uvloop

        asyncioreactor.install(uvloop.new_event_loop())
    else:
        from twisted_net import uvreactor

        uvreactor.install()
    from twisted.internet import reactor

    return reactor


def onReactor(name: str, serve: Callable[[Any, Task], object]) -> Callable[[Task], None]:
    def run(task: Task) -> None:
        reactor = install(name)
        reactor.callWhenRunning(serve, reactor, task)
        reactor.run()

    return run


def endpoint(reactor: Any, certificate: str) -> Any:
    """A TLS endpoint."""
    from twisted.internet.endpoints import serverFromString

    text = f"ssl:0:interface=127.0.0.1:backlog={BACKLOG}:privateKey={certificate}:certKey={certificate}"
    return serverFromString(reactor, text)


def bare(reactor: Any, task: Task) -> None:
    from twisted.internet.protocol import Factory, Protocol

    class Echo(Protocol):
        def dataReceived(self, data: bytes) -> None:
            assert self.transport is not None
            self.transport.write(data)

    class Eight(Protocol):
        def dataReceived(self, data: bytes) -> None:
            assert self.transport is not None
            for offset in range(0, len(data), PIECE):
                self.transport.write(data[offset : offset + PIECE])

    factory = Factory.forProtocol(Eight if task.scene == "eight" else Echo)
    factory.noisy = False
    if task.scene == "tls":
        assert task.certificate is not None
        listening = endpoint(reactor, task.certificate).listen(factory)
        listening.addCallback(lambda port: ready(task, port.getHost().port))
    else:
        ready(task, reactor.listenTCP(0, factory, BACKLOG, "127.0.0.1").getHost().port)


def ignore(error: Exception) -> None:
    """Clients reset connections."""


def netSockets(reactor: Any, task: Task) -> None:
    from twisted_net import net

    def echo(client: net.Socket) -> None:
        client.on("data", lambda data: client.write(data))
        client.on("error", ignore)

    def eight(client: net.Socket) -> None:
        def write(data: bytes) -> None:
            for offset in range(0, len(data), PIECE):
                client.write(data[offset : offset + PIECE])

        client.on("data", write)
        client.on("error", ignore)

    server = net.createServer(eight if task.scene == "eight" else echo)
    server.on("listening", lambda: ready(task, server.address().port))  # type: ignore[union-attr, arg-type]
    if task.scene == "tls":
        assert task.certificate is not None
        server.listen(endpoint(reactor, task.certificate))
    else:
        server.listen(0, "127.0.0.1", BACKLOG)


def ourStreams(reactor: Any, task: Task) -> None:
    from twisted.internet.defer import Deferred

    from twisted_net import streams
    from twisted_net.errors import NetError

    async def echo(stream: streams.Stream) -> None:
        try:
            while data := await stream.read():
                await stream.write(data)
        except NetError:
            """Clients reset connections."""

    async def eight(stream: streams.Stream) -> None:
        try:
            while data := await stream.read():
                for offset in range(0, len(data), PIECE):
                    await stream.write(data[offset : offset + PIECE])
        except NetError:
            """As above."""

    async def serve() -> None:
        listener = await streams.listen("127.0.0.1:0", backlog=BACKLOG)
        ready(task, listener.address.port or 0)
        await listener.serve(eight if task.scene == "eight" else echo)

    Deferred.fromCoroutine(serve())


def page(reactor: Any, task: Task) -> None:
    from twisted.web.server import Site
    from twisted.web.static import Data

    root: Any = Data(PAGE, "text/html")
    root.isLeaf = True
    site: Any = Site(root)
    site.log = lambda request: None  # an access log would cost the same on every reactor
    site.noisy = False
    ready(task, reactor.listenTCP(0, site, BACKLOG, "127.0.0.1").getHost().port)


def bareDatagrams(reactor: Any, task: Task) -> None:
    from twisted.internet.protocol import DatagramProtocol

    class Echo(DatagramProtocol):
        noisy = False

        def datagramReceived(self, datagram: bytes, addr: Any) -> None:
            self.transport.write(datagram, addr)  # type: ignore[union-attr]

    ready(task, reactor.listenUDP(0, Echo(), interface="127.0.0.1").getHost().port)


def datagramEvents(reactor: Any, task: Task) -> None:
    from twisted_net import udp

    server = udp.createSocket("udp4")
    server.on("message", server.send)
    server.bind(0, "127.0.0.1", lambda: ready(task, server.address().port))  # type: ignore[union-attr, arg-type]


running: set[asyncio.Task[None]] = set()
"""The loop itself holds its tasks weakly."""


async def awaitDatagrams(reactor: Any, task: Task) -> None:
    from twisted_net import udp

    server = await udp.bind("127.0.0.1:0", reactor=reactor)
    ready(task, server.address.port or 0)
    while True:
        packet = await server.recvFrom()
        await server.sendTo(packet.data, packet.address)


def datagramCoroutine(reactor: Any, task: Task) -> None:
    """In a coroutine that Twisted runs."""
    from twisted.internet.defer import Deferred

    Deferred.fromCoroutine(awaitDatagrams(reactor, task))


def datagramTask(reactor: Any, task: Task) -> None:
    """In a task of asyncio's."""
    running.add(asyncio.get_event_loop().create_task(awaitDatagrams(reactor, task)))


# -- asyncio


def onLoop(name: str, serve: Callable[[Task], Awaitable[None]]) -> Callable[[Task], None]:
    async def forever(task: Task) -> None:
        await serve(task)
        await asyncio.Event().wait()

    def run(task: Task) -> None:
        logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of writing to clients that have gone
        factory: Callable[[], asyncio.AbstractEventLoop] | None = None
        if name == "uvloop":
            import uvloop

            factory = uvloop.new_event_loop
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(forever(task))

    return run


def context(task: Task) -> ssl.SSLContext | None:
    if task.certificate is None:
        return None
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(task.certificate)
    return made


async def asyncioProtocol(task: Task) -> None:
    class Echo(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            self.transport = transport

        def data_received(self, data: bytes) -> None:
            self.transport.write(data)

    class Eight(Echo):
        def data_received(self, data: bytes) -> None:
            for offset in range(0, len(data), PIECE):
                self.transport.write(data[offset : offset + PIECE])

    protocol = Eight if task.scene == "eight" else Echo
    loop = asyncio.get_running_loop()
    server = await loop.create_server(protocol, "127.0.0.1", 0, backlog=BACKLOG, ssl=context(task))
    ready(task, server.sockets[0].getsockname()[1])


async def asyncioStreams(task: Task) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK):
                writer.write(data)
                await writer.drain()
        except ConnectionError:
            """Clients reset connections."""
        finally:
            writer.close()

    async def eight(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK):
                for offset in range(0, len(data), PIECE):
                    writer.write(data[offset : offset + PIECE])
                await writer.drain()
        except ConnectionError:
            """As above."""
        finally:
            writer.close()

    server = await asyncio.start_server(
        eight if task.scene == "eight" else echo, "127.0.0.1", 0, backlog=BACKLOG, ssl=context(task)
    )
    ready(task, server.sockets[0].getsockname()[1])


async def asyncioDatagrams(task: Task) -> None:
    class Echo(asyncio.DatagramProtocol):
        transport: asyncio.DatagramTransport

        def connection_made(self, transport: Any) -> None:
            self.transport = transport
            ready(task, transport.get_extra_info("sockname")[1])

        def datagram_received(self, data: bytes, addr: Any) -> None:
            self.transport.sendto(data, addr)

    await asyncio.get_running_loop().create_datagram_endpoint(Echo, ("127.0.0.1", 0))


# -- trio


def trioStreams(task: Task) -> None:
    import trio

    async def echo(stream: trio.SocketStream) -> None:
        try:
            while data := await stream.receive_some(CHUNK):
                await stream.send_all(data)
        except trio.BrokenResourceError:
            """Clients reset connections."""

    async def eight(stream: trio.SocketStream) -> None:
        try:
            while data := await stream.receive_some(CHUNK):
                for offset in range(0, len(data), PIECE):
                    await stream.send_all(data[offset : offset + PIECE])
        except trio.BrokenResourceError:
            """As above."""

    async def serve() -> None:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=BACKLOG)
        ready(task, listeners[0].socket.getsockname()[1])
        await trio.serve_listeners(eight if task.scene == "eight" else echo, listeners)

    trio.run(serve)


# -- all of them


class Peer(NamedTuple):
    """A server that can be started."""

    scenes: tuple[str, ...]
    needs: tuple[str, ...] = ()
    """Packages and programs: see `figures.present`."""
    serve: Callable[[Task], None] | None = None
    """For those in Python: runs for ever."""
    program: Callable[[], list[str]] | None = None
    """For the others: what to run."""


TCP = ("echo", "eight")
TLS = (*TCP, "tls")
STREAMS = {
    "twisted Protocol on epoll": Peer(TLS, serve=onReactor("epoll", bare)),
    "twisted Protocol on asyncioreactor+uvloop": Peer(TCP, ("uvloop",), onReactor("asyncioreactor+uvloop", bare)),
    "twisted Protocol on uvloop": Peer(TLS, ("uvloop",), onReactor("uvloop", bare)),
    "net.Socket on epoll": Peer(TLS, serve=onReactor("epoll", netSockets)),
    "net.Socket on uvloop": Peer(TLS, ("uvloop",), onReactor("uvloop", netSockets)),
    "streams.Stream on epoll": Peer(TCP, serve=onReactor("epoll", ourStreams)),
    "streams.Stream on uvloop": Peer(TCP, ("uvloop",), onReactor("uvloop", ourStreams)),
    "asyncio Protocol": Peer(TCP, serve=onLoop("asyncio", asyncioProtocol)),
    "asyncio Protocol on uvloop": Peer(TLS, ("uvloop",), onLoop("uvloop", asyncioProtocol)),
    "asyncio streams": Peer(TCP, serve=onLoop("asyncio", asyncioStreams)),
    "asyncio streams on uvloop": Peer(TCP, ("uvloop",), onLoop("uvloop", asyncioStreams)),
    "trio": Peer(TCP, ("trio",), trioStreams),
    "Node": Peer(
        (*TLS, "udp"),
        ("node",),
        program=lambda: ["node", "--expose-gc", str(Path(__file__).with_name("echo.js"))],
    ),
    "C": Peer(TCP, ("gcc", "libc6-dev"), program=lambda: [compiler.program("echo")]),
}
UDP = ("udp",)
DATAGRAMS = {
    "twisted DatagramProtocol on epoll": Peer(UDP, serve=onReactor("epoll", bareDatagrams)),
    "twisted DatagramProtocol on asyncioreactor": Peer(UDP, serve=onReactor("asyncioreactor", bareDatagrams)),
    "twisted DatagramProtocol on uvloop": Peer(UDP, ("uvloop",), onReactor("uvloop", bareDatagrams)),
    "udp events on epoll": Peer(UDP, serve=onReactor("epoll", datagramEvents)),
    "udp events on asyncioreactor": Peer(UDP, serve=onReactor("asyncioreactor", datagramEvents)),
    "udp events on uvloop": Peer(UDP, ("uvloop",), onReactor("uvloop", datagramEvents)),
    "udp coroutine on epoll": Peer(UDP, serve=onReactor("epoll", datagramCoroutine)),
    "udp coroutine on asyncioreactor": Peer(UDP, serve=onReactor("asyncioreactor", datagramCoroutine)),
    "udp coroutine on uvloop": Peer(UDP, ("uvloop",), onReactor("uvloop", datagramCoroutine)),
    "udp task on asyncioreactor": Peer(UDP, serve=onReactor("asyncioreactor", datagramTask)),
    "asyncio DatagramProtocol": Peer(UDP, serve=onLoop("asyncio", asyncioDatagrams)),
    "asyncio DatagramProtocol on uvloop": Peer(UDP, ("uvloop",), onLoop("uvloop", asyncioDatagrams)),
}
PAGES = {
    f"twisted.web on {name}": Peer(("page",), ("uvloop",) if "uvloop" in name else (), onReactor(name, page))
    for name in ("epoll", "asyncioreactor+uvloop", "uvloop")
}
PEERS: Mapping[str, Peer] = {**STREAMS, **DATAGRAMS, **PAGES}


class Server:
    """A server's process, which starts at once. As a context manager it listens in the block, and ends with it.

    :raises RuntimeError: on entering: it does not listen.
    """

    port = 0

    def __init__(self, name: str, command: list[str]) -> None:
        self.name = name
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        try:
            self.port = self._line()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.stop()

    def _line(self) -> int:
        assert self._process.stdout is not None
        late = threading.Timer(PATIENCE, self._process.kill)
        late.start()
        line = self._process.stdout.readline()
        late.cancel()
        if not line:
            raise RuntimeError(f"{self.name} has ended, or was ended after {PATIENCE} s: {self._process.wait()}")
        return int(line)

    def ask(self) -> int:
        """Have it collect its garbage; its Python calls until now, if they are counted."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._line()

    def pin(self, core: int) -> None:
        """Have all its threads run on *core* alone."""
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})

    def cpu(self) -> float:
        """Seconds of CPU that it has used, in the kernel and outside: what ``clock_getcpuclockid`` (3) leads to."""
        return time.clock_gettime(~self.pid << 3 | 2)

    def memory(self) -> int:
        """Resident bytes, without garbage."""
        self.ask()
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) * 1024

    def descriptors(self) -> int:
        """How many it has open."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def stop(self) -> None:
        """End it, if it has not ended."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def start(name: str, scene: str, certificate: str | None = None, *, count: bool = False) -> Server:
    """Start one of `PEERS`.

    :param certificate: for the scene ``tls``: a PEM file with a key and its certificate.
    :param count: count its Python calls, which makes it slow.
    :raises RuntimeError: it cannot be compiled.
    """
    peer = PEERS[name]
    given = [] if certificate is None else [certificate]
    if peer.program is not None:
        return Server(name, [*peer.program(), scene, *given])
    return Server(name, [sys.executable, __file__, name, scene, *given, *(["--count"] if count else [])])


def moreDescriptors() -> int:
    """Raise this process' and its children's limit of open files as far as it goes; how far that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def main() -> None:
    parser = argparse.ArgumentParser(description="Run one server.")
    parser.add_argument("name", choices=[name for name, peer in PEERS.items() if peer.serve])
    parser.add_argument("scene", choices=["echo", "eight", "tls", "udp", "page"])
    parser.add_argument("certificate", nargs="?", help="for tls: a PEM file with a key and its certificate")
    parser.add_argument("--count", action="store_true", help="count Python calls")
    options = parser.parse_args()
    serve = PEERS[options.name].serve
    assert serve is not None
    serve(Task(options.scene, options.certificate, options.count))


if __name__ == "__main__":
    main()
