"""Whether the tests would notice: each mistake is put in, and each script that is named for it must fail upon it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
from thespian.actors import Actor

from raftkv.actors.messages.node import Flush
from raftkv.actors.node import ROLES
from raftkv.actors.roles.role import Role
from raftkv.actors.store import Store
from raftkv.raft.log import Log
from raftkv.raft.progress import Progress
from raftkv.raft.replica import Replica
from tests.roles import (
    mutants,
    rehearsal,
    test_bootstrap,
    test_forwarding,
    test_handover,
    test_reads,
    test_regressions,
    test_replication,
    test_store,
    test_votes,
)
from tests.roles.backstage import QuietNode
from tests.roles.mutants import everywhere
from tests.support.in_memory import MemoryNode

Script = Callable[[], None]

PLACES: dict[type, tuple[str, ...]] = {
    Log: ("raftkv.raft.replica.Log", "tests.roles.test_votes.Log"),
    Replica: ("raftkv.actors.node.Replica", "tests.roles.rehearsal.Replica"),
    Progress: ("raftkv.actors.roles.replication.Progress",),
    Store: ("tests.roles.test_store.Store",),
}
"""Where the right ones are named."""


@dataclass
class Mutant:
    """A mistake, and the scripts that notice it."""

    classes: tuple[type, ...]
    scripts: tuple[Script, ...]

    @property
    def name(self) -> str:
        """The mistake, as the class of the first role that makes it is called."""
        name: str = self.classes[0].__name__
        return name.removesuffix("Bootstrap") if len(self.classes) > 1 else name


def mutant(what: type | tuple[type, ...], *scripts: Script) -> Any:
    """Return the parameter of a test."""
    one = Mutant(what if isinstance(what, tuple) else (what,), scripts)
    return pytest.param(one, id=one.name)


def put_in(monkeypatch: pytest.MonkeyPatch, classes: tuple[type, ...]) -> None:
    """Put classes in the place of those that they derive from, in scripts and clusters."""
    roles: list[type[Role]] = list(ROLES)
    for wrong in classes:
        if issubclass(wrong, Role):
            monkeypatch.setitem(rehearsal.CLASSES, wrong.role, wrong)
            roles = [wrong if role.role == wrong.role else role for role in roles]
        elif issubclass(wrong, Actor) and not issubclass(wrong, Store):
            monkeypatch.setattr(MemoryNode, "journal_class", wrong)
        for right, places in PLACES.items():
            if issubclass(wrong, right):
                for place in places:
                    monkeypatch.setattr(place, wrong)
        if issubclass(wrong, Store):
            monkeypatch.setattr(MemoryNode, "store_class", wrong)
    for node in (MemoryNode, QuietNode):
        monkeypatch.setattr(node, "role_classes", tuple(roles))


votes, replication, reads = test_votes, test_replication, test_reads
handover, founding, found = test_handover, test_bootstrap, test_regressions

DURABILITY = [
    mutant(
        everywhere(mutants.SaysBeforeItIsSaved),
        votes.test_a_vote_is_not_said_before_it_is_durable,
        votes.test_asks_for_votes_only_once_its_own_is_durable,
    ),
    mutant(
        mutants.AcknowledgesBeforeItIsSaved,
        replication.test_appends_what_follows_its_log_and_confirms_it_when_durable,
    ),
    mutant(
        mutants.ConfirmsInHeartbeatsWhatIsNotSaved,
        replication.test_a_heartbeat_is_answered_at_once_and_reports_only_what_is_durable,
    ),
    mutant(
        mutants.CountsItselfBeforeItIsSaved,
        replication.test_a_leader_saves_and_sends_in_parallel_and_counts_itself_by_its_disk,
    ),
    mutant(
        mutants.ForgetsWhatWasCutOff,
        replication.test_a_save_under_way_does_not_make_durable_what_was_cut_off_meanwhile,
    ),
    mutant(
        mutants.DropsWhatWasNotFlushed,
        handover.test_writes_that_were_not_flushed_are_saved_by_who_steps_down_of_its_own_accord,
    ),
]
ELECTIONS = [
    mutant(
        mutants.VotesForAnyLog,
        partial(votes.test_votes_only_for_a_log_at_least_as_up_to_date, (1, 1, 2), (2, 1)),
    ),
    mutant(
        mutants.ComparesTheIndexFirst,
        votes.test_the_longer_log_of_an_earlier_term_is_not_more_up_to_date,
    ),
    mutant(
        mutants.ComparesTheTermAlone,
        partial(votes.test_votes_only_for_a_log_at_least_as_up_to_date, (1, 1), (1, 1)),
    ),
    mutant(mutants.CountsMessages, votes.test_votes_are_counted_by_voter_not_by_message),
    mutant(mutants.CountsVotesOfAnyTerm, votes.test_votes_of_another_term_do_not_count),
    mutant(
        mutants.VotesAgainAfterSteppingDown,
        votes.test_a_candidate_of_the_same_term_keeps_its_vote_when_it_steps_down,
    ),
    mutant(everywhere(mutants.VotesTwice), votes.test_grants_at_most_one_vote_per_term),
    mutant(
        mutants.CampaignsWithoutAsking,
        votes.test_a_follower_that_hears_nothing_asks_for_pre_votes_and_changes_nothing,
    ),
    mutant(
        everywhere(mutants.HearsNoLeader),
        votes.test_whoever_hears_a_leader_refuses_pre_votes_and_ignores_candidates,
        votes.test_a_leader_ignores_a_candidate_that_the_majority_has_no_need_of,
    ),
    mutant(mutants.StaysInOfficeAlone, votes.test_a_leader_that_no_majority_answers_steps_down),
    mutant(everywhere(mutants.AlwaysWaitsTheSame), votes.test_election_timeouts_are_drawn_anew_each_time),
    mutant(mutants.NeverCampaigns, votes.test_a_follower_that_hears_nothing_asks_for_pre_votes_and_changes_nothing),
    mutant(mutants.IgnoresLaterTerms, votes.test_a_leader_steps_down_for_a_later_term_whoever_tells_it),
    mutant(mutants.OldTimeoutNow, votes.test_an_old_timeout_now_is_ignored),
]
REPLICATION = [
    mutant(
        mutants.CommitsByCounting,
        replication.test_figure_8_an_entry_of_an_earlier_term_is_not_committed_by_counting,
    ),
    mutant(mutants.BeginsWithoutNoOp, votes.test_a_leader_begins_its_term_with_a_no_op),
    mutant(
        mutants.CutsOffOnAnyAppend,
        replication.test_a_delayed_request_does_not_cut_off_what_a_later_one_added,
    ),
    mutant(mutants.NeverCutsOff, replication.test_a_conflicting_entry_and_all_after_it_are_replaced),
    mutant(
        mutants.SkipsTheConsistencyCheck,
        replication.test_a_rejection_names_the_conflicting_term_and_its_first_index,
    ),
    mutant(
        mutants.CommitsPastTheNewEntries,
        replication.test_commits_no_further_than_the_last_entry_of_the_request,
    ),
    mutant(mutants.CountsAnswersOfAnyTerm, replication.test_answers_of_an_earlier_term_are_ignored),
    mutant(
        mutants.TakesAProbeForAMatch,
        replication.test_a_leader_goes_back_past_the_whole_conflicting_term,
    ),
    mutant(mutants.MatchGoesBack, replication.test_an_old_confirmation_does_not_lower_the_match_index),
    mutant(
        mutants.SentIsMatched,
        replication.test_nothing_is_committed_that_the_leader_alone_has,
    ),
    mutant(mutants.StepsBackAlone, replication.test_a_leader_goes_back_past_the_whole_conflicting_term),
    mutant(
        everywhere(mutants.AppliesWhatIsNotOnDisk),
        replication.test_applies_only_what_is_committed_and_on_its_own_disk,
    ),
    mutant(
        everywhere(mutants.SkipsWhenItAppliesInPieces),
        replication.test_much_that_is_committed_at_once_is_applied_in_pieces_without_a_gap,
    ),
    mutant(mutants.AppliesTwice, test_store.test_entries_that_were_applied_before_are_skipped),
    mutant(
        everywhere(mutants.AppliedInOrderOnly),
        found.test_what_the_store_says_may_be_overtaken_at_a_change_of_role,
    ),
]
REQUESTS = [
    mutant(
        mutants.ReadsWithoutARound,
        reads.test_a_read_is_answered_once_a_majority_has_answered_a_round_of_heartbeats,
    ),
    mutant(mutants.ReadsBeforeTheNoOp, reads.test_reads_wait_for_the_no_op_of_the_term),
    mutant(mutants.JoinsARoundUnderWay, reads.test_a_read_joins_a_round_that_was_not_sent_yet),
    mutant(mutants.OneRoundForAll, reads.test_old_answers_after_a_pause_do_not_confirm_a_new_read),
    mutant(mutants.ReadsAtOnceInTheStore, test_store.test_a_query_waits_until_its_read_index_is_applied),
    mutant(
        everywhere(mutants.StaleReadsAtOnce),
        reads.test_no_message_of_an_earlier_life_tells_a_stale_read_what_to_show,
    ),
    mutant(
        mutants.StaleReadsFromAnyCommit,
        found.test_a_stale_read_after_a_restart_asks_for_a_read_index,
    ),
    mutant(
        mutants.StepsDownWithAnAnswer,
        replication.test_writes_pending_when_a_leader_steps_down_are_answered_when_their_fate_is_known,
    ),
    mutant(
        everywhere(mutants.LostMeansNotDone),
        test_forwarding.test_what_was_passed_on_to_a_leader_that_is_lost_may_have_been_done,
    ),
    mutant(
        everywhere(mutants.PassesOnTwice),
        test_forwarding.test_what_was_passed_on_to_a_leader_that_is_lost_may_have_been_done,
    ),
    mutant(
        (type("HopsOn", (mutants.HopsOn, ROLES[1]), {}),),
        partial(
            test_forwarding.test_a_request_goes_one_hop_and_never_more,
            lambda: rehearsal.follower_of("n2"),
            "n2",
            rehearsal.write(reply_to="n3", forward=(5, 1)),
        ),
    ),
    mutant(
        everywhere(mutants.AnswersByIndexAlone),
        replication.test_a_write_whose_place_another_entry_took_was_not_committed,
    ),
]
BATON = [
    mutant(
        everywhere(mutants.DropsWithoutTheReplica),
        handover.test_a_write_that_comes_during_a_change_of_role_is_neither_lost_nor_done_twice,
    ),
    mutant(
        everywhere(mutants.ReturnsItsFlush),
        partial(handover.test_a_role_without_the_replica_drops_its_own_wake_ups_and_flushes, "leader", Flush()),
    ),
    mutant(everywhere(mutants.HeedsOldWakeUps), handover.test_an_old_wake_up_is_not_taken_for_one_of_a_new_tenure),
    mutant(
        everywhere(mutants.ForgetsTheCause),
        handover.test_the_cause_is_handled_by_the_new_role_before_anything_else,
    ),
]
FOUNDING = [
    mutant(
        mutants.FoundsWithAMajority,
        founding.test_nothing_is_founded_while_one_is_missing,
        partial(founding.test_never_are_there_two_clusters, 0),
    ),
    mutant(mutants.FoundsWhenItHasMetAll, founding.test_having_met_everyone_is_not_enough),
    mutant(
        mutants.AdoptsAnyFounding, founding.test_a_node_that_was_wiped_after_the_founding_stays_out_and_the_others_go_on
    ),
    mutant(
        mutants.BelievesOldIntroductions,
        founding.test_replayed_introductions_of_an_incarnation_that_is_gone_are_ignored,
    ),
]
ALL = [*DURABILITY, *ELECTIONS, *REPLICATION, *REQUESTS, *BATON, *FOUNDING]


@pytest.mark.parametrize("mistake", ALL)
def test_a_script_catches(mistake: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the scripts that are named for it fails on the mistake."""
    assert mistake.scripts, "a mistake that nothing is asked about would pass as caught"
    put_in(monkeypatch, mistake.classes)
    for script in mistake.scripts:
        with pytest.raises((AssertionError, ValueError)):
            script()
