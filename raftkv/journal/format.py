"""The journal's format on disk: sectors, segment headers and batches. Encodes and decodes; does no I/O.

A segment is a file of whole sectors. Its first sector is the header, then come batches, then zeros:

    segment header  "RKVs" | version u16 | 0 u16 | number u64 | first sequence u64 | size u64 | previous CRC u32
                    | owner 16 bytes | zeros | CRC32C u32 of all before it in the sector
    batch header    "RKVb" | version u16 | 0 u16 | sequence u64 | payload length u64 | previous CRC u32
                    | body CRC32C u32 | CRC32C u32 of all before it
    batch body      the first bytes of the payload, up to the end of the sector; then sectors of "RKVc" and 508 bytes of
                    payload each; the last one is padded with zeros

All numbers are little-endian. A batch starts and ends at a sector boundary, so writing it touches no sector that holds
acknowledged data. *Previous CRC* is the header CRC of the batch before, across segments: it names the history that the
batch continues.

Every sector of a batch starts with a mark, for three reasons. A sector that was never written is all zeros, and a
written one is not, whatever bytes users store. A written sector turns into zeros only if four bytes or more change, so
no single flipped byte makes a complete batch look torn. And bytes that users store are never mistaken for a batch,
because they never lie where a header may begin.
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
    """Bytes that this version does not write; the message says what is wrong with them."""


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The content of one batch: term, vote and entries. The log is cut off at the index of the first entry."""

    current_term: int
    voted_for: NodeId | None
    entries: tuple[Entry, ...] = ()


class SegmentHeader(msgspec.Struct, frozen=True):
    """The first sector of a segment.

    ``size`` is the size of the whole file in bytes; ``owner`` identifies the incarnation of a node (see ``owner_of``).
    """

    number: int
    first_sequence: int
    size: int
    previous_crc: int
    owner: bytes


class BatchHeader(msgspec.Struct, frozen=True, gc=False):
    """The first bytes of a batch.

    ``length`` is the size of the payload, ``size`` that of the whole batch on disk, a multiple of ``SECTOR``. ``crc``
    is the CRC of the header, which the next batch repeats.
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
    """Return the record that ``encode_record`` encoded; raises ``BadFormat``."""
    try:
        return _decoder.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadFormat(f"the payload is not a record: {error}") from error


def owner_of(node_id: NodeId, incarnation: str) -> bytes:
    """Return the 16 bytes that identify the segments of this incarnation of a node."""
    return hashlib.sha256(msgspec.msgpack.encode((node_id, incarnation))).digest()[:16]


def batch_size(length: int) -> int:
    """Return the bytes that a payload of ``length`` bytes takes on disk, including header and padding."""
    if length <= _FIRST_ROOM:
        return SECTOR
    return SECTOR + -(-(length - _FIRST_ROOM) // _ROOM) * SECTOR


def payload_room(size: int) -> int:
    """Return how many bytes of payload fit at least into batches of ``size`` bytes on disk."""
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
        raise BadFormat("the batch header has a wrong checksum")
    if mark != BATCH_MARK or version != VERSION:
        raise _other_kind(mark, BATCH_MARK, version)
    return BatchHeader(sequence, length, batch_size(length), previous_crc, body_crc, crc)


def decode_payload(header: BatchHeader, data: bytes, at: int) -> bytes:
    """Return the payload of the batch whose ``header`` is at offset ``at`` of ``data``; raises ``BadFormat``."""
    body = data[at + _HEADER_SIZE : at + header.size]
    if len(body) < header.size - _HEADER_SIZE:
        raise BadFormat("the batch is cut short")
    if crc32c(body) != header.body_crc:
        raise BadFormat("the batch has a wrong checksum")
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
    """Decode the first sector of a segment; raises ``BadFormat``."""
    if len(sector) < SECTOR:
        raise BadFormat("the segment header is cut short")
    if _CRC.pack(crc32c(sector[: -_CRC.size])) != sector[-_CRC.size :]:
        raise BadFormat("the segment header has a wrong checksum")
    mark, version, _, number, first_sequence, size, previous_crc, owner = _SEGMENT_FIELDS.unpack_from(sector)
    if mark != SEGMENT_MARK or version != VERSION:
        raise _other_kind(mark, SEGMENT_MARK, version)
    return SegmentHeader(number, first_sequence, size, previous_crc, owner)


def _other_kind(mark: bytes, expected: bytes, version: int) -> BadFormat:
    """Return what is wrong with a header whose checksum is right."""
    if mark != expected:
        return BadFormat(f"expected a header that begins with {expected!r}, found {mark!r}")
    return BadFormat(f"this is format {version}; this version of raftkv reads format {VERSION}")


def _spread(payload: bytes) -> bytes:
    """Return ``payload`` as the body of a batch: a mark at the start of each further sector, zeros to the end."""
    if len(payload) <= _FIRST_ROOM:
        return payload.ljust(_FIRST_ROOM, b"\0")
    parts = [payload[:_FIRST_ROOM]]
    parts += [payload[at : at + _ROOM] for at in range(_FIRST_ROOM, len(payload), _ROOM)]
    parts[-1] = parts[-1].ljust(_ROOM, b"\0")
    return _BODY_MARK.join(parts)
