"""Echoes 20 MB through ``socket.pipe(socket)`` to a slow reader; prints the bytes that came back, and the KiB by which
this process has grown meanwhile at most. Argument: a path to listen on, or nothing for TCP."""

from __future__ import annotations

import resource
import socket
import sys
import threading
import time
from typing import Any

from twisted.internet import reactor as globalReactor

from twisted_net import net

SIZE = 20_000_000
BLOCK = bytes(range(256)) * 256

reactor: Any = globalReactor


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def send(peer: socket.socket) -> None:
    left = SIZE
    while left:
        left -= peer.send(BLOCK[(SIZE - left) % 256 :][:left])
    peer.shutdown(socket.SHUT_WR)


def read(where: Any) -> None:
    with socket.socket(socket.AF_UNIX if isinstance(where, str) else socket.AF_INET) as peer:
        peer.connect(where)
        before = peak()
        sender = threading.Thread(target=send, args=(peer,))
        sender.start()
        got = 0
        while data := peer.recv(65536):
            assert data == (BLOCK * 2)[got % 256 :][: len(data)]
            got += len(data)
            if got < SIZE // 20:
                time.sleep(0.005)  # slow to begin with: everything in between fills up
        sender.join()
        print(got, peak() - before, flush=True)
    reactor.callFromThread(server.close)


def listening() -> None:
    address = server.address()
    assert address is not None
    where = address.address if address.port is None else (address.address, address.port)
    threading.Thread(target=read, args=(where,)).start()


server = net.createServer(lambda one: one.pipe(one))
server.on("close", reactor.stop)
server.listen({"path": sys.argv[1]} if sys.argv[1:] else {"port": 0, "host": "127.0.0.1"}, listening)
reactor.run()
