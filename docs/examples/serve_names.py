"""Datagrams, in upper case, back to whoever sent them: ``twistd -n --pidfile= net serve --listen udp::5353
serve_names:answer``, or ``serve_names:answerAll``."""

from twisted_net.udp import Address, DatagramSocket, UdpSocket


def answer(data: bytes, address: Address, socket: DatagramSocket) -> None:
    """One datagram."""
    socket.send(data.upper(), address)


async def answerAll(socket: UdpSocket) -> None:
    """Every datagram of one socket."""
    async for packet in socket:
        await socket.sendTo(packet.data.upper(), packet.address)
