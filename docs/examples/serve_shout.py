"""Says everything back in upper case: ``twistd -n --pidfile= net serve serve_shout:shout``."""

from twisted_net.streams import Stream


async def shout(stream: Stream) -> None:
    """One connection."""
    await stream.write(b"welcome\r\n")
    async for chunk in stream:
        await stream.write(chunk.upper())
