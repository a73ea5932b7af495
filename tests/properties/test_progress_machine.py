"""What a leader believes of a peer, beside what the peer has, over a network that loses, repeats and reorders."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raftkv.raft.progress import NO_ROOM_PAUSE_MS, Progress

LIMIT = 8
ANY = st.integers(0, 10_000)


class Append(NamedTuple):
    """AppendEntries: the entries after ``prev`` up to ``last``; none in a heartbeat."""

    prev: int
    last: int


class Matched(NamedTuple):
    """Everything up to ``last`` is the leader's and on the peer's disk."""

    last: int


class Rejected(NamedTuple):
    """The logs differ at ``prev``; ``hint`` is where to go on."""

    prev: int
    hint: int


class LeaderAndPeer(RuleBasedStateMachine):
    """Each entry has a size of 1. ``common`` is how much of the leader's log the peer has, whatever else it has."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0.0
        self.network: list[Append | Matched | Rejected] = []

    @initialize(last=st.integers(0, 12), common=ANY)
    def begin(self, last: int, common: int) -> None:
        """The leader was elected with a log, of which the peer has a part."""
        self.last, self.common = last, common % (last + 1)
        self.progress = Progress(last + 1, 0.0, LIMIT)

    @rule(count=st.integers(1, 5))
    def append(self, count: int) -> None:
        """Clients write."""
        self.last += count

    @rule(most=st.integers(1, 4))
    def replicate(self, most: int) -> None:
        """Send as many messages as may be sent, each of so many entries at most."""
        progress = self.progress
        while progress.next_index <= self.last and progress.may_send(self.now_ms):
            message = Append(progress.next_index - 1, min(self.last, progress.next_index - 1 + most))
            self.network.append(message)
            progress.sent(message.last, message.last - message.prev, self.now_ms)

    @rule()
    def beat(self) -> None:
        """Send a heartbeat, which is the probe while probing."""
        progress = self.progress
        progress.resume()
        index = progress.next_index - 1 if progress.state == "probe" else progress.match_index
        self.network.append(Append(index, index))

    @rule()
    def lose_patience(self) -> None:
        """What was sent and not confirmed for long may be lost."""
        self.now_ms += NO_ROOM_PAUSE_MS
        self.progress.probe()

    @rule()
    def fill_the_peer_s_disk(self) -> None:
        """It says so in an answer, and is left alone for a while."""
        self.progress.disk_full(self.now_ms)

    @precondition(lambda self: self.network)
    @rule(choice=ANY, again=st.booleans(), hint=ANY)
    def deliver(self, choice: int, again: bool, hint: int) -> None:
        """Any of what is under way, and perhaps not for the last time."""
        message = self.network[choice % len(self.network)]
        if not again:
            self.network.remove(message)
        self._deliver(message, hint)

    @precondition(lambda self: self.network)
    @rule(choice=ANY)
    def lose(self, choice: int) -> None:
        """Raft's messages may be lost without a word."""
        del self.network[choice % len(self.network)]

    @invariant()
    def believes_nothing_that_is_not_so(self) -> None:
        """Commitment counts on it."""
        if hasattr(self, "progress"):
            assert self.progress.match_index <= self.common
            assert self.progress.match_index < self.progress.next_index <= self.last + 1

    @invariant()
    def has_no_more_on_its_way_than_allowed(self) -> None:
        """One message may go over the limit; one alone is on its way while probing."""
        if hasattr(self, "progress"):
            assert 0 <= self.progress.inflight_bytes < LIMIT + 4
            assert self.progress.has_inflight == (self.progress.inflight_bytes > 0)

    def teardown(self) -> None:
        """Once the network is well, the peer gets everything in few heartbeats, whatever came before."""
        if not hasattr(self, "progress"):
            return
        self.network.clear()
        self.lose_patience()
        for _ in range(self.last + 3):
            self.beat()
            self.replicate(4)
            while self.network:
                self._deliver(self.network.pop(0), 10_000)
                self.replicate(4)
        assert (self.progress.match_index, self.progress.state) == (self.last, "replicate")
        assert not self.progress.has_inflight

    def _deliver(self, message: Append | Matched | Rejected, hint: int) -> None:
        if isinstance(message, Matched):
            self.progress.matched(message.last, self.now_ms)
        elif isinstance(message, Rejected):
            self.progress.rejected(message.prev, message.hint)
        elif message.prev <= self.common:
            self.common = max(self.common, message.last)
            self.network.append(Matched(message.last))
        else:
            # An honest hint is anything up to the place of the conflict, and behind what is common.
            hint = min(message.prev, self.common + 1 + hint % (message.prev - self.common))
            self.network.append(Rejected(message.prev, hint))


TestLeaderAndPeer = LeaderAndPeer.TestCase
