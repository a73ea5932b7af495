"""The roles are ordinary Thespian actors: created on Thespian's own system bases, they do what they do on ours."""

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
from tests.stock_bases.world import AskSaid, Begin, ToRole, World
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

    def begins(self, *, election_ms: tuple[float, float] = (PATIENT_MS, 2 * PATIENT_MS)) -> None:
        """Give a follower of term 1 the replica, with a log of two entries."""
        replica = Replica("n1", "n1-1", 7, current_term=1, entries=log(1), free_bytes=1 << 40)
        self.system.tell(self.world, Begin(replica, *election_ms))

    def tells(self, message: Any) -> None:
        """Give a message to the role that has the replica."""
        self.system.tell(self.world, ToRole(message))

    def waits_for(self, condition: Callable[[list[Any]], bool]) -> list[Any]:
        """Return all that was said, as soon as it fulfils the condition."""
        deadline = time.monotonic() + WITHIN_S
        said: list[Any] = []
        while time.monotonic() < deadline:
            said = list(self.system.ask(self.world, AskSaid(), 1.0) or ())
            if condition(said):
                return said
        raise AssertionError(f"not within {WITHIN_S} s: {said}")


@pytest.fixture(params=list(BASES))
def scene(request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Return a scene on each of the bases."""
    name, capabilities = BASES[request.param]
    install()
    logging: Any = False
    if name == "multiprocTCPBase":
        capabilities = {**capabilities, "Admin Port": free_ports()}
        # Its processes can't do with none.
        logging = {"version": 1, "disable_existing_loggers": False}
    system = ActorSystem(name, capabilities, logDefs=logging, transientUnique=True)
    scene = Scene(system)
    try:
        yield scene
    finally:
        system.shutdown()
        # Here, where their warnings are ignored, and not in some other test.
        del system, scene.system
        gc.collect()


def test_a_follower_votes_once_in_a_term(scene: Scene) -> None:
    """3.4, and 3.8: the save comes before the answer."""
    scene.begins()
    scene.tells(RequestVote("n2", 2, 2, 1))
    scene.waits_for(lambda said: len(said) == 2)
    scene.tells(RequestVote("n3", 2, 2, 1))

    said = scene.waits_for(lambda said: len(said) == 3)

    assert said == [Save(1, 2, "n2"), RequestVoteReply("n1", 2, True), RequestVoteReply("n1", 2, False)]


def test_a_follower_appends_and_confirms(scene: Scene) -> None:
    """3.5."""
    scene.begins()
    entry = Entry(3, 2, Kind.NOOP, b"")
    scene.tells(AppendEntries("n2", 2, 2, 1, (entry,), 3))

    said = scene.waits_for(lambda said: any(isinstance(m, Apply) and entry in m.entries for m in said))

    # What it asks the leader for its own first read comes in between.
    answers = [message for message in said if not isinstance(message, Apply | Forward)]
    assert answers == [Save(1, 2, None, (entry,)), AppendEntriesReply("n1", 2, True, 3)]


def test_a_node_that_hears_nobody_is_elected_and_commits_a_write(scene: Scene) -> None:
    """3.4 to 3.6: from follower to candidate to leader, with wake-ups of the base's own clock."""
    # It begins soon (chance here is always the same), but on a busy machine it must not give up before it is answered.
    scene.begins(election_ms=(1000.0, 10_000.0))
    scene.waits_for(lambda said: RequestVote("n1", 2, 2, 1, pre_vote=True) in said)
    grant_until(scene, lambda said: any(isinstance(message, AppendEntries) for message in said))
    term = scene.waits_for(lambda said: any(isinstance(message, AppendEntries) for message in said))[-1].term
    command = Put("k", b"v")
    scene.tells(PendingRequest(Propose((command,), 1000.0), ReplyTo(ActorAddress("nobody")), 1e15))
    scene.waits_for(lambda said: any(isinstance(m, Save) and any(e.index == 4 for e in m.entries) for m in said))
    scene.tells(AppendEntriesReply("n2", term, True, 4))

    said = scene.waits_for(lambda said: any(isinstance(m, Apply) and m.entries[-1].index == 4 for m in said))

    applied = [entry for message in said if isinstance(message, Apply) for entry in message.entries]
    assert applied == [
        *log(1),
        Entry(3, term, Kind.NOOP, b""),
        Entry(4, term, Kind.COMMANDS, encode_commands((command,))),
    ]


def grant_until(scene: Scene, condition: Callable[[list[Any]], bool]) -> None:
    """Answer every request for a (pre-)vote as n2 would, until the condition holds."""
    granted = 0

    def answered(said: list[Any]) -> bool:
        nonlocal granted
        if condition(said):
            return True
        requests = [message for message in said if isinstance(message, RequestVote)]
        for request in requests[granted:]:
            scene.tells(RequestVoteReply("n2", request.term, True, request.pre_vote))
        granted = len(requests)
        return False

    scene.waits_for(answered)
