"""What can be fuzzed: where inputs begin, what they are made of, and what must hold for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from zlib import crc32


class Target:
    """A decoder under test. ``words`` are what its format is made of."""

    words: Sequence[bytes] = ()

    def seeds(self) -> Sequence[bytes]:
        """Return inputs to begin with, most of them good."""
        raise NotImplementedError

    def check(self, data: bytes) -> str:
        """Decode ``data`` and say in few words what came of it; raises whatever must not be raised."""
        raise NotImplementedError

    def repaired(self, data: bytes, random: Random) -> bytes:
        """Return a changed input with some checksums set right, so that it is not refused at the first look."""
        return data

    def close(self) -> None:
        """Let go of everything."""


def pieces(data: bytes, most: int) -> Iterator[bytes]:
    """Cut ``data`` as a network might, always in the same way for the same data."""
    random, at = Random(crc32(data)), 0
    while at < len(data):
        size = random.choice((1, 2, random.randint(1, 40), most))
        yield data[at : at + size]
        at += size
