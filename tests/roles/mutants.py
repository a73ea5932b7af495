"""Roles and structures with one mistake each, as real implementations had them (and some that they were spared).

Nothing but the tests knows of them. They are subclasses of the right ones, which do all the rest.
"""

from __future__ import annotations

from typing import Any

from raftkv.actors.messages.node import (
    AppliedUpTo,
    Apply,
    PeerDown,
    ReadAt,
)
from raftkv.actors.messages.raft import (
    AppendEntries,
    AppendEntriesReply,
    BootstrapHello,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.actors.messages.requests import (
    Forward,
    PendingRequest,
    Propose,
    Read,
    Refused,
)
from raftkv.actors.roles.bootstrap import Bootstrap
from raftkv.actors.roles.candidate import Candidate
from raftkv.actors.roles.follower import Follower
from raftkv.actors.roles.leader import Leader
from raftkv.actors.roles.role import Role
from raftkv.actors.store import Store
from raftkv.raft.entry import Entry
from raftkv.raft.log import Log
from raftkv.raft.progress import Progress
from raftkv.raft.replica import Replica

ROLES: tuple[type[Role], ...] = (Bootstrap, Follower, Candidate, Leader)


def everywhere(mistake: type[Role], *but: type[Role]) -> tuple[type[Role], ...]:
    """Return all roles (``but`` some) with a mistake in what they share."""
    return tuple(type(f"{mistake.__name__}{role.__name__}", (mistake, role), {}) for role in ROLES if role not in but)


# --- durability


class SaysBeforeItIsSaved(Role):
    """Term and vote are sent before they are on disk."""

    def send_when_saved(self, address: Any, message: Any) -> None:
        self.save_hard_state()
        self.send(address, message)


class AcknowledgesBeforeItIsSaved(Follower):
    """Entries are confirmed when they are in the log, not on disk."""

    def confirm(self, message: AppendEntries, match_index: int) -> None:
        replica = self.replica
        confirmation = AppendEntriesReply(replica.node_id, replica.current_term, True, match_index, message.read_round)
        self.save_hard_state()
        self.send(self.peer(message.sender), confirmation)


class ConfirmsInHeartbeatsWhatIsNotSaved(Follower):
    """A heartbeat is answered with the end of the log."""

    def confirm(self, message: AppendEntries, match_index: int) -> None:
        replica = self.replica
        if message.entries:
            super().confirm(message, match_index)
            return
        confirmation = AppendEntriesReply(replica.node_id, replica.current_term, True, match_index, message.read_round)
        self.send_when_term_saved(self.peer(message.sender), confirmation)


class CountsItselfBeforeItIsSaved(Leader):
    """The leader takes its own log for durable."""

    def advance_commit(self) -> None:
        saves = self.replica.saves
        durable, saves.durable_index = saves.durable_index, self.replica.log.last_index
        super().advance_commit()
        saves.durable_index = durable


class ForgetsWhatWasCutOff(Replica):
    """A save under way makes durable what has been cut off since."""

    def truncate(self, index: int) -> None:
        lasts = [save.last_index for save in self.saves.pending]
        super().truncate(index)
        for save, last in zip(self.saves.pending, lasts, strict=True):
            save.last_index = last

    def saved(self, number: int) -> None:
        for save in self.saves.pending:
            save.last_index = min(save.last_index, self.log.last_index)
        super().saved(number)


class DropsWhatWasNotFlushed(Leader):
    """Entries that wait for the flush are not saved when the leader steps down."""

    def leaving(self) -> None:
        self.unflushed = []
        super().leaving()


# --- elections


class VotesForAnyLog(Log):
    """The candidate's log need not be up to date."""

    def is_up_to_date(self, last_log_index: int, last_log_term: int) -> bool:
        return True


class ComparesTheIndexFirst(Log):
    """The longer log wins, whatever its last term."""

    def is_up_to_date(self, last_log_index: int, last_log_term: int) -> bool:
        return (last_log_index, last_log_term) >= (self.last_index, self.last_term)


class ComparesTheTermAlone(Log):
    """The longer of two logs of one term does not matter."""

    def is_up_to_date(self, last_log_index: int, last_log_term: int) -> bool:
        return last_log_term >= self.last_term


class CountsMessages(Candidate):
    """Votes are counted by message, not by voter."""

    def on_RequestVoteReply(self, message: RequestVoteReply) -> None:
        counted = len(self.votes)
        super().on_RequestVoteReply(message)
        if self.has_replica and message.vote_granted and len(self.votes) == counted:
            self.votes.add(min(self.replica.configuration.all_voters - self.votes, default=""))
            self.count_votes()


class CountsVotesOfAnyTerm(Candidate):
    """A vote of an earlier election counts, and a pre-vote like a vote."""

    def on_RequestVoteReply(self, message: RequestVoteReply) -> None:
        if message.vote_granted:
            self.votes.add(message.sender)
            self.count_votes()
        else:
            super().on_RequestVoteReply(message)


class VotesAgainAfterSteppingDown(Candidate):
    """Stepping down within a term clears the vote."""

    def leaving(self) -> None:
        super().leaving()
        if self.replica.voted_for == self.replica.node_id:
            self.replica.voted_for = None


class VotesTwice(Role):
    """A second candidate of a term gets a vote too."""

    def on_RequestVote(self, message: RequestVote) -> None:
        if message.term == self.replica.current_term and self.role == "follower":
            self.replica.voted_for = None
        super().on_RequestVote(message)


class CampaignsWithoutAsking(Candidate):
    """No pre-vote: a node that was cut off returns in a later term."""

    def ask_pre_votes(self) -> None:
        self.campaign(transfer=False)


class HearsNoLeader(Role):
    """A candidate is voted for though the leader has just been heard."""

    def hears_leader(self) -> bool:
        return False


class StaysInOfficeAlone(Leader):
    """The leader does not notice that no peer answers."""

    def majority_answers(self, now_ms: float) -> bool:
        return True


class AlwaysWaitsTheSame(Role):
    """Election timeouts are not random."""

    def election_timeout(self) -> float:
        return self.environment.timing.election_min_ms


class NeverCampaigns(Follower):
    """After a restart no node campaigns."""

    def may_campaign(self, now_ms: float) -> bool:
        return False


class IgnoresLaterTerms(Leader):
    """A leader does not step down when it learns of a later term."""

    def follow_later_term(self, message: Any) -> bool:
        return False


class OldTimeoutNow(Follower):
    """A node obeys a `TimeoutNow` of a former leader."""

    def on_TimeoutNow(self, message: TimeoutNow) -> None:
        super().on_TimeoutNow(TimeoutNow(message.sender, self.replica.current_term))


# --- replication


class CommitsByCounting(Leader):
    """Entries of earlier terms are committed once a majority has them (figure 3.7)."""

    def advance_commit(self) -> None:
        index = self.replication.majority_index()
        if index > self.replica.commit_index:
            self.commit_to(index)


class BeginsWithoutNoOp(Leader):
    """A new leader waits for a client."""

    def append_noop(self) -> None:
        pass


class CutsOffOnAnyAppend(Follower):
    """All entries after those of a request are removed."""

    def append(self, entries: tuple[Entry, ...]) -> bool:
        replica = self.replica
        if entries and entries[0].index <= replica.log.last_index:
            replica.log.truncate(entries[0].index)
            replica.saves.truncate(entries[0].index)
        return super().append(entries)


class NeverCutsOff(Follower):
    """Conflicting entries stay, and what comes for their places is taken for known."""

    def append(self, entries: tuple[Entry, ...]) -> bool:
        return super().append(tuple(e for e in entries if e.index > self.replica.log.last_index))


class SkipsTheConsistencyCheck(Log):
    """The entry before those of a request need not match."""

    def matches(self, index: int, term: int) -> bool:
        return index <= self.last_index


class CommitsPastTheNewEntries(Follower):
    """All of one's own log is committed as far as the leader's commit index goes."""

    def on_AppendEntries(self, message: AppendEntries) -> None:
        super().on_AppendEntries(message)
        if self.has_replica and message.term == self.replica.current_term:
            self.commit_to(min(message.leader_commit, self.replica.log.last_index))


class CountsAnswersOfAnyTerm(Leader):
    """Late answers to an earlier leader count."""

    def on_AppendEntriesReply(self, message: AppendEntriesReply) -> None:
        if message.term < self.replica.current_term:
            message = AppendEntriesReply(
                message.sender, self.replica.current_term, message.success, message.match_index, message.read_round
            )
        super().on_AppendEntriesReply(message)


class TakesAProbeForAMatch(Progress):
    """What the leader guesses of a peer's log counts as known."""

    def __init__(self, next_index: int, now_ms: float, inflight_limit_bytes: int) -> None:
        super().__init__(next_index, now_ms, inflight_limit_bytes)
        self.match_index = next_index - 1


class MatchGoesBack(Progress):
    """A late confirmation lowers what is known to match."""

    def matched(self, index: int, now_ms: float) -> bool:
        self.match_index = min(self.match_index, index)
        return super().matched(index, now_ms)


class SentIsMatched(Progress):
    """Entries count as replicated when they are sent."""

    def sent(self, last_index: int, size: int, now_ms: float) -> None:
        super().sent(last_index, size, now_ms)
        self.match_index = max(self.match_index, last_index)
        self.next_index = max(self.next_index, last_index + 1)


class StepsBackAlone(Progress):
    """After a refusal the leader probes where it did before."""

    def rejected(self, prev_log_index: int, next_index: int) -> bool:
        return super().rejected(prev_log_index, prev_log_index + 1)


class AppliesWhatIsNotOnDisk(Role):
    """The store is given what is committed, though this node's disk has not got it."""

    def apply_committed(self) -> None:
        saves = self.replica.saves
        durable, saves.durable_index = saves.durable_index, self.replica.log.last_index
        super().apply_committed()
        saves.durable_index = durable


class SkipsWhenItAppliesInPieces(Role):
    """With more committed than fits into one piece, the rest is skipped."""

    def apply_committed(self) -> None:
        super().apply_committed()
        replica = self.replica
        replica.applying_index = max(replica.applying_index, min(replica.commit_index, replica.durable_index))


class AppliesTwice(Store):
    """Entries that come again are applied again."""

    def on_Apply(self, message: Apply) -> None:
        self.last_applied = min(self.last_applied, message.first_index - 1)
        super().on_Apply(message)


class AppliedInOrderOnly(Role):
    """An `AppliedUpTo` that arrives late, after a change of role, is an error."""

    def on_AppliedUpTo(self, message: AppliedUpTo) -> None:
        assert self.replica.last_applied <= message.index
        super().on_AppliedUpTo(message)


# --- reads and requests


class ReadsWithoutARound(Leader):
    """A leader answers reads without asking whether it still is one."""

    def serve(self, asked: PendingRequest) -> None:
        if isinstance(asked.request, Read) and self.replica.commit_index >= self.term_start:
            self.serve_read(asked, self.replica.commit_index)
        else:
            super().serve(asked)


class ReadsBeforeTheNoOp(Leader):
    """A leader answers reads before it knows what is committed."""

    def begin_round(self) -> None:
        start, self.term_start = self.term_start, 0
        super().begin_round()
        self.term_start = start


class JoinsARoundUnderWay(Leader):
    """A read is confirmed by answers to heartbeats that were sent before it came."""

    def begin_round(self) -> None:
        if self.rounds.under_way is not None:
            self.rounds.under_way.reads.extend(self.rounds.waiting)
            self.rounds.waiting = []
        super().begin_round()


class OneRoundForAll(Leader):
    """All rounds of a term have one name, so that an answer to one confirms the next."""

    def begin_round(self) -> None:
        if self.rounds.waiting and self.rounds.under_way is None:
            self.rounds.sent = 0
        super().begin_round()


class ReadsAtOnceInTheStore(Store):
    """A query is answered before its read index is applied."""

    def on_ReadAt(self, message: ReadAt) -> None:
        self.answer(message)


class StaleReadsAtOnce(Role):
    """After a restart a node shows what it has applied again so far."""

    def on_PendingRequest(self, asked: PendingRequest) -> None:
        self.replica.min_stale_read_index = 0
        super().on_PendingRequest(asked)


class StaleReadsFromAnyCommit(Follower):
    """The first commit index heard counts though it may be behind what was acknowledged."""

    def on_AppendEntries(self, message: AppendEntries) -> None:
        if self.replica.min_stale_read_index is None and message.term >= self.replica.current_term:
            self.replica.min_stale_read_index = message.leader_commit
        super().on_AppendEntries(message)


class StepsDownWithAnAnswer(Leader):
    """When a leader steps down, it answers waiting writes with "not done"."""

    def leaving(self) -> None:
        for reply_to in self.replica.requests.take_expired_waiters(float("inf")):
            self.reply(reply_to, Refused("not_leader", "leadership was lost"))
        super().leaving()


class LostMeansNotDone(Role):
    """A write that was passed on over a connection that ended is said not to be done."""

    def answer_to_lost(self, request: object, why: str) -> Refused:
        return Refused("retry", why)


class PassesOnTwice(Role):
    """A request that was lost with a connection is passed on again."""

    def on_PeerDown(self, message: PeerDown) -> None:
        lost = self.replica.requests.take_forwarded_to(message.peer)
        super().on_PeerDown(message)
        self.replica.requests.held.extend(lost)


class HopsOn(Role):
    """A forwarded request is forwarded again."""

    def serve(self, asked: PendingRequest) -> None:
        leader = self.replica.leader_id
        if asked.reply_to.forward is not None and leader and isinstance(asked.request, Propose):
            number = self.replica.requests.forward(asked, leader)
            forwarded = Forward(self.replica.node_id, self.replica.boot_id, number, asked.request)
            self.send(self.peer(leader), forwarded)
        else:
            super().serve(asked)


class AnswersByIndexAlone(Role):
    """A client waiting at an index is answered when any entry commits there."""

    def waiters_of(self, entries: Any) -> Any:
        for entry in entries:
            for waiting in self.replica.requests.take_waiters(entry.index):
                yield entry.index, waiting.reply_to


# --- the baton


class DropsWithoutTheReplica(Role):
    """What comes to a role that has just handed the replica on is lost."""

    def handle_without_replica(self, message: Any) -> None:
        pass


class ReturnsItsFlush(Role):
    """A flush of an earlier tenure goes back to Node."""

    def handle_without_replica(self, message: Any) -> None:
        self.send(self.start.node, message)


class HeedsOldWakeUps(Role):
    """Any wake-up will do."""

    def on_WakeupMessage(self, message: Any) -> None:
        self.wake(self.now())


class ForgetsTheCause(Role):
    """The message that changed the role is not handled by the new one."""

    def on_Assume(self, message: Any) -> None:
        message.cause = None
        super().on_Assume(message)


# --- the founding


class FoundsWithAMajority(Bootstrap):
    """The cluster begins when most of its nodes have met."""

    def found_if_all_met(self) -> None:
        mine = self.all_met()
        others = [peer for peer in self.met if peer != self.replica.node_id]
        if len(mine) > (len(self.others) + 1) // 2 and all(self.met_by.get(peer) == mine for peer in others):
            self.found(mine, "most of us have met")


class FoundsWhenItHasMetAll(Bootstrap):
    """The others need not have met each other."""

    def found_if_all_met(self) -> None:
        for peer in self.met_by:
            self.met_by[peer] = self.all_met()
        super().found_if_all_met()


class AdoptsAnyFounding(Bootstrap):
    """A node whose disk was wiped goes on as if nothing had happened."""

    def on_BootstrapHello(self, message: BootstrapHello) -> None:
        if message.founding:
            self.adopt(message.founding, "whoever we are")
        else:
            super().on_BootstrapHello(message)


class BelievesOldIntroductions(Bootstrap):
    """An incarnation that is gone is believed again."""

    def on_BootstrapHello(self, message: BootstrapHello) -> None:
        if not message.founding and message.sender in self.met:
            self.met[message.sender] = ""
        super().on_BootstrapHello(message)
