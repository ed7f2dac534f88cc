"""The server and the client of Mongoose's manual, line by line; the manual's own lines stand above ours.

``python mongoose_pair.py`` uses port 19000, as in the manual; ``python mongoose_pair.py 0`` any free one. It prints
what the manual's program prints, and ends with its client, where the manual's serves on.
"""

from __future__ import annotations

import sys

from twisted.internet import reactor

from twisted_net import net as tcp

PORT = int(sys.argv[1]) if sys.argv[1:] else 19000


# var server = tcp.createServer({}, function(sock) {
#   print("New incoming conenction");
#   sock.on("data", function(data) {
#     print("New data received", data);
#     sock.write(data, null, function() {
#       print("Data sent back");
#     });
#     sock.end();
#   });
# });
def incoming(sock: tcp.Socket) -> None:
    print("New incoming conenction")

    @sock.on("data")
    def received(data: bytes) -> None:
        print("New data received", data.decode())
        sock.write(data, None, lambda error: print("Data sent back"))
        sock.end()


server = tcp.createServer({}, incoming)


# server.listen(19000, "127.0.0.1", 0, function() {
#   print("Started to listen");
# });
def started() -> None:
    print("Started to listen")
    connect()  # the manual connects at once; here it may take this to know the port


server.listen(PORT, "127.0.0.1", 0, started)


def connect() -> None:
    address = server.address()
    assert address is not None

    # var client = tcp.connect(19000, "127.0.0.1", function() {
    #   print("Client connected");
    #   client.write("Hello");
    # });
    def connected() -> None:
        print("Client connected")
        client.write("Hello")

    client = tcp.connect(address.port, "127.0.0.1", connected)

    # client.on("close", function() {
    #   print("Client socket is closed");
    # });
    @client.on("close")
    def closed(hadError: bool) -> None:
        print("Client socket is closed")
        server.close()

    # client.on("data", function(data) {
    #   print("Client received new data", data);
    #   client.end();
    # });
    @client.on("data")
    def received(data: bytes) -> None:
        print("Client received new data", data.decode())
        client.end()


server.on("close", reactor.stop)
reactor.run()
