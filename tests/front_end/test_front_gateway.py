"""The gateway sends one message a turn, and retries only what cannot be done twice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from raftkv.actors.gateway import ANSWER_GRACE_S, Gateway, RequestFailed
from raftkv.actors.messages.node import RoleChanged
from raftkv.actors.messages.requests import (
    Applied,
    AskStatus,
    Propose,
    Read,
    ReadResult,
    Refused,
)
from raftkv.store.commands import Delete, DeleteDone, Get, Item, Put, PutDone
from tests.front_end.fronts import STATUS, FakeNode, in_virtual_time

WRITES_TRIED_AGAIN = ["not_leader", "not_committed", "retry"]
READS_TRIED_AGAIN = ["not_leader", "not_committed", "retry", "unknown"]
CODES = ["no_leader", "not_leader", "not_committed", "retry", "unknown", "overloaded", "no_room", "stopping", "invalid"]


def gateway_of(node: FakeNode) -> Gateway:
    return Gateway(node.ask, rng=Random(1))


async def outcome_of(request: asyncio.Future[Any]) -> object:
    """Return what a request gave, or how it was refused."""
    try:
        return await request
    except RequestFailed as error:
        return error.refused


def test_everything_that_arrives_in_one_turn_goes_as_one_message() -> None:
    node = FakeNode()

    async def main() -> object:
        gateway = gateway_of(node)
        return await asyncio.gather(
            gateway.propose(Put("a", b"1"), 5), gateway.propose(Delete("a"), 5), gateway.propose(Put("b", b"2"), 5)
        )

    results = in_virtual_time(main())

    applied = Applied(1, 7, 3, (PutDone(1), DeleteDone(2, True), PutDone(3)))
    assert results == [(applied, PutDone(1)), (applied, DeleteDone(2, True)), (applied, PutDone(3))]
    assert node.messages == [Propose((Put("a", b"1"), Delete("a"), Put("b", b"2")), 5000.0)]


def test_the_next_turn_is_another_message() -> None:
    node = FakeNode()

    async def main() -> None:
        gateway = gateway_of(node)
        await gateway.propose(Put("a", b"1"), 5)
        await gateway.propose(Put("a", b"2"), 5)

    in_virtual_time(main())

    assert node.messages == [Propose((Put("a", b"1"),), 5000.0), Propose((Put("a", b"2"),), 5000.0)]


def test_reads_are_collected_by_level() -> None:
    node = FakeNode()
    node.apply((Put("a", b"1"),))

    async def main() -> object:
        gateway = gateway_of(node)
        return await asyncio.gather(
            gateway.read(Get("a"), "linearizable", 5),
            gateway.read(Get("a"), "stale", 5),
            gateway.read(Get("b"), "linearizable", 5),
        )

    record = Item(b"1", 1, 1, 1)
    both, one = ReadResult(1, 1, (record, None)), ReadResult(1, 1, (record,))
    assert in_virtual_time(main()) == [(both, record), (one, record), (both, None)]
    assert node.messages == [Read((Get("a"), Get("b")), "linearizable", 5000.0), Read((Get("a"),), "stale", 5000.0)]


def test_requests_find_company_up_to_the_next_50_ms() -> None:
    """A request never gets less time than it asked for."""
    node = FakeNode()

    async def main() -> None:
        gateway = gateway_of(node)
        await asyncio.gather(
            gateway.propose(Put("a", b""), 0.96),
            gateway.propose(Put("b", b""), 1.0),
            gateway.propose(Put("c", b""), 1.01),
            gateway.propose(Put("d", b""), 0.001),
        )

    in_virtual_time(main())

    assert node.messages == [
        Propose((Put("a", b""), Put("b", b"")), 1000.0),
        Propose((Put("c", b""),), 1050.0),
        Propose((Put("d", b""),), 50.0),
    ]


def test_a_message_has_at_most_1000_commands() -> None:
    node = FakeNode()

    async def main() -> None:
        gateway = gateway_of(node)
        await asyncio.gather(*(gateway.propose(Put(str(number), b""), 5) for number in range(2500)))

    in_virtual_time(main())

    sizes = [len(message.commands) for message in node.messages if isinstance(message, Propose)]
    assert sizes == [1000, 1000, 500]
    assert [item.modify_revision for _, item in sorted(node.keys.items(), key=by_number)] == list(range(1, 2501))


def by_number(pair: tuple[str, Item]) -> int:
    """Return the number that a key is."""
    return int(pair[0])


def test_a_message_has_at_most_256_kib_unless_one_command_alone_is_larger() -> None:
    node = FakeNode()
    large, huge = bytes(100 << 10), bytes(1 << 20)

    async def main() -> None:
        gateway = gateway_of(node)
        values = [large, large, large, huge, b"", b""]
        await asyncio.gather(*(gateway.propose(Put("k", value), 5) for value in values))

    in_virtual_time(main())

    assert [[len(put.value) for put in message.commands] for message in node.messages] == [  # type: ignore[attr-defined]
        [100 << 10, 100 << 10],
        [100 << 10],
        [1 << 20],
        [0, 0],
    ]


@pytest.mark.parametrize("code", CODES)
def test_a_write_is_sent_again_only_if_it_was_certainly_not_done(code: Any) -> None:
    node = FakeNode()
    node.script.append(Refused(code, "why"))

    async def main() -> object:
        return await outcome_of(gateway_of(node).propose(Put("a", b"1"), 5))

    outcome = in_virtual_time(main())

    if code in WRITES_TRIED_AGAIN:
        assert outcome == (Applied(1, 7, 1, (PutDone(1),)), PutDone(1))
        assert len(node.asked) == 2
    else:
        assert outcome == Refused(code, "why")
        assert len(node.asked) == 1


@pytest.mark.parametrize("code", CODES)
def test_a_read_is_sent_again_also_if_nobody_knows_what_became_of_it(code: Any) -> None:
    node = FakeNode()
    node.script.append(Refused(code, "why"))

    async def main() -> object:
        return await outcome_of(gateway_of(node).read(Get("a"), "linearizable", 5))

    outcome = in_virtual_time(main())

    if code in READS_TRIED_AGAIN:
        assert outcome == (ReadResult(0, 0, (None,)), None)
        assert len(node.asked) == 2
    else:
        assert outcome == Refused(code, "why")
        assert len(node.asked) == 1


def test_attempts_come_at_growing_pauses_and_with_the_time_that_is_left() -> None:
    node = FakeNode()
    node.script.extend(Refused("not_leader") for _ in range(1000))

    async def main() -> tuple[object, float]:
        outcome = await outcome_of(gateway_of(node).propose(Put("a", b"1"), 1))
        return outcome, asyncio.get_running_loop().time()

    outcome, ended_s = in_virtual_time(main())

    assert outcome == Refused("not_leader")
    left_ms = [message.timeout_ms for message in node.messages if isinstance(message, Propose)]
    pauses_ms = [before - after for before, after in pairwise(left_ms)]
    longest_ms = [min(50.0, 5.0 * 2**number) for number in range(len(pauses_ms))]
    assert left_ms[0] == 1000.0
    assert [5 - 1e-6 <= pause <= longest + 1e-6 for pause, longest in zip(pauses_ms, longest_ms, strict=True)] == [
        True
    ] * len(pauses_ms)
    assert len({round(pause, 3) for pause in pauses_ms}) > len(pauses_ms) // 2
    # No pause goes beyond the deadline: better the answer at once than an attempt that can't be answered.
    assert 0.95 <= ended_s <= 1.0


def test_the_node_may_answer_a_little_after_the_deadline_it_was_given() -> None:
    """Its own answer, which says why, is to come before ours."""
    node = FakeNode()

    async def main() -> None:
        await gateway_of(node).propose(Put("a", b"1"), 2)

    in_virtual_time(main())

    assert node.asked == [(Propose((Put("a", b"1"),), 2000.0), 2.0 + ANSWER_GRACE_S)]


@pytest.mark.parametrize("kind", ["write", "read"])
def test_no_answer_in_time_is_unknown(kind: str) -> None:
    node = FakeNode()

    async def silent(message: object, timeout_s: float) -> None:
        node.asked.append((message, timeout_s))
        await asyncio.sleep(timeout_s)

    async def main() -> tuple[object, float]:
        gateway = Gateway(silent, rng=Random(1))
        request: asyncio.Future[Any] = (
            gateway.propose(Put("a", b"1"), 1) if kind == "write" else gateway.read(Get("a"), "linearizable", 1)
        )
        outcome = await outcome_of(request)
        return outcome, asyncio.get_running_loop().time()

    assert in_virtual_time(main()) == (Refused("unknown", "no answer in time"), 1.0 + ANSWER_GRACE_S)
    assert len(node.asked) == 1


def test_an_unknown_write_after_one_that_was_not_done_stays_unknown() -> None:
    node = FakeNode()
    node.script.extend([Refused("not_committed"), Refused("unknown", "the leader is gone")])

    async def main() -> object:
        return await outcome_of(gateway_of(node).propose(Put("a", b"1"), 5))

    assert in_virtual_time(main()) == Refused("unknown", "the leader is gone")
    assert len(node.asked) == 2


def test_an_ask_that_fails_or_gives_nonsense_leaves_the_outcome_unknown(caplog: pytest.LogCaptureFixture) -> None:
    node = FakeNode()
    node.script.extend([RuntimeError("no such actor"), "hello", Applied(1, 1, 1, ()), ReadResult(1, 1, ())])

    async def main() -> object:
        gateway = gateway_of(node)
        return [await outcome_of(gateway.propose(Put("a", b"1"), 5)) for _ in range(4)]

    nonsense = Refused("unknown", "the node's answer was not understood")
    with caplog.at_level(logging.CRITICAL, "raftkv.gateway"):
        assert in_virtual_time(main()) == [Refused("unknown", "no answer in time"), nonsense, nonsense, nonsense]
    assert node.keys == {}


def test_who_goes_away_does_not_disturb_the_others_of_the_message() -> None:
    node = FakeNode()

    async def main() -> object:
        gateway = gateway_of(node)
        answered = asyncio.get_running_loop().create_future()
        node.script.append(answered)
        first, second, third = (gateway.propose(Put(key, b""), 5) for key in "abc")
        await asyncio.sleep(0.01)
        second.cancel()
        answered.set_result(None)
        return [await first, await third]

    applied = Applied(1, 7, 3, (PutDone(1), PutDone(2), PutDone(3)))
    assert in_virtual_time(main()) == [(applied, PutDone(1)), (applied, PutDone(3))]
    assert node.messages == [Propose((Put("a", b""), Put("b", b""), Put("c", b"")), 5000.0)]


def test_who_went_away_is_not_sent_again_nor_at_all_if_nothing_else_was() -> None:
    node = FakeNode()
    node.script.append(Refused("not_leader"))

    async def main() -> object:
        gateway = gateway_of(node)
        first, second, early, alone = (gateway.propose(Put(key, b""), 5) for key in "abcd")
        early.cancel()
        await asyncio.sleep(0.001)
        second.cancel()
        alone.cancel()
        outcomes = [await first]
        lonely = gateway.propose(Put("e", b""), 5)
        lonely.cancel()
        await asyncio.sleep(1)
        return outcomes

    assert in_virtual_time(main()) == [(Applied(1, 7, 1, (PutDone(1),)), PutDone(1))]
    assert [message.commands for message in node.messages if isinstance(message, Propose)] == [
        (Put("a", b""), Put("b", b""), Put("d", b"")),
        (Put("a", b""),),
    ]


def test_closing_answers_everyone_who_waits() -> None:
    """What was sent may yet be done; what waits for another attempt was not done; what comes now never is."""
    node = FakeNode()

    async def main() -> object:
        gateway = gateway_of(node)
        loop = asyncio.get_running_loop()
        node.script.append(loop.create_future())
        sent = gateway.propose(Put("a", b""), 5)
        await asyncio.sleep(0.001)
        node.script.append(Refused("not_committed", "another leader"))
        pausing = gateway.propose(Put("b", b""), 5)
        await asyncio.sleep(0.001)
        unsent = gateway.propose(Put("c", b""), 5)
        await gateway.close()
        later = gateway.read(Get("d"), "stale", 5)
        return [await outcome_of(request) for request in (sent, pausing, unsent, later)]

    stopping = Refused("stopping", "this node is stopping")
    assert in_virtual_time(main()) == [
        Refused("unknown", "this node stopped while the request was under way"),
        Refused("not_committed", "another leader"),
        stopping,
        stopping,
    ]
    assert node.keys == {}


def test_a_status_is_asked_for_with_a_deadline() -> None:
    node = FakeNode()

    assert in_virtual_time(gateway_of(node).status(2)) == STATUS
    assert node.asked == [(AskStatus(), 2)]


@pytest.mark.parametrize(
    ("reply", "refused"),
    [(None, Refused("unknown", "the node did not answer")), (Refused("stopping", "bye"), Refused("stopping", "bye"))],
)
def test_a_node_that_does_not_say_how_it_is_has_failed(reply: object, refused: Refused) -> None:
    node = FakeNode()
    node.status = reply

    def status() -> Coroutine[Any, Any, object]:
        return gateway_of(node).status()

    with pytest.raises(RequestFailed) as failure:
        in_virtual_time(status())
    assert failure.value.refused == refused


def test_term_and_leader_are_what_the_node_reported_last() -> None:
    gateway = Gateway(FakeNode().ask, rng=Random(1))
    seen = [(gateway.term, gateway.leader)]

    for event in (RoleChanged("n1", "candidate", 3, None, ""), RoleChanged("n1", "follower", 4, "n2", "")):
        gateway.on_role_changed(event)
        seen.append((gateway.term, gateway.leader))

    assert seen == [(0, None), (3, None), (4, "n2")]
