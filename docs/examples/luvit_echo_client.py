"""Luvit's client of the echo server, line by line; the manual's own lines stand above ours.

``python luvit_echo_client.py`` connects to port 8124 of this machine, as in the manual; ``python luvit_echo_client.py
/tmp/echo.sock`` to that path. It sends one line, prints what comes back, and ends.
"""

from __future__ import annotations

import sys

from twisted.internet import reactor

# local net = require 'net'
from twisted_net import net

WHERE = sys.argv[1] if sys.argv[1:] else "8124"


# local client = net.connect(8124, function ()
# To connect on the socket /tmp/echo.sock the second line would just be changed to
# local client = net.connect('/tmp/echo.sock', function ()
def connected() -> None:
    print("client connected")
    client.write("world!\r\n")


client = net.connect(WHERE, connected)


# client:on('data', function (data)
#   debug('on_data', data)
@client.on("data")
def received(data: bytes) -> None:
    print("on_data", data)
    client.finish()


# client:on('end', function ()
client.on("end", lambda: print("client disconnected"))

client.on("error", lambda error: print("error", error.code))
client.on("close", lambda hadError: reactor.stop())
reactor.run()
