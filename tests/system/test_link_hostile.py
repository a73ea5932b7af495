"""The link and hostile connections: they are refused and counted, and do not affect other peers."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections import Counter
from contextlib import suppress

import msgspec
import pytest

from raftkv.actors.system.link.frames import (
    BULK_FRAGMENT,
    BULK_LAST,
    CONTROL_MESSAGE,
    HEADER,
    KEEPALIVE,
    frame,
)
from raftkv.actors.system.link.handshake import MAGIC, PREAMBLE, VERSION, PeerIdentity, Refusal, Rejected
from tests.system.link_nodes import (
    NOTES,
    Listener,
    Node,
    Note,
    Raw,
    Relay,
    cluster,
    connected,
    dialled,
    identity,
    introduce,
    on_a_loop,
    running,
    turns,
    until,
)

encode = msgspec.msgpack.encode


def message(sender: str, text: str) -> bytes:
    """Return the body of a message."""
    return encode(("target", "source", encode(Note(sender, text))))


async def refused(n1: Node, n2: Node, reason: str) -> None:
    """Wait until n1 knows why n2 refuses it."""
    await until(lambda: n1.link.peer_refusals().get("n2", "").startswith(reason))
    assert not n1.link.connected("n2")
    await until(lambda: n2.link.stats.refused_handshakes[reason] >= 1)
    assert set(n2.link.stats.refused_handshakes) == {reason}
    assert n1.link.stats.failed_dials[reason] >= 1
    assert (n1.events, n2.events) == ([], [])


@on_a_loop
async def test_another_secret_is_refused_on_both_sides() -> None:
    n1, n2 = Node("n1"), Node("n2", secret=b"another")
    async with running(n1, n2):
        introduce(n1, n2)
        await refused(n1, n2, "wrong cluster secret")


@on_a_loop
async def test_another_cluster_is_refused() -> None:
    n1, n2 = Node("n1", cluster_id="c1"), Node("n2", cluster_id="c2")
    async with running(n1, n2):
        introduce(n1, n2)
        await refused(n1, n2, "wrong cluster id")


@on_a_loop
async def test_a_node_other_than_the_target_is_refused() -> None:
    n1, n3 = Node("n1"), Node("n3")
    async with running(n1, n3):
        n3.link.add_peer("n1", "127.0.0.1:1")
        n1.link.add_peer("n2", n3.address)
        await refused(n1, n3, "wrong node reached")
        assert n1.link.peer_refusals() == {"n2": "wrong node reached: n3 answers where n2 was expected"}


@on_a_loop
async def test_an_unknown_node_is_refused() -> None:
    n1, n2 = Node("n1"), Node("n2")
    async with running(n1, n2):
        n1.link.add_peer("n2", n2.address)
        await refused(n1, n2, "unknown node id")


@on_a_loop
async def test_a_node_with_our_id_at_the_address_of_a_peer_is_refused() -> None:
    n1, twin = Node("n1"), Node("n1")
    async with running(n1, twin):
        n1.link.add_peer("n2", twin.address)
        await refused(n1, twin, "wrong node reached")


@on_a_loop
async def test_a_node_with_our_own_id_is_refused() -> None:
    n2 = Node("n2")
    async with running(n2), dialled(n2) as raw:
        with pytest.raises(Refusal, match="own node id: this is n2 already"):
            await raw.prove(identity("n2"), "n2")
        assert n2.link.stats.refused_handshakes == Counter({"own node id": 1})


@on_a_loop
async def test_another_version_gets_a_rejection_with_both_versions() -> None:
    n2 = Node("n2")
    async with running(n2), dialled(n2) as raw:
        raw.writer.write(PREAMBLE.pack(MAGIC, VERSION + 1, 2) + b"hi")
        record = await raw.record()
        assert record == Rejected("wrong protocol version", "one side speaks version 2, the other 1")
        assert await raw.rest() == b""
        assert n2.link.stats.refused_handshakes == Counter({"wrong protocol version": 1})


@on_a_loop
async def test_a_peer_of_another_version_is_reported_as_such() -> None:
    async def answer(raw: Raw) -> None:
        await raw.raw_record()
        raw.writer.write(PREAMBLE.pack(MAGIC, 9, 2) + b"hi")
        await raw.rest()

    n1 = Node("n1")
    async with running(n1), Listener(answer) as n2:
        n1.link.add_peer("n2", n2.address)
        words = "wrong protocol version: one side speaks version 9, the other 1"
        await until(lambda: n1.link.peer_refusals() == {"n2": words})


@on_a_loop
async def test_keepalives_compare_a_cluster_id_that_is_found_later() -> None:
    n1, n2 = Node("n1", ping_ms=5, silence_ms=20_000), Node("n2", ping_ms=5, silence_ms=20_000)
    async with cluster(n1, n2):
        n1.cluster_id = "c1"
        before = n1.link.stats.frames_received
        await until(lambda: n1.link.stats.frames_received > before + 5)
        assert (n1.events_of("down"), n2.events_of("down")) == ([], [])
        n2.cluster_id = "c2"
        await until(lambda: n1.link.peer_refusals().get("n2", "").startswith("wrong cluster id"))
        await until(lambda: n2.link.peer_refusals().get("n1", "").startswith("wrong cluster id"))


@on_a_loop
async def test_a_replayed_session_is_refused() -> None:
    n1, n2 = Node("n1"), Node("n2")
    async with running(n1, n2), Relay(n2.link.port) as relay:
        n2.link.add_peer("n1", "127.0.0.1:1")
        n1.link.add_peer("n2", relay.address)
        await until(lambda: n1.link.connected("n2"))
        n1.note("n2", "pay 100")
        await until(lambda: n2.texts == ["pay 100"])
        recorded = bytes(relay.forth)

        async with dialled(n2) as raw:
            raw.writer.write(recorded)
            await raw.raw_record()
            assert await raw.record() == Rejected("wrong cluster secret")
        assert n2.texts == ["pay 100"]
        assert n2.link.stats.refused_handshakes == Counter({"wrong cluster secret": 1})
        assert n1.link.connected("n2")


@on_a_loop
async def test_a_replayed_acceptor_gets_nothing_but_a_hello() -> None:
    n1, n2 = Node("n1"), Node("n2")
    async with running(n1, n2), Relay(n2.link.port) as relay:
        n2.link.add_peer("n1", "127.0.0.1:1")
        n1.link.add_peer("n2", relay.address)
        await until(lambda: n1.link.connected("n2"))
        recorded = bytes(relay.back)
    sent: list[bytes] = []

    async def replay(raw: Raw) -> None:
        hello = await raw.raw_record()
        raw.writer.write(recorded)
        sent.extend((hello, await raw.rest()))

    n1 = Node("n1")
    async with running(n1), Listener(replay) as liar:
        n1.link.add_peer("n2", liar.address)
        await until(lambda: n1.link.peer_refusals() == {"n2": "wrong cluster secret"})
        await until(lambda: len(sent) >= 2)
        assert sent[1] in (b"", _record(Rejected("wrong cluster secret")))
        assert n1.events == []


def _record(record: Rejected) -> bytes:
    body = encode(record)
    return PREAMBLE.pack(MAGIC, VERSION, len(body)) + body


@pytest.mark.parametrize(
    ("stream", "problem"),
    [
        (frame(CONTROL_MESSAGE, message("n3", "not mine")), "message of another sender"),
        (frame(BULK_LAST, message("n3", "not mine")), "message of another sender"),
        (frame(CONTROL_MESSAGE, b""), "undecodable message"),
        (frame(CONTROL_MESSAGE, b"\xc1"), "undecodable message"),
        (frame(CONTROL_MESSAGE, encode(("target", "source"))), "undecodable message"),
        (frame(CONTROL_MESSAGE, encode(("target", 1, b""))), "undecodable message"),
        (frame(CONTROL_MESSAGE, encode(("target", "source", b"\xc1"))), "undecodable message"),
        (frame(CONTROL_MESSAGE, encode(("target", "source", encode(["n1", 7])))), "undecodable message"),
        (frame(CONTROL_MESSAGE, encode(("target", "source", b"\x91" * 100_000))), "undecodable message"),
        (frame(CONTROL_MESSAGE, b"\x91" * 100_000), "undecodable message"),
        (frame(CONTROL_MESSAGE, message("n1", "x") + b"x"), "undecodable message"),
        (HEADER.pack(1, 0) + b"x", "unknown flags"),
        (HEADER.pack(1, 255) + b"x", "unknown flags"),
        (HEADER.pack((256 << 10) + 1, CONTROL_MESSAGE), "frame over the limit"),
        (HEADER.pack(2**32 - 1, BULK_FRAGMENT), "frame over the limit"),
        (frame(BULK_FRAGMENT, b""), "empty fragment"),
        (frame(BULK_FRAGMENT, bytes(256 << 10)) * 65, "message over the limit"),
        (frame(KEEPALIVE, b"\xff"), "malformed keepalive"),
        (frame(KEEPALIVE, b"c2"), "wrong cluster id"),
    ],
)
@on_a_loop
async def test_a_peer_that_breaks_the_protocol_is_disconnected(stream: bytes, problem: str) -> None:
    n2 = Node("n2", cluster_id="c1")
    async with running(n2), dialled(n2) as raw:
        n2.link.add_peer("n1", "127.0.0.1:1")
        await raw.prove(identity("n1"), "n2")
        raw.writer.write(frame(CONTROL_MESSAGE, message("n1", "before")) + stream)
        raw.writer.write(frame(CONTROL_MESSAGE, message("n1", "after")))
        await raw.rest()
        await until(lambda: n2.link.stats.bad_frames)

        assert n2.link.stats.bad_frames == Counter({problem: 1})
        assert n2.texts == ["before"]
        await until(lambda: n2.link.identity("n1") is None)


@on_a_loop
async def test_any_exception_of_a_codec_ends_only_the_connection() -> None:
    def decode(data: object) -> object:
        raise KeyError("nothing that a decoder should raise")

    n1, n2 = Node("n1"), Node("n2", codec=NOTES._replace(decode=decode))
    async with cluster(n1, n2):
        n1.note("n2", "one")
        await until(lambda: len(n1.events_of("up")) == 2)
        assert n2.link.stats.bad_frames == Counter({"undecodable message": 1})


@on_a_loop
async def test_an_exception_of_a_receiver_ends_only_the_connection(caplog: pytest.LogCaptureFixture) -> None:
    n1, n2 = Node("n1"), Node("n2")

    class Full(list[object]):
        def append(self, what: object) -> None:
            raise RuntimeError("no more")

    async with cluster(n1, n2):
        n2.received = Full()  # type: ignore[assignment]
        n1.note("n2", "one")
        await until(lambda: len(n1.events_of("up")) == 2)
        n2.received = []
        n1.note("n2", "two")
        await until(lambda: n2.texts == ["two"])
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        "closed a connection, because handling its data failed"
    ]


@on_a_loop
async def test_random_bytes_before_and_after_the_handshake_do_no_harm() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    n2, n3 = Node("n2"), Node("n3")
    async with cluster(n2, n3):
        n2.link.add_peer("n1", "127.0.0.1:1")
        for number in range(60):
            async with dialled(n2) as raw:
                with suppress(ConnectionError):
                    if number % 2:
                        await raw.prove(identity("n1"), "n2")
                        raw.writer.write(HEADER.pack(rng.randrange(300), rng.choice((1, 2, 3, 4))))
                    elif number % 4:
                        raw.writer.write(PREAMBLE.pack(MAGIC, VERSION, rng.randrange(1, 300)))
                    raw.writer.write(rng.randbytes(rng.randrange(1, 1000)))
                    raw.writer.write_eof()
                    await raw.rest()
        n3.note("n2", "still here")
        await until(lambda: "still here" in n2.texts)
        assert n2.texts == ["still here"]
        assert (n2.events_of("down"), n3.events_of("down")) == ([], [])


@on_a_loop
async def test_damaged_frames_do_no_harm() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    n2 = Node("n2", ping_ms=50, silence_ms=100)
    stream = b"".join(
        frame(CONTROL_MESSAGE, message("n1", str(number)))
        + frame(BULK_FRAGMENT, message("n1", "in parts")[:20])
        + frame(BULK_LAST, message("n1", "in parts")[20:])
        + frame(KEEPALIVE, b"")
        for number in range(10)
    )
    async with running(n2):
        n2.link.add_peer("n1", "127.0.0.1:1")
        for _ in range(60):
            damaged = bytearray(stream)
            for _ in range(rng.randrange(1, 4)):
                damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
            async with dialled(n2) as raw:
                await raw.prove(identity("n1"), "n2")
                with suppress(ConnectionError):
                    raw.writer.write(damaged)
                    raw.writer.write_eof()
                await raw.rest()
        async with dialled(n2) as raw:
            await raw.prove(identity("n1"), "n2")
            raw.writer.write(stream)
            before = len(n2.received)
            await until(lambda: n2.texts[before:] == [t for n in range(10) for t in (str(n), "in parts")])
    assert {(peer, note.sender) for peer, _, _, note in n2.received} == {("n1", "n1")}
    assert n2.link.stats.bad_frames.total() > 0


@on_a_loop
async def test_an_endless_frame_is_bounded_in_memory_and_time() -> None:
    n2 = Node("n2", ping_ms=20, silence_ms=200)
    async with running(n2), dialled(n2) as raw:
        n2.link.add_peer("n1", "127.0.0.1:1")
        await raw.prove(identity("n1"), "n2")
        raw.writer.write(HEADER.pack(1000, CONTROL_MESSAGE) + b"x")
        assert await raw.rest() == b""
        assert n2.received == []
        assert n2.link.identity("n1") is None


@on_a_loop
async def test_a_handshake_has_a_deadline() -> None:
    n2 = Node("n2", handshake_ms=30)
    async with running(n2):
        for begin in (b"", MAGIC, PREAMBLE.pack(MAGIC, VERSION, 100) + b"x"):
            async with dialled(n2) as raw:
                raw.writer.write(begin)
                assert await raw.rest() == b""
        assert n2.link.stats.refused_handshakes == Counter({"handshake took too long": 3})


@on_a_loop
async def test_a_peer_that_accepts_and_sends_nothing_is_reported_as_such() -> None:
    async def silent(raw: Raw) -> None:
        await raw.rest()

    n1 = Node("n1", handshake_ms=20)
    async with running(n1), Listener(silent) as n2:
        n1.link.add_peer("n2", n2.address)
        await until(lambda: n1.link.stats.failed_dials["handshake took too long"] >= 3)
        assert n1.link.peer_refusals() == {"n2": "handshake took too long"}


@on_a_loop
async def test_a_port_with_another_protocol_is_reported_as_such() -> None:
    async def web_server(raw: Raw) -> None:
        raw.writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await raw.rest()

    n1 = Node("n1")
    async with running(n1), Listener(web_server) as n2:
        n1.link.add_peer("n2", n2.address)
        await until(lambda: n1.link.peer_refusals() == {"n2": "malformed handshake"})


@on_a_loop
async def test_a_flood_of_unauthenticated_connections_keeps_no_peer_out() -> None:
    n1, n2 = Node("n1"), Node("n2", handshakes=70, handshake_ms=60_000)
    async with running(n1, n2):
        flood = [Raw(*await asyncio.open_connection("127.0.0.1", n2.link.port)) for _ in range(200)]
        introduce(n1, n2)
        await connected(n1, n2)
        n1.note("n2", "through the crowd")
        await until(lambda: n2.texts == ["through the crowd"])

        crowded = n2.link.stats.refused_handshakes["too many handshakes"]
        assert 200 - 70 <= crowded <= 200 - 70 + n1.link.stats.connects + sum(n1.link.stats.failed_dials.values())
        # The oldest was ended.
        for raw in flood[:130]:
            assert await raw.rest() == b""
        for raw in flood:
            await raw.close()
        await until(lambda: n2.link.stats.refused_handshakes.total() >= 200)


@on_a_loop
async def test_refused_connections_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    n2 = Node("n2")
    async with running(n2):
        for _ in range(20):
            async with dialled(n2) as raw:
                raw.writer.write(b"GET / HTTP/1.1\r\n\r\n")
                await raw.rest()
        assert n2.link.stats.refused_handshakes == Counter({"malformed handshake": 20})
    assert len([record for record in caplog.records if "refused a connection" in record.getMessage()]) <= 2


@on_a_loop
async def test_a_new_connection_of_a_peer_replaces_its_previous_one() -> None:
    n2 = Node("n2")
    async with running(n2), dialled(n2) as old, dialled(n2) as new:
        n2.link.add_peer("n1", "127.0.0.1:1")
        await old.prove(PeerIdentity("n1", "first", ""), "n2")
        old.writer.write(frame(CONTROL_MESSAGE, message("n1", "old")))
        await until(lambda: n2.texts == ["old"])
        await new.prove(PeerIdentity("n1", "second", ""), "n2")
        assert await old.rest() == b""
        assert n2.link.identity("n1") == PeerIdentity("n1", "second", "")
        new.writer.write(frame(CONTROL_MESSAGE, message("n1", "new")))
        await until(lambda: n2.texts == ["old", "new"])
        assert n2.link.stats.replaced == 1


@on_a_loop
async def test_keepalives_are_not_answered_while_the_peer_does_not_read() -> None:
    """A peer floods us with keepalives and never reads: answers must not pile up here."""
    n2 = Node("n2", cluster_id="c" * 64)
    answer = frame(KEEPALIVE, b"c" * 64)
    async with running(n2):
        # The kernel would buffer many thousand answers before any waited here.
        n2.link._listener._sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        async with dialled(n2, receive_buffer=1) as raw:
            n2.link.add_peer("n1", "127.0.0.1:1")
            await raw.prove(identity("n1"), "n2")
            raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
            stats = n2.link.stats
            connection = n2.link._inbound._peers["n1"]
            assert connection.transport is not None
            while not connection.paused:
                await keepalives(raw, n2)
            sent = stats.bytes_sent
            for _ in range(100):
                await keepalives(raw, n2)
            assert stats.bytes_sent == sent
            assert 0 < connection.transport.get_write_buffer_size() <= len(answer)


async def keepalives(raw: Raw, node: Node) -> None:
    """Send ten keepalives and wait until they have been read."""
    before = node.link.stats.frames_received
    raw.writer.write(frame(KEEPALIVE, b"") * 10)
    await until(lambda: node.link.stats.frames_received == before + 10)


@on_a_loop
async def test_many_keepalives_at_once_get_one_answer() -> None:
    n2 = Node("n2", cluster_id="c")
    async with running(n2), dialled(n2) as raw:
        n2.link.add_peer("n1", "127.0.0.1:1")
        await raw.prove(identity("n1"), "n2")
        await keepalives(raw, n2)
        raw.writer.write(frame(CONTROL_MESSAGE, message("n1", "done")))
        await until(lambda: n2.texts == ["done"])
        raw.writer.write_eof()
        assert await raw.rest() == frame(KEEPALIVE, b"c")


@on_a_loop
async def test_an_unexpected_keepalive_ends_the_connection() -> None:
    async def talkative(raw: Raw) -> None:
        await raw.admit(identity("n2"))
        raw.writer.write(frame(KEEPALIVE, b""))
        await raw.rest()

    n1 = Node("n1")
    async with running(n1), Listener(talkative) as n2:
        n1.link.add_peer("n2", n2.address)
        await until(lambda: n1.events_of("down"))
        assert n1.events[:2] == [("up", "n2"), ("down", "n2", "unexpected keepalive")]


@on_a_loop
async def test_a_message_from_an_acceptor_ends_the_connection() -> None:
    async def backwards(raw: Raw) -> None:
        await raw.admit(identity("n2"))
        raw.writer.write(frame(CONTROL_MESSAGE, message("n2", "backwards")))
        await raw.rest()

    n1 = Node("n1")
    async with running(n1), Listener(backwards) as n2:
        n1.link.add_peer("n2", n2.address)
        await until(lambda: n1.events_of("down"))
        assert n1.events[:2] == [("up", "n2"), ("down", "n2", "unknown flags")]
        assert n1.received == []


@on_a_loop
async def test_a_peer_that_disconnects_at_once_is_dialled_after_a_backoff() -> None:
    """Two processes with the same id replace each other's connections; each loss counts as a failure."""

    async def hang_up(raw: Raw) -> None:
        await raw.admit(identity("n2"))

    n1 = Node("n1", backoff_min_ms=1, backoff_max_ms=10_000)
    async with running(n1), Listener(hang_up) as n2:
        n1.link.add_peer("n2", n2.address)
        await until(lambda: len(n1.events_of("down")) == 4)
        await turns(2)
        assert n1.link._peers["n2"].failures == n1.link.stats.connects == 4
