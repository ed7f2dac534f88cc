"""The life of a connection, as a table.

A connection is two one-way streams that end on their own: TCP calls a connection *half-open* when one of them has ended
(RFC 9293, section 3.6).  So what a connection may still do is two bits, ``canRead`` and ``canWrite``, and *closed*
means that both are gone
**and** that the transport has said so.  Twisted's transports never add the two up: after the peer's FIN and our own
they wait for ``loseConnection`` for ever (twisted#5662), so whoever stands on them needs a book of their own.  This is
it.

Between the bits there are the states in which something is under way::

    IDLE --DIAL--> DIALLING --MADE--> OPEN ---PEER_END--> WRITE_ONLY
                      |                |                      |
                     END              END                    END
                      v                v                      v
                 DIALLING_TO_END    ENDING ---PEER_END--> LAST_WORDS
                      |                |                      |
                     MADE           END_SENT               END_SENT
                      v                v                      v
                   ENDING          READ_ONLY --PEER_END-->  ENDED --LOST--> CLOSED

``ENDING`` and ``LAST_WORDS`` are the time between "no more writes, please" and the FIN that follows the last byte
written: nothing may be written any more, and what was written is still on its way.  ``DROPPED`` is reached from every
living state by DROP: nobody wants the connection any more, whatever it carries; only the transport's word is awaited.
LOST leads from everywhere to CLOSED, and a closed connection may be dialled again (LUV-18).

Invariants, checked by the tests over every state and input:

* ``canRead`` never comes back before the next DIAL, nor does ``canWrite``;
* from every state, inputs that the outside world may give at any time (PEER_END, LOST, DROP) are accepted: a kernel
  needs no permission;
* an input that only our own code gives (DIAL, MADE, FAILED, END, END_SENT) is refused where it makes no sense, by a
  ``LifecycleError`` that names both: it is a bug of the caller, never of the peer.

Rejected: flags on the protocol (``_disconnecting``, ``_writeDisconnected`` ...), as Twisted has them: eight booleans
have 256 states, and about ten of those mean something.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal

ReadyState = Literal["closed", "opening", "open", "readOnly", "writeOnly"]


class LifecycleError(Exception):
    """Our own code asked for a step that the state does not have: a bug of the caller."""


class Input(Enum):
    """What can happen to a connection."""

    __hash__ = object.__hash__  # Enum's own is written in Python, and a connection asks for a dozen

    DIAL = "dial"
    """An attempt to connect begins."""
    MADE = "made"
    """The connection stands."""
    FAILED = "failed"
    """The attempt failed."""
    PEER_END = "peer end"
    """The peer's FIN: it will send nothing more."""
    END = "end"
    """The user will write nothing more: FIN after what was written."""
    END_SENT = "end sent"
    """Our FIN was handed to the kernel."""
    DROP = "drop"
    """Nobody wants this connection any more; what is unsent may go."""
    LOST = "lost"
    """The transport is gone."""


class State(Enum):
    """Where a connection stands; the members carry the two bits."""

    __hash__ = object.__hash__

    IDLE = ("idle", "closed", False, False)
    DIALLING = ("dialling", "opening", False, True)
    DIALLING_TO_END = ("dialling to end", "opening", False, False)
    OPEN = ("open", "open", True, True)
    ENDING = ("ending", "readOnly", True, False)
    READ_ONLY = ("read only", "readOnly", True, False)
    WRITE_ONLY = ("write only", "writeOnly", False, True)
    LAST_WORDS = ("last words", "closed", False, False)
    ENDED = ("ended", "closed", False, False)
    DROPPED = ("dropped", "closed", False, False)
    CLOSED = ("closed", "closed", False, False)

    canRead: bool
    canWrite: bool
    readyState: ReadyState

    def __init__(self, label: str, readyState: ReadyState, canRead: bool, canWrite: bool) -> None:
        self.label = label
        #: Node's name for it: ``opening``, ``open``, ``readOnly``, ``writeOnly`` or ``closed``.
        self.readyState = readyState
        #: The peer may still send.
        self.canRead = canRead
        #: The user may still write (before the connection stands: what is written waits).
        self.canWrite = canWrite


_TABLE: Final[dict[State, dict[Input, State]]] = {
    State.IDLE: {Input.DIAL: State.DIALLING, Input.MADE: State.OPEN, Input.FAILED: State.CLOSED},
    State.DIALLING: {Input.MADE: State.OPEN, Input.FAILED: State.CLOSED, Input.END: State.DIALLING_TO_END},
    State.DIALLING_TO_END: {Input.MADE: State.ENDING, Input.FAILED: State.CLOSED},
    State.OPEN: {Input.PEER_END: State.WRITE_ONLY, Input.END: State.ENDING},
    State.ENDING: {Input.PEER_END: State.LAST_WORDS, Input.END_SENT: State.READ_ONLY},
    State.READ_ONLY: {Input.PEER_END: State.ENDED},
    State.WRITE_ONLY: {Input.END: State.LAST_WORDS},
    State.LAST_WORDS: {Input.END_SENT: State.ENDED},
    State.ENDED: {},
    State.DROPPED: {Input.END_SENT: State.DROPPED, Input.MADE: State.DROPPED, Input.FAILED: State.CLOSED},
    State.CLOSED: {Input.DIAL: State.DIALLING},
}

_FROM_OUTSIDE: Final = frozenset({Input.PEER_END, Input.LOST, Input.DROP})


def step(state: State, happened: Input) -> State:
    """The state after *happened*.

    :raises LifecycleError: *happened* is something that only our own code does, and it may not do it in this state.
    """
    known = _TABLE[state].get(happened)
    if known is not None:
        return known
    if happened not in _FROM_OUTSIDE:
        raise LifecycleError(f"{happened.value!r} cannot happen to a connection that is {state.label!r}")
    if happened is Input.LOST:
        return State.CLOSED
    if happened is Input.DROP and state not in (State.IDLE, State.CLOSED):
        return State.DROPPED
    return state
