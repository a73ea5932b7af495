"""Every message has a handler: a new one that no actor handles is found here, not in production."""

from __future__ import annotations

import importlib
import pkgutil

import pytest

import raftkv.actors.messages
from raftkv.actors.fail_stop import FailStopActor
from raftkv.actors.journal import Journal
from raftkv.actors.messages.base import Message, PeerMessage, WireMessage
from raftkv.actors.messages.node import (
    AdvertiseAddress,
    Apply,
    AskFreeBytes,
    Assume,
    Boot,
    Flush,
    PeerUp,
    ReadAt,
    Recovered,
    RoleChanged,
    Save,
    Start,
)
from raftkv.actors.messages.requests import (
    Applied,
    AskReadIndex,
    AskStatus,
    Done,
    Forward,
    PeerStatus,
    Propose,
    Read,
    ReadIndex,
    ReadResult,
    Refused,
    ReplyTo,
    Resign,
    Status,
)
from raftkv.actors.node import ROLES, Node
from raftkv.actors.observer import Observer
from raftkv.actors.roles.leader import Leader
from raftkv.actors.store import Store
from tests.roles.rehearsal import start_message
from tests.support.stage import Stage

MODULES = [
    importlib.import_module(f"raftkv.actors.messages.{module.name}")
    for module in pkgutil.iter_modules(raftkv.actors.messages.__path__)
]
MESSAGES = sorted(
    {
        found
        for module in MODULES
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, Message | WireMessage)
    }
    - {Message, WireMessage, PeerMessage},
    key=lambda message: message.__name__,
)
PARTS = (AskReadIndex, PeerStatus, ReplyTo)
"""Parts of other messages."""
ANSWERS = (Applied, Done, ReadIndex, ReadResult, Refused, Status)
"""Answers, which go to whatever has asked: the gateway, or the node that has forwarded a request."""
OTHERS: tuple[type[FailStopActor], ...] = (Node, Store, Journal, Observer)


def handles(actor: type[FailStopActor], message: type[Message]) -> bool:
    return message.__name__ in actor.handlers or actor.is_ignored(message)


RECIPIENTS: dict[type[FailStopActor], tuple[type[Message | WireMessage], ...]] = {
    Node: (AdvertiseAddress, AskStatus, Boot, Forward, PeerUp, Propose, Read, Recovered, Resign, RoleChanged),
    Store: (Apply, ReadAt, Start),
    Journal: (AskFreeBytes, Flush, Save, Start),
    Observer: (AdvertiseAddress, RoleChanged),
    **dict.fromkeys(ROLES, (PeerUp, Start)),
    Leader: (Flush, PeerUp, Start),
}
"""The actors to which messages that are not for the role go; Node passes `PeerUp` on after it has handled it."""


@pytest.mark.parametrize("message", [each for each in MESSAGES if each not in (*PARTS, *ANSWERS)])
def test_every_message_has_a_handler(message: type[Message]) -> None:
    """A message for the role has one in each of them; any other one has one in each actor that it is sent to."""
    recipients = ROLES if message.for_role else [actor for actor, kinds in RECIPIENTS.items() if message in kinds]
    assert recipients, f"no recipient of {message.__name__}: add it to RECIPIENTS"
    missing = [actor.__name__ for actor in recipients if not handles(actor, message)]

    assert not missing, f"no handler for {message.__name__} in {', '.join(missing)}"


def test_every_handler_is_for_a_message_that_exists() -> None:
    """A handler whose message was renamed would never be called."""
    names = {message.__name__ for message in MESSAGES} | {Assume.__name__, "Observe", "PrepareSpare"}
    thespian = {"ActorExitRequest", "ChildActorExited", "PoisonMessage", "WakeupMessage"}

    for actor in (*OTHERS, *ROLES):
        assert set(actor.handlers) <= names | thespian, actor


def test_nothing_is_both_handled_and_ignored() -> None:
    for actor in (*OTHERS, *ROLES):
        assert not {message.__name__ for message in MESSAGES if actor.is_ignored(message)} & set(actor.handlers), actor


def given(*messages: object) -> tuple[list[str], list[object]]:
    """Return the failures of a store that gets these messages, and all that it sends."""
    stage, failures = Stage(), list[str]()
    stage.put("store", Store)
    stage.give("store", start_message(stage.clock, lambda status, line: failures.append(f"{status}: {line}")))
    for message in messages:
        stage.give("store", message)
    return failures, list(stage.sent)


def test_a_message_without_a_handler_is_a_bug_that_stops_the_node() -> None:
    failures, _ = given(Save(1, 1, None))

    assert [line.splitlines()[0] for line in failures] == [
        "70: bug in store: AssertionError('no handler for Save in store') on "
        "Save(number=1, current_term=1, voted_for=None, entries=())"
    ]


def test_messages_that_are_not_ours_are_dropped() -> None:
    assert given("text", 7, None, b"", Flush) == ([], [])
