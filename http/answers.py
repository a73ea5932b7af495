"""What an HTTP answer consists of, whole or as a stream, before it meets a connection."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import NamedTuple

import msgspec

JSON = "application/json; charset=utf-8"
Headers = tuple[tuple[str, str], ...]

_encode = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """An answer whose body is known. ``headers`` include the content type, never the length."""

    status: int
    body: bytes
    headers: Headers


class StreamedAnswer(NamedTuple):
    """An answer whose body comes piece by piece, for as long as the client takes it.

    ``pieces`` is asked for the next piece only when the client has taken the one before, and is closed in every case:
    at its end, when it raises, and when the client disconnects. Empty pieces are skipped.
    """

    status: int
    pieces: AsyncGenerator[bytes, None]
    headers: Headers


def encode_json(content: object) -> bytes:
    """Return ``content`` as a body: JSON and a newline, so that the next shell prompt starts on a line of its own."""
    return _encode(content) + b"\n"
