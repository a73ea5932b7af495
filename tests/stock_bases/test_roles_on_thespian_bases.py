"""The roles are ordinary Thespian actors: on Thespian's own system bases they do the same as on ours."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from thespian.actors import ActorAddress, ActorSystem

from raftkv.actors.messages.node import Apply, Save
from raftkv.actors.messages.raft import (
    AppendEntries,
    AppendEntriesReply,
    RequestVote,
    RequestVoteReply,
)
from raftkv.actors.messages.requests import (
    Forward,
    PendingRequest,
    Propose,
    ReplyTo,
)
from raftkv.actors.system.base.eventloop import install
from raftkv.raft.entry import Entry, Kind
from raftkv.raft.replica import Replica
from raftkv.store.commands import Put, encode_commands
from tests.roles.rehearsal import log
from tests.stock_bases.world import GetSent, SetUp, ToRole, World
from tests.support.processes import free_ports

WITHIN_S = 30.0
PATIENT_MS = 60_000.0
BASES: dict[str, tuple[str, dict[str, Any]]] = {
    "simpleSystemBase": ("simpleSystemBase", {}),
    "multiprocTCPBase": ("multiprocTCPBase", {"Convention Address.IPv4": ""}),
    "eventLoopBase": ("eventLoopBase", {}),
    "eventLoopBase, every message pickled": ("eventLoopBase", {"Pickle Messages": True}),
}

# Thespian's multi-process base forks, and leaves sockets to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Scene:
    """A world on a system base."""

    def __init__(self, system: Any) -> None:
        self.system = system
        self.world = system.createActor(World)

    def set_up(self, *, election_ms: tuple[float, float] = (PATIENT_MS, 2 * PATIENT_MS)) -> None:
        """Give a follower of term 1 the replica, with a log of two entries."""
        replica = Replica("n1", "n1-1", 7, current_term=1, entries=log(1), free_bytes=1 << 40)
        self.system.tell(self.world, SetUp(replica, *election_ms))

    def tell(self, message: Any) -> None:
        """Give a message to the role that has the replica."""
        self.system.tell(self.world, ToRole(message))

    def wait_for(self, condition: Callable[[list[Any]], bool]) -> list[Any]:
        """Return the messages that the roles have sent, once they fulfil the condition."""
        deadline = time.monotonic() + WITHIN_S
        sent: list[Any] = []
        while time.monotonic() < deadline:
            sent = list(self.system.ask(self.world, GetSent(), 1.0) or ())
            if condition(sent):
                return sent
        raise AssertionError(f"not within {WITHIN_S} s: {sent}")


@pytest.fixture(params=list(BASES))
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Return a scene on each of the bases."""
    name, capabilities = BASES[request.param]
    install()
    logging: Any = False
    if name == "multiprocTCPBase":
        capabilities = {**capabilities, "Admin Port": free_ports()}
        # Its processes need a logging configuration.
        logging = {"version": 1, "disable_existing_loggers": False}
    system = ActorSystem(name, capabilities, logDefs=logging, transientUnique=True)
    scene = Scene(system)
    try:
        yield scene
    finally:
        system.shutdown()
        # Collected here, where the warnings are ignored, and not in another test.
        del system, scene.system
        gc.collect()


def test_a_follower_votes_once_in_a_term(scene: Scene) -> None:
    """3.4, and 3.8: the save comes before the answer."""
    scene.set_up()
    scene.tell(RequestVote("n2", 2, 2, 1))
    scene.wait_for(lambda sent: len(sent) == 2)
    scene.tell(RequestVote("n3", 2, 2, 1))

    sent = scene.wait_for(lambda sent: len(sent) == 3)

    assert sent == [Save(1, 2, "n2"), RequestVoteReply("n1", 2, True), RequestVoteReply("n1", 2, False)]


def test_a_follower_appends_and_confirms(scene: Scene) -> None:
    """3.5."""
    scene.set_up()
    entry = Entry(3, 2, Kind.NOOP, b"")
    scene.tell(AppendEntries("n2", 2, 2, 1, (entry,), 3))

    sent = scene.wait_for(lambda sent: any(isinstance(m, Apply) and entry in m.entries for m in sent))

    # Its request for a first read index from the leader may come in between.
    answers = [message for message in sent if not isinstance(message, Apply | Forward)]
    assert answers == [Save(1, 2, None, (entry,)), AppendEntriesReply("n1", 2, True, 3)]


def test_a_node_without_a_leader_is_elected_and_commits_a_write(scene: Scene) -> None:
    """3.4 to 3.6: from follower to candidate to leader, with wake-ups on the base's own clock."""
    # The follower times out soon (the seed is fixed); the candidate gets time for its votes on a busy machine.
    scene.set_up(election_ms=(1000.0, 10_000.0))
    scene.wait_for(lambda sent: RequestVote("n1", 2, 2, 1, pre_vote=True) in sent)
    grant_until(scene, lambda sent: any(isinstance(message, AppendEntries) for message in sent))
    term = scene.wait_for(lambda sent: any(isinstance(message, AppendEntries) for message in sent))[-1].term
    command = Put("k", b"v")
    scene.tell(PendingRequest(Propose((command,), 1000.0), ReplyTo(ActorAddress("nobody")), 1e15))
    scene.wait_for(lambda sent: any(isinstance(m, Save) and any(e.index == 4 for e in m.entries) for m in sent))
    scene.tell(AppendEntriesReply("n2", term, True, 4))

    sent = scene.wait_for(lambda sent: any(isinstance(m, Apply) and m.entries[-1].index == 4 for m in sent))

    applied = [entry for message in sent if isinstance(message, Apply) for entry in message.entries]
    assert applied == [
        *log(1),
        Entry(3, term, Kind.NOOP, b""),
        Entry(4, term, Kind.COMMANDS, encode_commands((command,))),
    ]


def grant_until(scene: Scene, condition: Callable[[list[Any]], bool]) -> None:
    """Grant every RequestVote and pre-vote as n2 would, until the condition holds."""
    granted = 0

    def answered(sent: list[Any]) -> bool:
        nonlocal granted
        if condition(sent):
            return True
        requests = [message for message in sent if isinstance(message, RequestVote)]
        for request in requests[granted:]:
            scene.tell(RequestVoteReply("n2", request.term, True, request.pre_vote))
        granted = len(requests)
        return False

    scene.wait_for(answered)
