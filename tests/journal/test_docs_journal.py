"""docs/journal.md is enough to read a journal: the reader that it shows reads what our own one does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from raftkv.journal.format import SECTOR, SegmentHeader, encode_batch, encode_segment_header
from raftkv.raft.entry import Entry
from tests.journal.test_fixtures import FIXTURES, RECORDS_1
from tests.journal.wal_tools import OWNER, State, states

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "journal.md").read_text()


def read_as_documented(journal: Path) -> State:
    """Return what the reader in the page finds."""
    (code,) = re.findall(r"```python\n(.+?)```", PAGE, re.S)
    names: dict[str, Any] = {}
    exec(compile(code, "docs/journal.md", "exec"), names)
    term, vote, log = names["read"](journal)
    return term, vote, tuple(Entry(*fields) for fields in log)


def test_the_reader_in_the_documentation_reads_a_journal() -> None:
    assert read_as_documented(FIXTURES / "data-directory-1" / "journal") == states(RECORDS_1)[-1]


def test_the_numbers_in_the_documentation_are_those_of_the_format() -> None:
    """The places in the tables, in bytes, and what a batch takes."""
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
