"""The requests that the load consists of: keys and values from a fixed set, the same bytes in every run."""

from __future__ import annotations

from random import Random
from typing import Literal, NamedTuple

Kind = Literal["write", "read", "stale"]

KEYS = 10_000
VALUE_BYTES = 16
SEED = 20_261_123


class Request(NamedTuple):
    """The bytes to send, and how a right answer ends: with an empty line and its body.

    A JSON body ends with a newline. Older commits left it out, and a comparison with them must still recognise it.
    """

    data: bytes
    endings: tuple[bytes, bytes]


def make_request(kind: Kind, number: int) -> Request:
    """Return the request for key ``number``, whose value follows from the number, so that reads can be checked."""
    body = b'{"value":"%0*d"}' % (VALUE_BYTES, number)
    path = b"/keys/key-%05d/" % number
    endings = (b"\r\n\r\n" + body + b"\n", b"\r\n\r\n" + body)
    if kind == "write":
        return Request(
            b"POST %s HTTP/1.1\r\nHost: bench\r\nContent-Length: %d%s" % (path, len(body), endings[1]), endings
        )
    query = b"?level=stale" if kind == "stale" else b""
    return Request(b"GET %s%s HTTP/1.1\r\nHost: bench\r\n\r\n" % (path, query), endings)


def make_requests(kind: Kind, count: int = KEYS) -> list[Request]:
    """Return a request for each of the first ``count`` keys, in an order that is mixed but always the same."""
    requests = [make_request(kind, number) for number in range(count)]
    Random(SEED).shuffle(requests)
    return requests
