"""What Luvit's manual does about an address that is in use, and the same built in; the manual's own lines stand above
ours.

``python luvit_retry.py 127.0.0.1:8124`` waits a second and listens again, as in the manual; ``python luvit_retry.py
127.0.0.1:8124 backoff`` leaves that to the server. A third argument is the wait in milliseconds. It ends when it has
got the address.
"""

from __future__ import annotations

import sys

from twisted.internet import reactor

from twisted_net import NetError, net

WHERE, WAY, WAIT = (*sys.argv[1:], *("127.0.0.1:8124", "timer", "1000")[len(sys.argv) - 1 :])

server = net.createServer()


def asInTheManual() -> None:
    # server:on('error', function (e)
    #   if e.code == 'EADDRINUSE' then
    #     print('Address in use, retrying...')
    #     timer.setTimeout(1000, function ()
    #       server:listen(PORT, HOST)
    @server.on("error")
    def failed(e: NetError) -> None:
        if e.code == "EADDRINUSE":
            print("Address in use, retrying...")
            reactor.callLater(float(WAIT) / 1000, server.listen, WHERE)

    server.listen(WHERE)


def builtIn() -> None:
    # Each wait is twice as long as the last, but never longer than a minute; after twenty attempts there is 'error'.
    backoff = net.Backoff(initial=float(WAIT) / 1000, factor=2, maximum=60, jitter=0, attempts=20)

    @server.on("retry")
    def retry(error: NetError, attempt: int, delay: float) -> None:
        print(f"attempt {attempt}: {error.code}, again in {delay:g} s")

    @server.on("error")
    def failed(error: NetError) -> None:
        print("given up:", error.code)
        reactor.stop()

    server.listen(WHERE, retry=backoff)


@server.on("listening")
def bound() -> None:
    print("server bound")
    server.close()


server.on("close", reactor.stop)

if WAY == "timer":
    asInTheManual()
else:
    builtIn()
reactor.run()
