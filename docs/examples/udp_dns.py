"""A small name server: it knows the addresses of a few names, and of nothing else (RFC 1035).

``python udp_dns.py 127.0.0.1:5353 host.test=192.0.2.1 host.test=2001:db8::1``, and then ``dig @127.0.0.1 -p 5353
host.test AAAA``. It serves until it is stopped.
"""

from __future__ import annotations

import ipaddress
import struct
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from twisted.internet.task import react

from twisted_net import udp

Names = dict[str, list[ipaddress.IPv4Address | ipaddress.IPv6Address]]

HEADER = struct.Struct("!6H")  # number, flags, and how many questions, answers, authorities, additional records
QUESTION = struct.Struct("!2H")  # type and class
RECORD = struct.Struct("!3HIH")  # name, type, class, seconds to live, length

RESPONSE, AUTHORITATIVE, OPCODE, RECURSION_DESIRED = 0x8000, 0x0400, 0x7800, 0x0100
FORMAT_ERROR, NAME_ERROR, NOT_IMPLEMENTED = 1, 3, 4
TYPES = {4: 1, 6: 28}  # A (RFC 1035), AAAA (RFC 3596)
INTERNET = 1
ASKED_NAME = 0xC00C  # a pointer to the name in the question


def answer(query: bytes, names: Mapping[str, list[Any]]) -> bytes | None:
    """The response to *query*; None for what is no query."""
    if len(query) < HEADER.size:
        return None
    number, flags, questions, *_ = HEADER.unpack_from(query)
    if flags & RESPONSE:
        return None
    said = RESPONSE | AUTHORITATIVE | flags & (OPCODE | RECURSION_DESIRED)
    if flags & OPCODE:
        return HEADER.pack(number, said | NOT_IMPLEMENTED, 0, 0, 0, 0)
    try:
        name, end = readName(query, HEADER.size)
        kind, network = QUESTION.unpack_from(query, end)
    except (IndexError, UnicodeDecodeError, struct.error):
        questions = 0
    if questions != 1:
        return HEADER.pack(number, said | FORMAT_ERROR, 0, 0, 0, 0)
    question = query[HEADER.size : end + QUESTION.size]
    if name not in names:
        return HEADER.pack(number, said | NAME_ERROR, 1, 0, 0, 0) + question
    found = [one.packed for one in names[name] if network == INTERNET and kind == TYPES[one.version]]
    records = [RECORD.pack(ASKED_NAME, kind, network, 60, len(one)) + one for one in found]
    return HEADER.pack(number, said, 1, len(records), 0, 0) + question + b"".join(records)


def readName(query: bytes, place: int) -> tuple[str, int]:
    """The name that begins there, in lower case, and where it ends."""
    labels = []
    while length := query[place]:
        labels.append(query[place + 1 : place + 1 + length].decode("ascii").lower())
        place += 1 + length
    return ".".join(labels), place + 1


def readNames(texts: Iterable[str]) -> Names:
    """The names of the command line."""
    names: Names = {}
    for text in texts:
        name, _, address = text.partition("=")
        names.setdefault(name.lower(), []).append(ipaddress.ip_address(address))
    return names


async def main(reactor: Any, where: str, *texts: str) -> None:
    names = readNames(texts)
    async with await udp.bind(where) as socket:
        print("answering on", socket.address)
        async for packet in socket:
            response = answer(packet.data, names)
            if response is not None:
                await socket.sendTo(response, packet.address)


if __name__ == "__main__":
    react(main, sys.argv[1:])
