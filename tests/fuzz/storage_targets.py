"""Fuzzing what a node reads from its disk: the journal, the identity, and the data of entries."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from random import Random

import msgspec
from google_crc32c import value as crc32c

from raftkv.journal.data_directory import DataDirectoryError, Identity, open_data_directory, read_identity
from raftkv.journal.format import BATCH_MARK, SEGMENT_MARK, encode_record
from raftkv.journal.recovery import DamagedJournal
from raftkv.journal.replay import Replay
from raftkv.raft.configuration import Member, decode_configuration, founding_configuration
from raftkv.simulation.cluster.disk import SimulatedDisk
from raftkv.store.commands import (
    NOT_THERE,
    THERE,
    Delete,
    DeleteIf,
    Put,
    PutIf,
    decode_commands,
    encode_commands,
    invalid,
)
from raftkv.store.keyspace import Keyspace
from tests.fuzz.target import Target
from tests.journal.wal_tools import DIRECTORY, RECORDS, SECTOR, entry, open_wal, record, recovered, state_of

LENGTH_AT, BODY_CRC_AT, CRC_AT, HEADER_BYTES = 16, 28, 32, 36


def batch_repaired(data: bytearray, at: int) -> None:
    """Correct the checksums of a batch, whatever it contains."""
    (length,) = struct.unpack_from("<Q", data, at + LENGTH_AT)
    size = SECTOR * (1 + max(0, -(-(length - 476) // 508)))
    if length < len(data):
        struct.pack_into("<I", data, at + BODY_CRC_AT, crc32c(bytes(data[at + HEADER_BYTES : at + size])))
    struct.pack_into("<I", data, at + CRC_AT, crc32c(bytes(data[at : at + CRC_AT])))


class Journal(Target):
    """The segments of a journal, concatenated: either damage or a journal that can be appended to; no other error.

    Reading damage changes nothing on disk; an accepted journal reads the same again after an append.
    """

    words = (BATCH_MARK, SEGMENT_MARK, b"RKVc", bytes(SECTOR), b"RKVb\x01\0\0\0", b"RKVb\x02\0\0\0",
             *(encode_record(each)[:60] for each in RECORDS), b"\x93\x01\xc0\x90", b"\x94\x01\x01\0\xc4\0")  # fmt: skip

    def seeds(self) -> Sequence[bytes]:
        """Return a valid journal after each of its records."""
        found = []
        disk = SimulatedDisk()
        wal, _ = open_wal(disk)
        for each in RECORDS:
            wal.append(each)
            found.append(b"".join(data for path, data in sorted(disk.files().items()) if path.endswith(".wal")))
        return found

    def repaired(self, data: bytes, random: Random) -> bytes:
        """Correct some checksums, so that lengths and contents are decoded."""
        if random.random() < 0.3:
            return data
        changed = bytearray(data)
        for at in range(0, len(data) - SECTOR + 1, SECTOR):
            if data[at : at + 4] == BATCH_MARK and random.random() < 0.8:
                batch_repaired(changed, at)
            elif data[at : at + 4] == SEGMENT_MARK and random.random() < 0.8:
                struct.pack_into("<I", changed, at + SECTOR - 4, crc32c(bytes(changed[at : at + SECTOR - 4])))
        return bytes(changed)

    def check(self, data: bytes) -> str:
        """Read the journal, append to it, and read it again."""
        disk = self._disk(data)
        before = disk.files()
        damage: DamagedJournal | None = None
        try:
            wal, found = open_wal(disk)
        except DamagedJournal as error:
            damage = error
        if damage is not None:
            assert disk.files() == before, "reading changed the disk"
            assert "\n" not in str(damage)
            assert 0 <= damage.offset <= len(data)
            return "".join(c for c in damage.why if c.isalpha() or c == " ")
        term, last = found[0], found[2][-1].index if found[2] else 0
        more = record(min(term + 1, 2**62), entry(last + 1, 1, b"more" * 300), vote="n9")
        wal.append(more)
        replay = Replay()
        for each in (record(term, *found[2], vote=found[1]), more):
            replay.add(each)
        assert recovered(disk) == state_of(replay)
        return f"{len(found[2])} entries"

    def _disk(self, data: bytes) -> SimulatedDisk:
        """Return a disk with the input, cut into files at segment headers."""
        starts = [0, *(at for at in range(SECTOR, len(data), SECTOR) if data[at : at + 4] == SEGMENT_MARK)]
        disk = SimulatedDisk()
        for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(data)], strict=True), 1):
            disk.put(f"{DIRECTORY}/{number:016d}.wal", data[start:end])
        return disk


class Identities(Target):
    """The file ``identity``: refused in one line, or read exactly as it was written."""

    words = (b'"format":', b'"node_id":', b'"incarnation":', b'"checksum":', b"null", b"[]", b"1e999", b"\\ud800",
             b"\\u0000", b"9" * 400, b"[" * 200)  # fmt: skip

    def seeds(self) -> Sequence[bytes]:
        """Return valid identities and one of a later version."""
        found = []
        for name in ("n1", "ä" * 20):
            disk = SimulatedDisk()
            open_data_directory(disk, "/d", name, new_incarnation=lambda: "first").close()
            found.append(disk.files()["/d/identity"])
        return [*found, b'{"format":2,"what":"ever"}']

    def check(self, data: bytes) -> str:
        """Read the identity."""
        disk = SimulatedDisk()
        disk.put("/d/identity", data)
        line = ""
        try:
            identity = read_identity(disk, "/d")
        except DataDirectoryError as error:
            line = str(error)
        if line:
            assert "\n" not in line
            return "".join(c for c in line if c.isalpha() or c == " ")[:60]
        assert identity is not None
        assert data in self.seeds() or identity not in (Identity("n1", "first"), Identity("ä" * 20, "first"))
        return "read"


class Entries(Target):
    """The data of entries: refused with ``DecodeError``, or applied, and the same after encoding it again."""

    words = (b"\x93\x01", b"\x92\x02", b"\xa1a", b"\xc4\x01x", b"\xc0", b"\xd9\xff", b"\xdd\xff\xff\xff\xff",
             b"\xc6\xff\xff\xff\xff", b"\xa1\xff", b"\x93\xa2n1\xa4n1:1\xa11", b"\x90", b"\x91" * 30)  # fmt: skip

    def seeds(self) -> Sequence[bytes]:
        """Return commands and configurations."""
        commands = (Put("a", b"x"), Delete("a"), Put("ä" * 200, bytes(300)), Delete("\0"))
        members = [Member(f"n{i}", f"n{i}:5001", f"{i}") for i in (1, 2, 3)]
        return [
            encode_commands(commands),
            encode_commands((PutIf("a", b"x", NOT_THERE), DeleteIf("a", THERE), PutIf("ä", b"y", 1 << 40))),
            encode_commands(commands[:1] * 30),
            encode_commands(()),
            founding_configuration(members).encode(),
        ]

    def check(self, data: bytes) -> str:
        """Decode ``data`` as commands and as a configuration."""
        return f"{self._commands(data)} / {self._configuration(data)}"

    def _commands(self, data: bytes) -> str:
        try:
            commands = decode_commands(data)
        except msgspec.DecodeError:
            return "no commands"
        assert decode_commands(encode_commands(commands)) == commands
        keyspace = Keyspace()
        for command in commands:
            assert command.cost() > 0
            keyspace.apply(command)
        assert keyspace.revision <= len(commands)
        restored = Keyspace.restore(keyspace.capture())
        assert (restored, restored.digest()) == (keyspace, keyspace.digest())
        return "commands" if invalid(commands) is None else "invalid commands"

    def _configuration(self, data: bytes) -> str:
        try:
            configuration = decode_configuration(data)
        except msgspec.DecodeError:
            return "no configuration"
        assert decode_configuration(configuration.encode()) == configuration
        configuration.has_quorum(configuration.ids)
        return "configuration"
