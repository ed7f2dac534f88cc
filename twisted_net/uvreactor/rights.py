"""
The transport behind a UNIX stream whose protocol receives descriptors.

libuv reads a UNIX socket without asking for ancillary data, and the kernel closes the descriptors that came with it.
So a stream whose protocol provides ``IFileDescriptorReceiver`` is not given to uvloop, but to this: the same methods,
as far as a stream calls them, by recvmsg(2) and send(2). To the stream above there is no difference.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from twisted.python import log

if TYPE_CHECKING:
    from twisted_net.uvreactor.unix import UnixStream

__all__ = ["ReceivingTransport"]

READ_SIZE: Final = 65536
#: Descriptors in one message at most (unix(7): SCM_MAX_FD).
MOST_DESCRIPTORS: Final = 253
INT: Final = struct.calcsize("i")


class ReceivingTransport:
    """
    Moves bytes and descriptors between a socket and a stream.

    :param stream: told as uvloop tells a protocol, and given descriptors by its ``descriptorReceived``.
    """

    def __init__(self, stream: UnixStream, skt: Any) -> None:
        skt.setblocking(False)
        self._stream = stream
        self._reactor: Any = stream.reactor
        self._socket = skt
        self._unsent = bytearray()
        self._closing = False
        self._reading = False
        # What the reactor's watcher asks.
        self.fileno = skt.fileno
        self.logPrefix = stream.logPrefix
        self._reactor.soon(self._begin)

    def _begin(self) -> None:
        self._stream.connection_made(self)
        if self._stream.isReading:
            self.resume_reading()

    # -- what a stream calls, as of uvloop's transport

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        """They are (0, 0)."""

    def set_protocol(self, protocol: object) -> None:
        """It is the stream, whose method is looked up each time."""

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._closing

    def get_write_buffer_size(self) -> int:
        """Bytes that the kernel has not taken."""
        return len(self._unsent)

    def pause_reading(self) -> None:
        """Take nothing from the kernel."""
        if self._reading:
            self._reading = False
            self._reactor.removeReader(self)

    def resume_reading(self) -> None:
        """Take bytes from the kernel."""
        if not self._reading and not self._closing:
            self._reading = True
            self._reactor.addReader(self)

    def writelines(self, chunks: Any) -> None:
        """As :meth:`write`."""
        self.write(b"".join(chunks))

    def write(self, data: bytes) -> None:
        """Send ``data``; what the kernel does not take follows."""
        if self._closing or not data:
            return
        if self._unsent:
            self._unsent += data
            return
        sent = self._send(data)
        if sent < len(data) and not self._closing:
            self._unsent += data[sent:]
            self._stream.pause_writing()
            self._reactor.addWriter(self)

    def _send(self, data: bytes | bytearray) -> int:
        try:
            return self._socket.send(data)  # type: ignore[no-any-return]
        except BlockingIOError:
            return 0
        except OSError as failed:
            self._end(failed)
            return 0

    def abort(self) -> None:
        """Close."""
        self._end(None)

    def _end(self, failed: OSError | None) -> None:
        if self._closing:
            return
        self.pause_reading()
        self._reactor.removeWriter(self)
        self._closing = True
        self._unsent.clear()
        self._reactor.soon(self._close, failed)

    def _close(self, failed: OSError | None) -> None:
        self._stream.connection_lost(failed)
        self._socket.guard = None
        self._socket.close()

    # -- what the watcher calls

    def doWrite(self) -> None:
        """The kernel has room."""
        del self._unsent[: self._send(self._unsent)]
        if not self._unsent:
            self._reactor.removeWriter(self)
            if not self._closing:
                self._stream.resume_writing()

    def doRead(self) -> None:
        """Something has come."""
        try:
            data, ancillary, _, _ = self._socket.recvmsg(READ_SIZE, socket.CMSG_SPACE(MOST_DESCRIPTORS * INT))
        except BlockingIOError:
            return
        except OSError as failed:
            self._end(failed)
            return
        for level, kind, packed in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                for (descriptor,) in struct.iter_unpack("i", packed[: len(packed) // INT * INT]):
                    if self._closing:  # by whoever was given the one before
                        os.close(descriptor)
                        continue
                    os.set_inheritable(descriptor, False)
                    self._stream.descriptorReceived(descriptor)
            else:
                log.msg(f"ancillary data of level {level} and type {kind} is not supported, and dropped")
        if self._closing:
            return
        if data:
            self._stream.data_received(data)
        else:
            self.pause_reading()
            self._stream.eof_received()

    def connectionLost(self, reason: object) -> None:
        """The watcher gives it up, or the reactor is shutting down."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._end(None)
