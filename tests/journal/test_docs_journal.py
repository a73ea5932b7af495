"""docs/journal.md suffices to read a journal: its reader finds what our own reader finds, and knows every command."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import msgspec

from raftkv.journal.format import SECTOR, SegmentHeader, encode_batch, encode_segment_header
from raftkv.journal.os_disk import OsDisk
from raftkv.journal.wal import Wal
from raftkv.raft.configuration import Member, founding_configuration
from raftkv.raft.entry import Entry, Kind
from raftkv.store.commands import THERE, Command, Delete, DeleteIf, Put, PutIf, encode_commands
from tests.journal.test_fixtures import FIXTURES, RECORDS_1
from tests.journal.wal_tools import OWNER, SEGMENT, State, record, states

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "journal.md").read_text()


def documented() -> dict[str, Any]:
    """Return what the program in the page defines."""
    (code,) = re.findall(r"```python\n(.+?)```", PAGE, re.S)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/journal.md", "exec"), names)
    return names


def read_as_documented(journal: Path) -> State:
    """Return what the reader in the page finds."""
    term, vote, log = documented()["read"](journal)
    return term, vote, tuple(Entry(*fields) for fields in log)


def test_the_reader_in_the_documentation_reads_a_journal() -> None:
    assert read_as_documented(FIXTURES / "data-directory-1" / "journal") == states(RECORDS_1)[-1]


def test_the_reader_in_the_documentation_decodes_every_kind_of_entry_and_command(tmp_path: Path) -> None:
    """One entry of each kind; the commands are one of each class, so a new class fails here until the page has it."""
    members = [Member("n1", "h1:5001", "aa"), Member("n2", "h2:5001", "bb")]
    commands = (Put("ä", b"\xff\0"), Delete("b"), PutIf("c", b"", 1 << 40), PutIf("d", b"x", THERE), DeleteIf("e", 7))
    assert {type(command) for command in commands} == set(get_args(Command))
    entries = (
        Entry(1, 1, Kind.CONFIGURATION, founding_configuration(members).encode()),
        Entry(2, 1, Kind.NOOP, b""),
        Entry(3, 2, Kind.COMMANDS, encode_commands(commands)),
    )
    assert {entry.kind for entry in entries} == set(Kind)
    wal, _ = Wal.open(OsDisk(), str(tmp_path / "journal"), segment_bytes=SEGMENT, owner=OWNER)
    for each in (record(1, vote="n1"), record(1, *entries[:2], vote="n1"), record(2, *entries[2:], vote=None)):
        wal.append(each)
    wal.close()

    assert read_as_documented(tmp_path / "journal") == (2, None, entries)
    contents = documented()["contents"]
    configuration, noop, decoded = [contents(msgspec.structs.astuple(entry)) for entry in entries]
    assert configuration == {
        "members": [["n1", "h1:5001", "aa"], ["n2", "h2:5001", "bb"]],
        "voters": ["n1", "n2"],
        "outgoing": [],
    }
    assert noop is None
    assert decoded == [
        ("put", {"key": "ä", "value": b"\xff\0"}),
        ("delete", {"key": "b"}),
        ("conditional put", {"key": "c", "value": b"", "revision": 1 << 40}),
        ("conditional put", {"key": "d", "value": b"x", "revision": -1}),
        ("conditional delete", {"key": "e", "revision": 7}),
    ]


def test_the_documentation_lists_the_tag_and_the_fields_of_every_command() -> None:
    rows = [row.split("`")[1] for row in PAGE.splitlines() if row.startswith("| `[")]
    assert rows == [
        f"[{', '.join([str(command.__struct_config__.tag), *command.__struct_fields__])}]"
        for command in get_args(Command)
    ]
    names = {tag: fields for tag, (_, *fields) in documented()["COMMANDS"].items()}
    assert names == {command.__struct_config__.tag: list(command.__struct_fields__) for command in get_args(Command)}


def test_the_numbers_in_the_documentation_are_those_of_the_format() -> None:
    """The offsets in the tables, in bytes, and the size of a batch."""
    rows = [row.split("|")[1:3] for row in PAGE.splitlines() if re.match(r"\| \d+ \| \d+ \|", row)]
    places = [(int(at), int(size)) for at, size in rows]
    ends = [at + size for at, size in places]
    header = encode_segment_header(SegmentHeader(1, 1, SECTOR, 0, OWNER))

    assert [at for at, _ in places if at] == [end for end in ends[:-1] if end != len(header)]
    assert ends.count(len(header)) == 1
    first_room = int(re.findall(r"holds (\d+) bytes of\s+payload", PAGE)[0])
    assert ends[-1] == SECTOR - first_room
    for length in (0, first_room, first_room + 1, 5000):
        documented = SECTOR if length <= first_room else SECTOR * (1 + -(-(length - first_room) // 508))
        assert len(encode_batch(1, 0, bytes(length))[0]) == documented
