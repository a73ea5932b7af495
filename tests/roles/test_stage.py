"""The stage: messages go by reference, and with ``--pickled`` as copies, so that sharing what was sent shows."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from thespian.actors import Actor, ActorAddress

from raftkv.actors.messages.node import Assume
from raftkv.actors.roles.follower import Follower
from raftkv.raft.replica import Replica
from tests.roles.rehearsal import Player, append, entry, follower, log
from tests.support.stage import ManualClock, Stage


class Forgetful(Actor):
    """Keeps what it gets, and changes what it has sent."""

    def receiveMessage(self, message: list[str], sender: Any) -> None:
        """Send the message on, and only then finish it."""
        self.kept = message
        self.send(ActorAddress("other"), message)
        message.append("too late")


class Clinging(Follower):
    """Goes on as if a replica that was handed on were still its own."""

    def become(self, *arguments: Any) -> None:
        """Hand the replica on, and cut its log off."""
        replica = self.replica
        super().become(*arguments)
        replica.log.truncate(2)


def test_messages_are_carried_as_the_run_was_told_to(pytestconfig: pytest.Config) -> None:
    assert Stage.pickles == pytestconfig.getoption("--pickled")


@pytest.mark.parametrize(("pickles", "arrives"), [(False, ["in time", "too late"]), (True, ["in time"])])
def test_what_is_changed_after_it_was_sent_is_changed_for_the_receiver_or_not(
    pickles: bool, arrives: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stage, "pickles", pickles)
    stage = Stage()
    actor: Any = stage.put("actor", Forgetful)
    given = ["in time"]
    stage.give("actor", given)

    assert stage.sent == [("actor", "other", arrives)]
    assert (actor.kept is given) == (not pickles)


@pytest.mark.parametrize("pickles", [False, True])
def test_a_role_that_keeps_the_replica_harms_the_next_one_only_where_they_share_it(
    pickles: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Stage, "pickles", pickles)
    monkeypatch.setitem(follower.__globals__["CLASSES"], "follower", Clinging)
    player = follower(term=2, entries=log(1, 2))

    player.waits_ms(1000.0)

    assert (player.role, player.replica.log.last_index) == ("candidate", 3 if pickles else 1)


def test_what_a_player_shows_is_the_replica_that_its_role_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stage, "pickles", True)
    given = Replica("n1", "n1-1", 77, current_term=1, entries=log(), free_bytes=1 << 40)
    player = Player("follower", given)
    assert player.replica is given
    player.starts()
    player.gets(append(entry(2, 1), term=1))

    assert (given.log.last_index, player.replica.log.last_index) == (1, 2)
    assert player.replica is player.roles["follower"].replica


def test_time_is_the_same_for_all_who_were_told_of_a_clock() -> None:
    clock, other = ManualClock(), ManualClock()

    assert [pickle.loads(pickle.dumps(each)) is each for each in (clock, other)] == [True, True]
    assert pickle.loads(pickle.dumps(clock)) is not other


def test_every_message_of_the_baton_can_be_pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stage, "pickles", True)
    replica = Replica("n1", "n1-1", 77, current_term=3, voted_for="n2", entries=log(2, 3), free_bytes=1 << 40)

    copy = Stage().carried(Assume(replica, "leader", "why", append(term=4)))

    assert (copy.role, copy.reason, copy.cause) == ("leader", "why", append(term=4))
    assert copy.replica is not replica
    assert (copy.replica.current_term, copy.replica.log.span(1, 3)) == (3, replica.log.span(1, 3))
