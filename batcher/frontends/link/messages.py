"""What a front process and the engine say to each other.

    front ──► engine                              engine ──► front
    ASK       a decoded request                   ANSWER    its result
    CALL      a whole request of another route    REPLY     its whole answer
    CANCEL    nobody waits for one of these       FAILURE   why one of these has failed
    COUNTS    what was counted since the last     SETTINGS  what the front goes by
    LINE      a line of the access log            MODELS    what answers requests
    CLOSED    no port is open any more            CLOSE     close the ports
    DRAINED   no connection is open any more      DRAIN     let every connection end
                                                  STOP      close every connection
                                                  TLS       read the certificate again
    BACK      parts of shared memory that nobody reads any more, in both directions

UNSENT is what a channel says to its own end: what was gathered for several requests could not be
made a message, for such a reason.

A message is a tuple, whose first value is one of these numbers. The second of CALL, CANCEL, REPLY
and FAILURE is the number of the request, which the front has chosen; of ASK and ANSWER the list of
these numbers, since many requests may share a message (`gathering.py`).
"""

from __future__ import annotations

import marshal
from contextlib import suppress
from typing import Any, Final

import numpy as np

from batcher.codecs.body_sink import BodySink
from batcher.codecs.content import Buffer
from batcher.codecs.content_coding import Body, CodedBody
from batcher.core.error_text import message
from batcher.errors import BatcherError
from batcher.frontends.link.arrays import INLINE_BYTES, read_array, write_array
from batcher.models.own_code import Place
from batcher.workers.process.described_error import DescribedError, describe_error, rebuild_error
from batcher.workers.shared_memory.region import Lender, Reader

ASK: Final = 1
CALL: Final = 2
CANCEL: Final = 3
COUNTS: Final = 4
LINE: Final = 5
CLOSED: Final = 6
DRAINED: Final = 7
ANSWER: Final = 8
REPLY: Final = 9
FAILURE: Final = 10
SETTINGS: Final = 11
MODELS: Final = 12
CLOSE: Final = 13
DRAIN: Final = 14
STOP: Final = 15
TLS: Final = 16
BACK: Final = 17
UNSENT: Final = 18

_CODED: Final = "C"


def write_body(body: Body | Buffer, lender: Lender) -> Any:
    """Return a body as a value of a message."""
    assert not isinstance(body, BodySink), "no route of a front has one"
    if isinstance(body, CodedBody):
        _, (coding, limit, sent) = body.__reduce__()
        return _CODED, coding, int(limit), bytes(sent)  # sizes of settings are of a class of theirs
    if len(body) <= INLINE_BYTES:
        return bytes(body)
    return write_array(np.frombuffer(body, np.uint8), lender)


def read_body(written: Any, reader: Reader) -> bytes | memoryview | CodedBody:
    """Return the body in a message; a large one is a view of shared memory."""
    if type(written) is bytes:
        return written
    if written[0] == _CODED:
        _, coding, limit, sent = written
        return CodedBody(coding, limit, memoryview(sent))
    return read_array(written, reader).data


def write_error(error: BaseException) -> bytes:
    """Return `error` as a value of a message; never raises."""
    kind = type(error)
    if _CLASSES.get(kind.__name__) is kind:
        # As nearly always. Its stack is left out: a server that refuses thousands of requests a
        # second would do nothing but write stacks.
        with suppress(ValueError):
            return marshal.dumps((kind.__name__, message(error), vars(error)))
    described = describe_error(error)
    known = described.known.__name__ if described.known is not None else ""
    place = tuple(described.place) if described.place is not None else None
    words: tuple[Any, ...] = (known, *described[1:-1], place)
    return marshal.dumps(words)


def read_error(written: bytes) -> BaseException:
    """Return the exception in a message."""
    name, *rest = marshal.loads(written)
    if len(rest) == 2:
        kind = _CLASSES[name]
        # Not `kind(...)`: constructors take other arguments than the attributes that they keep.
        error = kind.__new__(kind, rest[0])
        vars(error).update(rest[1])
        return error
    *words, place = rest
    where = Place(*place) if place is not None else None
    return rebuild_error(DescribedError._make((_CLASSES.get(name), *words, where)))


def _classes_below(kind: type[BatcherError]) -> dict[str, type[BatcherError]]:
    """Return `kind` and all classes below it in the tree of errors, by name."""
    found = {kind.__name__: kind}
    for below in kind.__subclasses__():
        found |= _classes_below(below)
    return found


_CLASSES = _classes_below(BatcherError)
