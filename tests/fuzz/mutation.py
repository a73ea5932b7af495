"""Makes new inputs from old ones by a few random changes of the kinds that break decoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Literal

MOST_BYTES = 16 << 10
NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
BYTES = b"\x00\x01\x7f\x80\xff\x90\x93\x9f\xa0\xc0\xc1\xc4\xcf\xd9\xdc\xdd\xdf \t\r\n%\"'{}[],:;=/?\\-+.0189eE"


def mutated(data: bytes, random: Random, words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    """Return ``data`` after one to six changes.

    ``words`` are tokens of the format; ``others`` are inputs to take pieces from.
    """
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        data = random.choice(_CHANGES)(data, random, words, others)[:MOST_BYTES]
    return data


def _flip_bit(data: bytes, random: Random, words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + bytes(byte ^ 1 << random.randrange(8) for byte in data[at : at + 1]) + data[at + 1 :]


def _set_byte(data: bytes, random: Random, words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + bytes([random.choice(BYTES)]) + data[at + 1 :]


def _insert(data: bytes, random: Random, words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.randbytes(random.randrange(1, 9)) + data[at:]


def _remove(data: bytes, random: Random, words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + data[at + random.choice((1, 2, 4, 16, 64, 512)) :]


def _cut_short(data: bytes, random: Random, words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    return data[: random.randrange(len(data) + 1)]


def _repeat(data: bytes, random: Random, words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    start = random.randrange(len(data) + 1)
    end = min(len(data), start + random.choice((1, 4, 30, 512)))
    return data[:end] + data[start:end] * random.choice((1, 2, 10, 300)) + data[end:]


def _splice(data: bytes, random: Random, words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    other = random.choice(others) if others else data
    start, end = sorted(random.choices(range(len(other) + 1), k=2))
    at = random.randrange(len(data) + 1)
    return data[:at] + other[start:end] + data[at + random.choice((0, end - start)) :]


def _put_word(data: bytes, random: Random, words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    if not words:
        return data
    word = random.choice(words)
    at = random.randrange(len(data) + 1)
    return data[:at] + word + data[at + random.choice((0, len(word))) :]


def _replace_word(data: bytes, random: Random, words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    there = [word for word in words if word in data]
    return data.replace(random.choice(there), random.choice(words), random.choice((1, -1))) if there else data


def _set_number(data: bytes, random: Random, words: Sequence[bytes], others: Sequence[bytes]) -> bytes:
    """Set a length, sequence number or term to an extreme, or to slightly more or less than before."""
    orders: tuple[Literal["big", "little"], ...] = ("big", "little")
    size, order = random.choice((1, 2, 4, 8)), random.choice(orders)
    at = random.randrange(len(data) + 1)
    old = int.from_bytes(data[at : at + size], order)
    number = random.choice((*NUMBERS, old + 1, old - 1, old * 2, 2**63, 2**64 - 1)) % (1 << 8 * size)
    return data[:at] + number.to_bytes(size, order) + data[at + size :]


_CHANGES: tuple[Callable[[bytes, Random, Sequence[bytes], Sequence[bytes]], bytes], ...] = (
    _flip_bit,
    _set_byte,
    _insert,
    _remove,
    _cut_short,
    _repeat,
    _splice,
    _put_word,
    _replace_word,
    _set_number,
)
