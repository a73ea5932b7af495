"""The link with absent, slow and returning peers: what is refused and reported, and in which order."""

from __future__ import annotations

import asyncio
import random
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from raftkv.actors.system.link.dialling import backoff_ms, describe
from raftkv.actors.system.link.handshake import Reason, Refusal
from raftkv.actors.system.link.resolver import Resolver, split_address
from tests.support.cluster import Reserved
from tests.system.link_nodes import (
    Listener,
    Node,
    Raw,
    Relay,
    cluster,
    connected,
    identity,
    introduce,
    on_a_loop,
    running,
    settings,
    turns,
    until,
)


@pytest.fixture
def reserved_port() -> Iterator[int]:
    """Return a port that only this test uses."""
    reserved = Reserved()
    yield reserved.port
    reserved.close()


@on_a_loop
async def test_bulk_to_an_unconnected_peer_is_given_back_and_control_is_dropped() -> None:
    n1 = Node("n1")
    async with running(n1):
        n1.link.add_peer("n2", "127.0.0.1:1")
        await until(lambda: n1.link.peer_refusals() == {"n2": "connection refused"})
        n1.note("n2", "control", control=True)
        note = n1.note("n2", "bulk")
        assert n1.events == []
        await turns(2)

        assert n1.events == [("refused", "n2", "target", "source", note, "connection refused")]
        assert (n1.link.stats.bulk_refused, n1.link.stats.control_dropped) == (1, 1)
        assert not n1.link.connected("n2")


@on_a_loop
async def test_a_message_to_an_unknown_peer_is_refused() -> None:
    n1 = Node("n1")
    async with running(n1):
        n1.note("n9", "control", control=True)
        note = n1.note("n9", "bulk")
        await turns(2)
        assert n1.events == [("refused", "n9", "target", "source", note, "not a peer")]
        assert (n1.link.stats.bulk_refused, n1.link.stats.control_dropped) == (1, 1)


@on_a_loop
async def test_a_message_over_the_limit_is_given_back_and_others_are_sent() -> None:
    small: dict[str, Any] = {"frame_bytes": 1000, "message_bytes": 2000, "bulk_bytes": 100_000}
    n1, n2 = Node("n1", **small), Node("n2", **small)
    async with cluster(n1, n2):
        note = n1.note("n2", "too large", data=bytes(2000))
        n1.note("n2", "largest", data=bytes(1950))
        n1.note("n2", "too large, and control", control=True, data=bytes(2000))
        await until(lambda: n2.received)

        assert n2.texts == ["largest"]
        assert [event[:5] for event in n1.events_of("refused")] == [("refused", "n2", "target", "source", note)]
        assert "over the limit" in n1.events_of("refused")[0][5]
        assert n1.events_of("down") == []


@on_a_loop
async def test_overflow_and_its_end_are_each_reported_once() -> None:
    n1, n2 = Node("n1", message_bytes=300_000, bulk_bytes=1_000_000), Node("n2")
    full = "too much is queued to be sent"
    async with cluster(n1, n2):
        notes = [n1.note("n2", str(number), data=bytes(200_000)) for number in range(8)]
        # It would fit, but it would overtake the messages that have just been refused.
        notes.append(n1.note("n2", "small"))
        n1.note("n2", "control", control=True)
        assert not n1.link.connected("n2")
        assert n1.link.peer_refusals() == {"n2": full}
        await until(lambda: len(n1.events_of("up")) == 2)

        refused = [("refused", "n2", "target", "source", note, full) for note in notes[4:]]
        # "refused" comes before "down": a sender that retries at "down" must know that this one was not sent.
        assert n1.events == [("up", "n2"), refused[0], ("down", "n2", full), *refused[1:], ("up", "n2")]
        await until(lambda: len(n2.received) == 5)
        assert n2.texts == ["control", "0", "1", "2", "3"]
        assert n1.link.stats.overflows == 1
        note = n1.note("n2", "again")
        await until(lambda: n2.received[5:] == [("n1", "target", "source", note)])


@on_a_loop
async def test_overflow_ends_even_if_nothing_is_queued() -> None:
    """One message can be too large for lanes that are less than half full; then no departure signals the end."""
    n1, n2 = Node("n1", message_bytes=600_000, bulk_bytes=1_000_000), Node("n2")
    async with cluster(n1, n2):
        n1.note("n2", "0", data=bytes(450_000))
        n1.note("n2", "1", data=bytes(590_000))
        await until(lambda: len(n1.events_of("up")) == 2 and n2.received)
        assert [event[0] for event in n1.events] == ["up", "refused", "down", "up"]
        assert n2.texts == ["0"]


@on_a_loop
async def test_too_many_control_messages_drop_the_oldest_and_report_overflow() -> None:
    n1, n2 = Node("n1", control_messages=10), Node("n2")
    async with cluster(n1, n2):
        for number in range(15):
            n1.note("n2", str(number), control=True)
        await until(lambda: len(n2.received) == 10)

        assert n2.texts == [str(number) for number in range(5, 15)]
        await until(lambda: len(n1.events) == 3)
        assert n1.events == [("up", "n2"), ("down", "n2", "too much is queued to be sent"), ("up", "n2")]
        assert n1.link.stats.control_dropped == 5


@on_a_loop
async def test_a_restarted_peer_is_reported_down_once_then_up(reserved_port: int) -> None:
    n1, n2 = Node("n1"), Node("n2", listen_port=reserved_port)
    async with running(n1):
        async with running(n2):
            introduce(n1, n2)
            await connected(n1, n2)
        await until(lambda: n1.link.peer_refusals() == {"n2": "connection refused"})
        note = n1.note("n2", "while it was away")
        await turns(2)
        again = Node("n2", listen_port=reserved_port, incarnation="n2-2")
        async with running(again):
            introduce(n1, again)
            await connected(n1, again)
            n1.note("n2", "after it came back")
            await until(lambda: again.texts == ["after it came back"])
            identified = n1.link.identity("n2")
            assert identified is not None
            assert identified.incarnation == "n2-2"

        assert n1.events[:4] == [
            ("up", "n2"),
            ("down", "n2", "closed by the peer"),
            ("refused", "n2", "target", "source", note, "connection refused"),
            ("up", "n2"),
        ]


@on_a_loop
async def test_a_peer_that_connects_to_us_is_dialled_without_backoff(reserved_port: int) -> None:
    n1 = Node("n1", backoff_min_ms=100_000, backoff_max_ms=100_000)
    async with running(n1):
        n1.link.add_peer("n2", f"127.0.0.1:{reserved_port}")
        await until(lambda: n1.link.peer_refusals() == {"n2": "connection refused"})
        n2 = Node("n2", listen_port=reserved_port)
        async with running(n2):
            n2.link.add_peer("n1", n1.address)
            await connected(n1, n2)


@on_a_loop
async def test_a_peer_is_dialled_at_its_new_address() -> None:
    n1, n2 = Node("n1", backoff_min_ms=100_000, backoff_max_ms=100_000), Node("n2")
    async with running(n1, n2):
        n1.link.add_peer("n2", "127.0.0.1:1")
        await until(lambda: n1.link.peer_refusals() == {"n2": "connection refused"})
        n2.link.add_peer("n1", "127.0.0.1:1")
        n1.link.add_peer("n2", n2.address)
        await until(lambda: n1.link.connected("n2"))


@on_a_loop
async def test_skipping_the_backoff_once_dials_once() -> None:
    n1 = Node("n1", backoff_min_ms=100_000, backoff_max_ms=100_000)
    async with running(n1):
        for dials in (1, 2, 3):
            n1.link.add_peer("n2", "127.0.0.1:1")
            await until(lambda dials=dials: n1.link.stats.failed_dials["not reached"] == dials)  # type: ignore[misc]
            await turns(100)
            assert n1.link.stats.failed_dials["not reached"] == dials


@on_a_loop
async def test_a_connection_that_has_lasted_resets_the_failures() -> None:
    n1 = Node("n1", backoff_min_ms=1, backoff_max_ms=20)
    async with running(n1):
        n1.link.add_peer("n2", "127.0.0.1:1")
        await until(lambda: n1.link._peers["n2"].failures >= 5)
        release = asyncio.Event()

        async def last(raw: Raw) -> None:
            await raw.admit(identity("n2"))
            await release.wait()

        async with Listener(last) as n2:
            n1.link.add_peer("n2", n2.address)
            await until(lambda: n1.link.connected("n2"))
            since = asyncio.get_running_loop().time()
            await until(lambda: asyncio.get_running_loop().time() > since + 0.03)
            seen = len(n1.events)
            before = n1.link._peers["n2"].failures
            release.set()
            await until(lambda: len(n1.events) > seen)
            await until(lambda: n1.link._peers["n2"].failures < before)


def test_the_backoff_doubles_with_jitter_up_to_its_maximum() -> None:
    times = settings("n1", backoff_min_ms=50, backoff_max_ms=1000)
    rng = random.Random(1)
    for failures, longest in ((1, 50), (2, 100), (3, 200), (5, 800), (6, 1000), (7, 1000), (10_000, 1000)):
        waits = [backoff_ms(times, failures, rng) for _ in range(100)]
        assert longest / 2 <= min(waits) < longest * 0.6
        assert longest * 0.9 < max(waits) <= longest


@on_a_loop
async def test_a_silent_network_is_noticed_by_both_ends_and_does_not_affect_other_peers() -> None:
    quick: dict[str, Any] = {"ping_ms": 20, "silence_ms": 400, "connect_ms": 200, "handshake_ms": 200}
    n1, n2, n3 = Node("n1", **quick), Node("n2", **quick), Node("n3")
    async with running(n1, n2, n3), Relay(n2.link.port) as relay:
        introduce(n1, n3)
        n1.link.add_peer("n2", relay.address)
        n2.link.add_peer("n1", "127.0.0.1:1")
        await connected(n1, n3)
        await until(lambda: n1.link.connected("n2") and n2.link.identity("n1"))

        relay.passes = False
        texts: list[str] = []
        while n1.link.connected("n2") or n2.link.identity("n1"):
            n1.note("n2", "lost", control=True)
            texts.append(str(len(texts)))
            n1.note("n3", texts[-1])
            await until(lambda: len(n3.received) == len(texts))
            assert len(texts) < 1_000_000
        await until(lambda: n1.events_of("down"))
        assert n1.events_of("down") == [("down", "n2", "no answer for 400 ms")]
        assert n3.texts == texts
        assert n2.received == [] or set(n2.texts) == {"lost"}

        relay.passes = True
        await until(lambda: n1.link.connected("n2"))


@on_a_loop
async def test_a_peer_that_stops_reading_is_given_up_within_bounds() -> None:
    """For example a stopped process: the kernel keeps the connection open, but nothing is read."""

    async def stop_reading(raw: Raw) -> None:
        await raw.admit(identity("n2"))
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.get_running_loop().create_future()

    limits: dict[str, Any] = {"message_bytes": 1 << 20, "bulk_bytes": 4 << 20, "ping_ms": 50, "silence_ms": 1000}
    n1, n3 = Node("n1", **limits), Node("n3")
    async with running(n1, n3), Listener(stop_reading) as n2:
        introduce(n1, n3)
        n1.link.add_peer("n2", n2.address)
        await until(lambda: n1.link.connected("n2") and n1.link.connected("n3"))
        texts: list[str] = []
        most = 0
        while len(n1.events_of("down")) == 0:
            # So large that the lanes overflow long before the silence is too long, however slow the machine.
            n1.note("n2", "bulk", data=bytes(1_000_000))
            n1.note("n2", "control", control=True)
            texts.append(n1.note("n3", str(len(texts))).text)
            await until(lambda: n3.texts == texts)
            most = max(most, n1.link.waiting("n2"))
        assert n1.events_of("down") == [("down", "n2", "too much is queued to be sent")]
        assert most <= (4 << 20) + (4 << 20) + (512 << 10)
        await until(lambda: n1.link.stats.losses == 1)
        await turns(2)

        # "down" was reported already. Messages of which nothing was sent come back; the link drops the rest.
        assert n1.events_of("down") == [("down", "n2", "too much is queued to be sent")]
        assert n1.link.waiting("n2") == 0
        given_back = [event for event in n1.events_of("refused") if event[5] == "no answer for 1000 ms"]
        assert len(given_back) >= 3
        assert n3.texts == texts


@on_a_loop
async def test_only_messages_of_which_nothing_was_sent_are_given_back() -> None:
    connections: list[Raw] = []

    async def stop_reading(raw: Raw) -> None:
        await raw.admit(identity("n2"))
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        connections.append(raw)
        await asyncio.get_running_loop().create_future()

    n1 = Node("n1", bulk_bytes=1 << 30)
    async with running(n1), Listener(stop_reading) as n2:
        n1.link.add_peer("n2", n2.address)
        await until(lambda: n1.link.connected("n2") and connections)
        notes = [n1.note("n2", str(number), data=bytes(1_000_000)) for number in range(64)]
        before = -1
        while before != n1.link.stats.bytes_sent:
            before = n1.link.stats.bytes_sent
            await turns(100)
        connections[0].writer.transport.abort()
        await until(lambda: n1.link.stats.losses == 1)
        await turns(2)

        begun = -(-n1.link.stats.bytes_sent // 1_000_100)
        assert 1 <= begun <= 40
        down = n1.events_of("down")
        assert len(down) == 1
        assert n1.events == [
            ("up", "n2"),
            *(("refused", "n2", "target", "source", note, down[0][2]) for note in notes[begun:]),
            *down,
        ]


@on_a_loop
async def test_a_name_is_resolved_at_each_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    n1, n2 = Node("n1"), Node("n2")
    found = ["127.0.0.9"]
    look_up = socket.getaddrinfo

    def name_service(host: str, *args: object, **kwargs: object) -> object:
        if host == "a-name" and not kwargs.get("flags"):
            return look_up(found[0], *args, **kwargs)  # type: ignore[arg-type]
        return look_up(host, *args, **kwargs)  # type: ignore[arg-type]

    async with running(n1, n2):
        monkeypatch.setattr(socket, "getaddrinfo", name_service)
        n2.link.add_peer("n1", "127.0.0.1:1")
        n1.link.add_peer("n2", f"a-name:{n2.link.port}")
        await until(lambda: n1.link.peer_refusals() == {"n2": "connection refused"})
        found[0] = "127.0.0.1"
        await until(lambda: n1.link.connected("n2"))


@on_a_loop
async def test_all_addresses_of_a_name_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    n1, n2 = Node("n1"), Node("n2")
    look_up = socket.getaddrinfo

    def name_service(host: str, *args: object, **kwargs: object) -> object:
        if host == "a-name" and not kwargs.get("flags"):
            both = look_up("127.0.0.9", *args, **kwargs)  # type: ignore[arg-type]
            return both + look_up("127.0.0.1", *args, **kwargs)  # type: ignore[arg-type]
        return look_up(host, *args, **kwargs)  # type: ignore[arg-type]

    async with running(n1, n2):
        monkeypatch.setattr(socket, "getaddrinfo", name_service)
        n2.link.add_peer("n1", "127.0.0.1:1")
        n1.link.add_peer("n2", f"a-name:{n2.link.port}")
        await until(lambda: n1.link.connected("n2"))


@on_a_loop
async def test_a_look_up_that_hangs_takes_only_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    asked: list[str] = []
    look_up = socket.getaddrinfo

    def name_service(host: str, *args: object, **kwargs: object) -> object:
        if kwargs.get("flags"):
            return look_up(host, *args, **kwargs)  # type: ignore[arg-type]
        asked.append(host)
        release.wait(60)
        return look_up("127.0.0.1", *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", name_service)
    resolver = Resolver()
    for _ in range(5):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.002):
                await resolver.resolve("slow-name", 7)
    await until(lambda: asked)
    release.set()
    assert await resolver.resolve("slow-name", 7) == [("127.0.0.1", 7)]
    assert asked == ["slow-name"]


@on_a_loop
async def test_an_invalid_name_is_reported_and_dialled_again() -> None:
    n1, name = Node("n1"), "x" * 70
    async with running(n1):
        n1.link.add_peer("n2", f"{name}:1")
        await until(lambda: n1.link.stats.failed_dials["not reached"] >= 3)
        assert n1.link.peer_refusals() == {"n2": f"not a host name: '{name}'"}


@pytest.mark.parametrize(
    ("address", "split"),
    [("h:1", ("h", 1)), ("[::1]:65535", ("::1", 65535)), ("127.0.0.1:0", ("127.0.0.1", 0)), ("a.b:80", ("a.b", 80))],
)
def test_addresses_are_host_and_port(address: str, split: tuple[str, int]) -> None:
    assert split_address(address) == split


@pytest.mark.parametrize("address", ["", "h", "h:", ":1", "h:x", "h:-1", "h:65536", "h:１", "[]:1"])
def test_other_texts_are_not_addresses(address: str) -> None:
    with pytest.raises(ValueError, match="not host:port"):
        split_address(address)


def test_reasons_for_failed_dials_are_readable() -> None:
    assert describe(ConnectionRefusedError(111, "Connect call failed ('127.0.0.1', 1)")) == "connection refused"
    assert describe(OSError(113, "Connect call failed ('10.0.0.1', 1)")) == "no route to host"
    assert describe(socket.gaierror(-2, "Name or service not known")) == "name or service not known"
    assert describe(TimeoutError("no answer within 5 ms")) == "no answer within 5 ms"
    assert describe(Refusal(Reason.CLUSTER)) == "wrong cluster id"
