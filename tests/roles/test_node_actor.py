"""Node: it makes a node's actors, passes messages to the role that has the replica, and stops when one is lost."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from thespian.actors import ActorAddress, ActorExitRequest, ChildActorExited, PoisonMessage

from raftkv.actors.messages.node import (
    AdvertiseAddress,
    Assume,
    PeerDown,
    PeerUp,
    Recovered,
    RoleChanged,
    Saved,
    Start,
)
from raftkv.actors.messages.raft import AppendEntries, RequestVote
from raftkv.actors.messages.requests import (
    AskReadIndex,
    AskStatus,
    Forward,
    ForwardReply,
    PendingRequest,
    Propose,
    Read,
    Refused,
    ReplyTo,
    Resign,
    Status,
)
from raftkv.config.settings import Limits
from raftkv.raft.configuration import initial_cluster_hash
from raftkv.store.commands import Get
from tests.roles.backstage import Backstage
from tests.roles.rehearsal import NAMES, ROOM, append, entry, log, put

WRITE = Propose((put(1, 1),), 1000.0)
ROLES = ("bootstrap", "follower", "candidate", "leader")


def mail(backstage: Backstage, role: str = "follower") -> list[Any]:
    """Return what waits for a role."""
    return backstage.waiting(role)


def started(**options: Any) -> Backstage:
    """Return a node that has read its journal; what it sends its roles from now on stays in their mailboxes."""
    backstage = Backstage(**options)
    backstage.recovers()
    assert backstage.holder == "follower"
    return backstage


# --- starting


def test_every_actor_of_a_node_is_told_of_the_others_first() -> None:
    """Whom it talks to, and its only access to time, chance and disk."""
    backstage = Backstage()
    starts = [backstage.role(role).start for role in ROLES]

    start: Start = starts[0]
    # Chance is not shared where messages are pickled.
    assert [msgspec.structs.replace(other, environment=start.environment) for other in starts] == [start] * len(ROLES)
    addresses = (start.node, start.journal, start.store, start.peer_address("n2"))
    assert [address.addressDetails for address in addresses] == ["n1", "n1/mutejournal", "n1/mutestore", "n2"]
    assert start.initial_cluster == tuple((name, f"{name}:5001") for name in NAMES)
    # Chance is not shared where messages are pickled.
    same = [msgspec.structs.replace(each.environment, rng=start.environment.rng) for each in starts]
    assert same == [start.environment] * len(ROLES)
    assert start.environment.clock is backstage.stage.clock
    assert start.environment.directory == "/data/n1"


def test_a_node_with_data_begins_as_a_follower() -> None:
    """3.4: when servers start up, they begin as followers; with their term, vote and log."""
    backstage = Backstage()
    backstage.recovers(term=4, voted_for="n3", entries=log(2, 4))

    replica = backstage.replica
    assert backstage.holder == "follower"
    assert (replica.current_term, replica.voted_for, replica.saves.durable_term) == (4, "n3", 4)
    assert (replica.log.last_index, replica.durable_index, replica.commit_index) == (3, 3, 0)


def test_a_node_without_data_begins_as_bootstrap() -> None:
    """It has no configuration, so it neither votes nor campaigns."""
    backstage = Backstage()
    backstage.recovers(term=0, entries=())

    assert backstage.holder == "bootstrap"


def test_a_vote_survives_a_restart() -> None:
    """3.8: the node does not vote for another candidate of the term."""
    backstage = Backstage()
    backstage.recovers(term=4, voted_for="n3")

    (answer,) = backstage.gets(RequestVote("n2", 4, 9, 4))

    assert (answer[0], answer[1].vote_granted, answer[1].term) == ("n2", False, 4)


def test_data_of_another_cluster_are_not_used() -> None:
    """The node stops and says why; no role gets the replica."""
    backstage = Backstage()
    backstage.recovers(entries=log(names=("n1", "n8", "n9")))

    ((status, line),) = backstage.failures
    assert status == 1
    assert line.startswith("data directory /data/n1 belongs to another cluster: ")
    assert line.endswith(" of n1, n8, n9, while --cluster names n1, n2, n3")
    assert backstage.holder is None


def test_the_number_of_a_life_is_drawn_at_each_start() -> None:
    """So that answers to requests of an earlier life are known as such."""
    backstage = started()
    first = backstage.replica.boot_id
    backstage.post(Recovered(1, None, log(), ROOM))
    backstage.handle("n1")

    (assume,) = mail(backstage)
    assert assume.replica.boot_id != first


def test_the_start_list_is_one_thing_in_any_order() -> None:
    """Everyone may write it differently; but not with other addresses."""
    one = (("n1", "a:1"), ("n2", "b:1"))

    assert initial_cluster_hash(one) == initial_cluster_hash(one[::-1])
    assert initial_cluster_hash(one) != initial_cluster_hash((("n1", "a:1"), ("n2", "b:2")))


# --- before there is a replica


def test_requests_that_come_early_wait_in_their_order() -> None:
    """Reading a journal takes time; whoever asks meanwhile is not sent away."""
    backstage = Backstage()
    read = Read((Get("k"),), "linearizable", 500.0)
    assert backstage.gets(WRITE, PeerUp("n2"), read, PeerDown("n2", "reset")) == [
        ("n2", AdvertiseAddress("n1", backstage.node.boot.http))
    ]

    backstage.recovers()

    assert [asked.request for asked in backstage.replica.requests.held] == [WRITE, read]
    assert backstage.replica.connected == set()


def test_status_is_answered_while_the_journal_is_read() -> None:
    """Whoever looks must see that the node is there, and what it does."""
    ((target, status),) = Backstage().gets(AskStatus())

    assert target == "test"
    assert isinstance(status, Status)
    assert (status.id, status.leader, status.reason) == ("n1", None, "this node is reading its journal")


def test_requests_that_come_early_are_bounded() -> None:
    """What does not fit is refused at once; a peer is answered as a peer."""
    backstage = Backstage(limits=Limits(held_requests=1))
    backstage.gets(WRITE)

    full = Refused("overloaded", "this node is reading its journal")
    assert backstage.gets(WRITE, Forward("n2", 5, 8, WRITE)) == [
        ("test", full),
        ("n2", ForwardReply("n1", 5, 8, full)),
    ]


def test_messages_of_raft_that_come_early_are_dropped() -> None:
    """They may be lost at any time, and a node that knows neither its term nor its vote can't answer them."""
    backstage = Backstage()

    assert backstage.gets(RequestVote("n2", 4, 9, 4), append(entry(2, 1), term=4)) == []
    assert backstage.recovers() == []
    assert backstage.replica.current_term == 1


# --- passing on


def test_a_request_gets_its_client_and_its_deadline_here() -> None:
    """From here on it has a deadline on this node's clock."""
    backstage = started()
    backstage.stage.clock.ms = 500.0
    resign = Resign(200.0)

    backstage.post(WRITE, AskStatus(), resign, sender="client")
    backstage.handle("n1", 3)

    reply_to = ReplyTo(ActorAddress("client"))
    assert mail(backstage) == [
        PendingRequest(WRITE, reply_to, 1500.0),
        PendingRequest(AskStatus(), reply_to, 500.0),
        PendingRequest(resign, reply_to, 700.0),
    ]


def test_the_answer_to_what_a_peer_passes_on_goes_to_that_peer_s_node() -> None:
    """By the boot number and the number of its request; a node that is no member gets none."""
    backstage = started()
    backstage.post(Forward("n2", 5, 8, AskReadIndex(100.0)), Forward("n9", 5, 8, WRITE))
    backstage.handle("n1", 2)

    assert mail(backstage) == [PendingRequest(AskReadIndex(100.0), ReplyTo(ActorAddress("n2"), (5, 8)), 100.0)]


def test_messages_go_to_the_role_that_has_the_replica_or_is_about_to() -> None:
    """From the handing over on, they go to the new one, behind the replica."""
    backstage = started()
    vote = RequestVote("n2", 1, 1, 1, pre_vote=True)
    assume = Assume(backstage.replica, "candidate", "the test says so")

    backstage.post(vote, assume, vote)
    backstage.handle("n1", 3)

    assert mail(backstage, "follower") == [vote]
    handed, behind = mail(backstage, "candidate")
    assert (handed.role, handed.replica.node_id, behind) == ("candidate", "n1", vote)


@pytest.mark.parametrize("message", ["text", 7, Start, Saved])
def test_what_is_no_message_of_ours_is_ignored(message: Any) -> None:
    """Nothing that anyone sends can stop a node."""
    backstage = started()

    assert backstage.gets(message) == []
    assert backstage.failures == []


def test_a_peer_that_comes_is_told_where_clients_reach_this_node() -> None:
    """And the role learns that the peer is there."""
    backstage = started()

    assert backstage.gets(PeerUp("n2")) == [("n2", AdvertiseAddress("n1", backstage.node.boot.http))]
    assert backstage.replica.connected == {"n2"}
    assert backstage.gets(PeerUp("n9")) == []


def test_the_observer_hears_of_changes_and_of_where_the_others_are() -> None:
    """It tells the rest of the process."""
    backstage = started()
    told: list[Any] = [RoleChanged("n1", "follower", 3, "n2", "n2 leads"), AdvertiseAddress("n2", "b:4001")]
    backstage.changes.clear()

    assert backstage.gets(*told) == []
    assert backstage.changes == told


# --- failing


def test_a_node_stops_when_one_of_its_actors_has_ended() -> None:
    """None of them ends before the node does."""
    backstage = started()
    backstage.gets(ChildActorExited(ActorAddress("n1/store")))

    ((status, line),) = backstage.failures
    assert (status, line.startswith("an actor of node n1 has ended: ")) == (70, True)


def test_its_actors_may_end_when_the_node_is_told_to() -> None:
    """That is how a node stops."""
    backstage = started()
    backstage.gets(ActorExitRequest(), ChildActorExited(ActorAddress("n1/store")))

    assert backstage.failures == []


def test_a_node_stops_when_an_actor_could_not_handle_a_message() -> None:
    """Its state may be wrong."""
    backstage = started()
    backstage.gets(PoisonMessage(AppendEntries("n2", 1, 0, 0, (), 0)))

    ((status, line),) = backstage.failures
    assert (status, line.startswith("an actor of node n1 failed on AppendEntries(sender='n2'")) == (70, True)


def test_a_bug_in_node_stops_the_node() -> None:
    """A half-done handler must not be survived."""
    backstage = started()
    backstage.gets(Assume(backstage.replica, "king", "no such role"))  # type: ignore[arg-type]

    ((status, line),) = backstage.failures
    assert (status, line.startswith("bug in node: KeyError('king') on ")) == (70, True)


def test_a_bug_in_a_role_stops_the_node() -> None:
    """And is told with its trace."""
    backstage = started()
    backstage.replica.log = None
    backstage.gets(append(term=9))

    ((status, line),) = backstage.failures
    assert status == 70
    assert line.startswith("bug in follower: AttributeError(")
    assert "Traceback (most recent call last)" in line
