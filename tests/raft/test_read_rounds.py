"""Which reads a round of heartbeats speaks for."""

from __future__ import annotations

from dataclasses import dataclass

from raftkv.raft.read_rounds import ReadRound, ReadRounds


@dataclass
class Waiting:
    """A read, as far as rounds are concerned."""

    name: str
    deadline_ms: float = 100.0


def test_a_round_takes_the_reads_that_came_before_it_and_no_later_one() -> None:
    rounds, early, late = ReadRounds(), Waiting("early"), Waiting("late")
    rounds.waiting.append(early)
    rounds.begin(7)
    rounds.waiting.append(late)

    assert (rounds.under_way, rounds.waiting) == (ReadRound(1, 7, [early]), [late])


def test_the_number_of_a_round_is_never_used_again() -> None:
    rounds = ReadRounds()
    numbers = []
    for ending in (rounds.end, rounds.take_all, rounds.end):
        rounds.begin(1)
        assert rounds.under_way is not None
        numbers.append(rounds.under_way.number)
        ending()

    assert (numbers, rounds.sent, rounds.under_way) == ([1, 2, 3], 3, None)


def test_reads_whose_time_is_over_leave_the_round_and_those_that_wait() -> None:
    rounds = ReadRounds()
    reads = [Waiting("a", 10.0), Waiting("b", 20.0), Waiting("c", 10.0), Waiting("d", 20.0)]
    rounds.waiting += reads[:2]
    rounds.begin(1)
    rounds.waiting += reads[2:]

    assert rounds.take_late(9.9) == []
    assert rounds.take_late(10.0) == [reads[2], reads[0]]
    assert (rounds.under_way, rounds.waiting) == (ReadRound(1, 1, [reads[1]]), [reads[3]])
    assert rounds.take_all() == [reads[1], reads[3]]
    assert (rounds.under_way, rounds.waiting) == (None, [])
