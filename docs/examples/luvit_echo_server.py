"""Luvit's echo server, line by line; the manual's own lines stand above ours.

``python luvit_echo_server.py`` listens on port 8124, as in the manual; ``python luvit_echo_server.py /tmp/echo.sock``
on that path, ``python luvit_echo_server.py 127.0.0.1:0`` on any free port. It serves until it is interrupted; then who
is connected has five seconds to end.
"""

from __future__ import annotations

import sys

from twisted.internet import reactor

# local net = require('net')
from twisted_net import net

WHERE = sys.argv[1] if sys.argv[1:] else "8124"


# local server = net.createServer(function (c) { //'connection' listener
#   debug('server connected')
#   c:on('end', function ()
#     debug('client disconnected')
def connected(c: net.Socket) -> None:
    print("server connected")
    c.on("end", lambda: print("client disconnected"))
    c.pipe(c)  # the manual's page has lost the line that echoes


server = net.createServer(connected)


# server:listen(8124, function () {
#   print('server bound')
# To listen on the socket /tmp/echo.sock the third line from the last would just be changed to
# server:listen('/tmp/echo.sock', function (c) {
def bound() -> None:
    print("server bound")
    print("listening on", server.address())


server.listen(WHERE, bound)

reactor.addSystemEventTrigger("before", "shutdown", server.drain, 5)
reactor.run()
