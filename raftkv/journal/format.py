"""The journal's format on disk: sectors, segment headers and batches; pure encoding and decoding.

A segment is a file of whole sectors. Its first sector is the header, then come batches, then zeros:

    segment header  "RKVs" | version u16 | 0 u16 | number u64 | first sequence u64 | size u64 | previous CRC u32
                    | owner 16 bytes | zeros | CRC32C u32 of all before it in the sector
    batch header    "RKVb" | version u16 | 0 u16 | sequence u64 | payload length u64 | previous CRC u32
                    | body CRC32C u32 | CRC32C u32 of all before it
    batch body      the payload's first bytes up to the sector's end; then sectors of "RKVc" and 508 bytes of payload
                    each; the last one is filled up with zeros

All numbers are little-endian. A batch starts and ends at a sector's boundary, so that writing it touches no sector
with acknowledged data in it. *Previous CRC* is the header CRC of the batch before, across segments: a batch says by
it which history it continues.

Every sector of a batch starts with one of our marks, for three reasons. A sector that was never written (it is still
all zeros) can always be told from one that was, whatever bytes users store. Zeroing a written sector takes damage to
four bytes or more, so that no flipped byte makes a complete batch look like a torn one. And no bytes of a user's
can be taken for a batch, since the places where headers may stand are not theirs.
"""

from __future__ import annotations

import hashlib
import struct

import msgspec
from google_crc32c import value as crc32c

from raftkv.raft.entry import Entry, NodeId

SECTOR = 512
VERSION = 1

BATCH_MARK = b"RKVb"
SEGMENT_MARK = b"RKVs"
_BODY_MARK = b"RKVc"

_BATCH_FIELDS = struct.Struct("<4sHHQQII")
_BATCH_HEADER = struct.Struct("<4sHHQQIII")
_SEGMENT_FIELDS = struct.Struct("<4sHHQQQI16s")
_CRC = struct.Struct("<I")
_HEADER_SIZE = _BATCH_HEADER.size
_FIRST_ROOM = SECTOR - _HEADER_SIZE
_ROOM = SECTOR - len(_BODY_MARK)


class BadFormat(ValueError):
    """Bytes that are not what this version writes; the message says in what way."""


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What one batch makes durable: term and vote, and entries, whose first one cuts the log off at its index."""

    current_term: int
    voted_for: NodeId | None
    entries: tuple[Entry, ...] = ()


class SegmentHeader(msgspec.Struct, frozen=True):
    """What the first sector of a segment says.

    ``size`` is that of the whole file in bytes. ``owner`` tells whose journal it is (see ``owner_of``).
    """

    number: int
    first_sequence: int
    size: int
    previous_crc: int
    owner: bytes


class BatchHeader(msgspec.Struct, frozen=True, gc=False):
    """What the first bytes of a batch say.

    ``length`` is the payload's and ``size`` the whole batch's on disk, a multiple of ``SECTOR``. ``crc`` is the
    header's own, which the next batch repeats.
    """

    sequence: int
    length: int
    size: int
    previous_crc: int
    body_crc: int
    crc: int


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)

encode_record = _encoder.encode


def decode_record(payload: bytes) -> Record:
    """Return what ``encode_record`` was given; raises ``BadFormat``."""
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadFormat(f"its content is not a record: {error}") from error


def owner_of(node_id: NodeId, incarnation: str) -> bytes:
    """Return the 16 bytes that mark the segments of this incarnation of a node."""
    return hashlib.sha256(msgspec.msgpack.encode((node_id, incarnation))).digest()[:16]


def batch_size(length: int) -> int:
    """Return the bytes that a payload of ``length`` bytes takes on disk, header and filling included."""
    if length <= _FIRST_ROOM:
        return SECTOR
    return SECTOR + -(-(length - _FIRST_ROOM) // _ROOM) * SECTOR


def payload_room(size: int) -> int:
    """Return how many bytes of payload a batch of ``size`` bytes on disk has place for, at least."""
    return max(0, size // SECTOR * _ROOM - SECTOR)


def encode_batch(sequence: int, previous_crc: int, payload: bytes) -> tuple[bytes, int]:
    """Return the bytes of a batch and the CRC of its header."""
    body = _spread(payload)
    fields = _BATCH_FIELDS.pack(BATCH_MARK, VERSION, 0, sequence, len(payload), previous_crc, crc32c(body))
    crc = crc32c(fields)
    return b"".join((fields, _CRC.pack(crc), body)), crc


def decode_batch_header(data: bytes, at: int) -> BatchHeader:
    """Return the batch header at offset ``at`` of ``data``; raises ``BadFormat``."""
    if at + _HEADER_SIZE > len(data):
        raise BadFormat("the batch header is cut short")
    mark, version, _, sequence, length, previous_crc, body_crc, crc = _BATCH_HEADER.unpack_from(data, at)
    if crc32c(data[at : at + _BATCH_FIELDS.size]) != crc:
        raise BadFormat("the batch header does not have its checksum")
    if mark != BATCH_MARK or version != VERSION:
        raise _other_kind(mark, BATCH_MARK, version)
    return BatchHeader(sequence, length, batch_size(length), previous_crc, body_crc, crc)


def decode_payload(header: BatchHeader, data: bytes, at: int) -> bytes:
    """Return the payload of the batch whose ``header`` stands at offset ``at`` of ``data``; raises ``BadFormat``."""
    body = data[at + _HEADER_SIZE : at + header.size]
    if len(body) < header.size - _HEADER_SIZE:
        raise BadFormat("the batch is cut short")
    if crc32c(body) != header.body_crc:
        raise BadFormat("the batch does not have its checksum")
    if header.length <= _FIRST_ROOM:
        return body[: header.length]
    parts = [body[:_FIRST_ROOM]]
    parts += [body[i + len(_BODY_MARK) : i + SECTOR] for i in range(_FIRST_ROOM, len(body), SECTOR)]
    return b"".join(parts)[: header.length]


def encode_segment_header(header: SegmentHeader) -> bytes:
    """Return the first sector of a segment."""
    fields = _SEGMENT_FIELDS.pack(
        SEGMENT_MARK,
        VERSION,
        0,
        header.number,
        header.first_sequence,
        header.size,
        header.previous_crc,
        header.owner,
    )
    sector = fields.ljust(SECTOR - _CRC.size, b"\0")
    return sector + _CRC.pack(crc32c(sector))


def decode_segment_header(sector: bytes) -> SegmentHeader:
    """Return what the first sector of a segment says; raises ``BadFormat``."""
    if len(sector) < SECTOR:
        raise BadFormat("the segment header is cut short")
    if _CRC.pack(crc32c(sector[: -_CRC.size])) != sector[-_CRC.size :]:
        raise BadFormat("the segment header does not have its checksum")
    mark, version, _, number, first_sequence, size, previous_crc, owner = _SEGMENT_FIELDS.unpack_from(sector)
    if mark != SEGMENT_MARK or version != VERSION:
        raise _other_kind(mark, SEGMENT_MARK, version)
    return SegmentHeader(number, first_sequence, size, previous_crc, owner)


def _other_kind(mark: bytes, expected: bytes, version: int) -> BadFormat:
    """Return what is wrong with a header that has its checksum."""
    if mark != expected:
        return BadFormat(f"this is a header of kind {mark!r} in the place of {expected!r}")
    return BadFormat(f"this has format {version}, but this version of raftkv reads format {VERSION}")


def _spread(payload: bytes) -> bytes:
    """Return ``payload`` as a batch's body: our mark at the start of every sector, zeros to the end of the last."""
    if len(payload) <= _FIRST_ROOM:
        return payload.ljust(_FIRST_ROOM, b"\0")
    parts = [payload[:_FIRST_ROOM]]
    parts += [payload[at : at + _ROOM] for at in range(_FIRST_ROOM, len(payload), _ROOM)]
    parts[-1] = parts[-1].ljust(_ROOM, b"\0")
    return _BODY_MARK.join(parts)
