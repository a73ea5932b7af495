"""The log in memory, beside a list."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.raft.configuration import Member, founding_configuration
from raftkv.raft.entry import Entry, Kind
from raftkv.raft.log import Log


def entries(*terms: int) -> tuple[Entry, ...]:
    """Return entries from index 1 on, of these terms."""
    return tuple(Entry(index, term, Kind.COMMANDS, bytes(term)) for index, term in enumerate(terms, 1))


TERMS = st.lists(st.integers(1, 5), max_size=12).map(sorted)


def test_an_empty_log_ends_at_0_in_term_0() -> None:
    log = Log()
    assert (log.last_index, log.last_term, log.term(0)) == (0, 0, 0)
    assert log.matches(0, 0)
    assert not log.matches(1, 0)


@given(TERMS, st.integers(0, 14), st.integers(0, 6))
def test_matches_is_there_and_of_that_term(terms: list[int], index: int, term: int) -> None:
    """3.5: the consistency check of AppendEntries."""
    there = [(0, 0), *((entry.index, entry.term) for entry in entries(*terms))]
    assert Log(entries(*terms)).matches(index, term) == ((index, term) in there)


@given(TERMS, TERMS)
def test_one_of_two_logs_is_at_least_as_up_to_date(ours: list[int], theirs: list[int]) -> None:
    """3.6.1: the last terms decide, then the lengths; never neither."""
    one, other = Log(entries(*ours)), Log(entries(*theirs))
    forth = one.is_up_to_date(other.last_index, other.last_term)
    back = other.is_up_to_date(one.last_index, one.last_term)
    assert forth or back
    assert (forth and back) == ((one.last_index, one.last_term) == (other.last_index, other.last_term))
    if one.last_term != other.last_term:
        assert forth == (other.last_term > one.last_term)


@given(TERMS.filter(bool), st.data())
def test_truncating_leaves_what_came_before(terms: list[int], data: st.DataObject) -> None:
    log = Log(entries(*terms))
    index = data.draw(st.integers(1, len(terms)))
    log.truncate(index)
    assert log.span(1, len(terms)) == list(entries(*terms[: index - 1]))
    assert log.last_index == index - 1


@given(TERMS.filter(bool), st.data())
def test_a_piece_is_bounded_by_bytes_and_has_at_least_one_entry(terms: list[int], data: st.DataObject) -> None:
    """What goes into one message, or one piece for the store."""
    first = data.draw(st.integers(1, len(terms)))
    last = data.draw(st.integers(first, len(terms)))
    limit = data.draw(st.integers(0, 400))
    piece = Log(entries(*terms)).between(first, last, limit)
    assert piece == entries(*terms)[first - 1 : first - 1 + len(piece)]
    assert 1 <= len(piece) <= last - first + 1
    assert len(piece) == 1 or sum(entry.size for entry in piece) <= limit
    if first + len(piece) <= last:
        assert sum(entry.size for entry in entries(*terms)[first - 1 : first + len(piece)]) > limit


@given(TERMS.filter(bool), st.integers(0, 6), st.data())
def test_terms_are_found_by_their_first_and_last_entry(terms: list[int], term: int, data: st.DataObject) -> None:
    """3.5: what the hints of a rejection are made of, and how the leader reads them."""
    log = Log(entries(*terms))
    index = data.draw(st.integers(1, len(terms)))
    assert log.first_of_term(index) == terms.index(terms[index - 1]) + 1
    before = data.draw(st.integers(1, len(terms) + 2))
    of_term = [at for at, other in enumerate(terms, 1) if other == term and at < before]
    assert log.last_of_term(term, before) == max(of_term, default=0)


def test_the_configuration_is_that_of_the_latest_entry_and_goes_with_it() -> None:
    """4.1: it holds from the moment it is appended, and no longer than its entry."""
    one, two = (founding_configuration([Member(name, f"{name}:1", "1")]) for name in ("n1", "n2"))
    log = Log((Entry(1, 1, Kind.CONFIGURATION, one.encode()), Entry(2, 1, Kind.NOOP, b"")))
    assert log.configuration == one
    log.append((Entry(3, 2, Kind.CONFIGURATION, two.encode()),))
    assert log.configuration == two
    log.truncate(3)
    assert log.configuration == one


def behind_snapshot(terms: list[int], snapshot_index: int) -> tuple[Log, Log]:
    """Return a whole log, and the same one behind a snapshot of its first entries."""
    whole = Log(entries(*terms))
    rest = whole.span(snapshot_index + 1, len(terms))
    return whole, Log(rest, snapshot_index=snapshot_index, snapshot_term=whole.term(snapshot_index))


@given(TERMS, st.data())
def test_a_log_behind_a_snapshot_is_the_same_from_there_on(terms: list[int], data: st.DataObject) -> None:
    """Section 5: indexes are positions in the whole history, however much of it is in the log."""
    start = data.draw(st.integers(0, len(terms)))
    whole, log = behind_snapshot(terms, start)

    assert (log.last_index, log.last_term) == (whole.last_index, whole.last_term)
    for index in range(start, len(terms) + 2):
        for term in range(7):
            assert log.matches(index, term) == whole.matches(index, term)
            assert log.is_up_to_date(index, term) == whole.is_up_to_date(index, term)
    for first in range(start + 1, len(terms) + 1):
        assert log.entry(first) == whole.entry(first)
        assert log.first_of_term(first) == max(start + 1, whole.first_of_term(first))
        assert log.bytes_after(first) == whole.bytes_after(first)
        for last in range(first, len(terms) + 1):
            assert log.between(first, last, 70) == whole.between(first, last, 70)
    for term in range(7):
        for before in range(start + 1, len(terms) + 2):
            found = whole.last_of_term(term, before)
            assert log.last_of_term(term, before) == (found if found > start else 0)


@given(TERMS.filter(bool), st.data())
def test_what_a_snapshot_stands_for_can_not_be_cut_off_or_looked_at(terms: list[int], data: st.DataObject) -> None:
    start = data.draw(st.integers(1, len(terms)))
    _, log = behind_snapshot(terms, start)

    with pytest.raises(AssertionError):
        log.truncate(start)
    with pytest.raises(AssertionError):
        log.entry(start)
    with pytest.raises(AssertionError):
        log.term(start - 1)
    with pytest.raises(AssertionError):
        log.between(start, len(terms), 1000)
    with pytest.raises(AssertionError):
        log.span(start, len(terms))
    with pytest.raises(AssertionError):
        log.bytes_after(start - 1)
    with pytest.raises(AssertionError):
        log.first_of_term(start)
    log.truncate(start + 1)
    assert (log.last_index, log.last_term) == (start, terms[start - 1])
    log.append((Entry(start + 1, 9, Kind.NOOP, b""),))
    assert log.last_term == 9


def test_the_configuration_of_a_snapshot_is_in_force_until_a_later_entry_changes_it() -> None:
    """4.1; and again when that entry is cut off."""
    old, new = (founding_configuration([Member(f"n{i}", f"n{i}:1", "1") for i in range(1, n)]) for n in (3, 4))
    log = Log(snapshot_index=5, snapshot_term=2, configuration=old)
    assert log.configuration == old

    log.append((Entry(6, 2, Kind.CONFIGURATION, new.encode()),))
    assert log.configuration == new
    log.truncate(6)
    assert log.configuration == old


def test_what_a_snapshot_stands_for_matches_every_leader() -> None:
    """It is committed: a late AppendEntries from before it must neither be refused nor stop the node."""
    _, log = behind_snapshot([1, 1, 2, 3], 3)

    assert log.matches(1, 1)
    assert log.matches(3, 2)
    assert not log.matches(3, 1)
