"""The interface of a fuzz target: its first inputs, the tokens of its format, and the check of an input."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from zlib import crc32


class Target:
    """A decoder under test. ``words`` are tokens of its format."""

    words: Sequence[bytes] = ()

    def seeds(self) -> Sequence[bytes]:
        """Return the first inputs, most of them valid."""
        raise NotImplementedError

    def check(self, data: bytes) -> str:
        """Decode ``data`` and return a short description of the result; raises if the decoder misbehaves."""
        raise NotImplementedError

    def repaired(self, data: bytes, random: Random) -> bytes:
        """Return a mutated input with some checksums corrected, so that it is not refused at the first check."""
        return data

    def close(self) -> None:
        """Release all resources."""


def pieces(data: bytes, most: int) -> Iterator[bytes]:
    """Cut ``data`` into pieces as a network might; the same data gives the same pieces."""
    random, at = Random(crc32(data)), 0
    while at < len(data):
        size = random.choice((1, 2, random.randint(1, 40), most))
        yield data[at : at + size]
        at += size
