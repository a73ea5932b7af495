"""The link between well-behaved nodes: messages arrive, in order, control first."""

from __future__ import annotations

import asyncio
import random

import pytest

from raftkv.actors.messages.base import PeerMessage
from raftkv.actors.messages.raft import (
    AppendEntries,
    RequestVote,
    RequestVoteReply,
)
from raftkv.actors.messages.requests import Forward, Propose
from raftkv.actors.messages.wire import decode_peer, encode_peer, is_control
from raftkv.actors.system.link.link import Codec, Link
from raftkv.raft.entry import Entry, Kind
from raftkv.store.commands import Put, encode_commands
from tests.system.link_nodes import (
    Node,
    Note,
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

PEER_MESSAGES = Codec(encode_peer, decode_peer, is_control, lambda message: message.sender)


@on_a_loop
async def test_three_nodes_exchange_messages_in_all_directions() -> None:
    nodes = [Node(name) for name in ("n1", "n2", "n3")]
    async with cluster(*nodes):
        for node in nodes:
            for peer in nodes:
                if peer is not node:
                    node.note(peer.id, f"{node.id} to {peer.id}")
        await until(lambda: all(len(node.received) == 2 for node in nodes))

        for node in nodes:
            assert sorted(node.received) == [
                (peer.id, "target", "source", Note(peer.id, f"{peer.id} to {node.id}"))
                for peer in nodes
                if peer is not node
            ]
            assert sorted(node.events) == [("up", peer.id) for peer in nodes if peer is not node]
            assert node.link.peer_refusals() == {}


@on_a_loop
async def test_raft_messages_arrive_unchanged() -> None:
    n1, n2 = Node("n1", codec=PEER_MESSAGES), Node("n2", codec=PEER_MESSAGES)
    entries = tuple(
        Entry(index, 3, Kind.COMMANDS, encode_commands((Put("k", bytes(index)),))) for index in range(1, 50)
    )
    messages: list[PeerMessage] = [
        AppendEntries("n1", 3, 0, 0, entries, 7),
        Forward("n1", 1, 2, Propose((Put("é/\x00", b"\xff"),), 12.5)),
        Forward("n1", 1, 3, Propose((Put("k" * 100, b"v"),), 0.0)),
    ]
    async with cluster(n1, n2):
        for message in messages:
            n1.link.send("n2", "node", "leader", message)
        n2.link.send("n1", "node", "candidate", RequestVote("n2", 4, 50, 3, pre_vote=True))
        await until(lambda: len(n2.received) == 3 and len(n1.received) == 1)

        assert n2.received == [("n1", "node", "leader", message) for message in messages]
        assert n1.received == [("n2", "node", "candidate", RequestVote("n2", 4, 50, 3, pre_vote=True))]


@on_a_loop
async def test_each_lane_keeps_its_order() -> None:
    n1, n2 = Node("n1"), Node("n2")
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    async with cluster(n1, n2):
        for number in range(500):
            size = rng.choice((0, 100, 3000, 300_000) if number % 10 == 0 else (0, 100, 3000))
            n1.note("n2", str(number), control=rng.random() < 0.5, data=bytes(size))
            if rng.random() < 0.1:
                await turns(rng.randrange(5))
        await until(lambda: len(n2.received) == 500)

    notes = [note for _, _, _, note in n2.received]
    # A control message too large for one frame is sent in the bulk lane.
    for lane in (True, False):
        numbers = [int(note.text) for note in notes if (note.control and len(note.data) <= 3000) is lane]
        assert numbers == sorted(numbers)
    assert sorted(int(note.text) for note in notes) == list(range(500))


@on_a_loop
async def test_control_is_sent_before_bulk_of_the_same_turn() -> None:
    n1, n2 = Node("n1"), Node("n2")
    async with cluster(n1, n2):
        n1.note("n2", "bulk 1")
        n1.note("n2", "bulk 2")
        n1.note("n2", "control 1", control=True)
        n1.note("n2", "control 2", control=True)
        await until(lambda: len(n2.received) == 4)
        assert n2.texts == ["control 1", "control 2", "bulk 1", "bulk 2"]


@on_a_loop
async def test_control_overtakes_a_large_message_that_is_being_sent() -> None:
    n1, n2 = Node("n1"), Node("n2")
    async with cluster(n1, n2):
        frames = n1.link.stats.frames_sent
        note = n1.note("n2", "large", data=random.Random(1).randbytes(8 << 20))
        await until(lambda: n1.link.stats.frames_sent > frames)
        n1.note("n2", "small", control=True)
        await until(lambda: len(n2.received) == 2)

        assert n2.texts == ["small", "large"]
        assert n2.received[1][3] == note
        assert n1.link.stats.frames_sent >= frames + 33


@on_a_loop
async def test_a_control_message_too_large_for_a_frame_arrives() -> None:
    n1, n2 = Node("n1"), Node("n2")
    async with cluster(n1, n2):
        note = n1.note("n2", "large", control=True, data=bytes(1 << 20))
        await until(lambda: n2.received)
        assert n2.received == [("n1", "target", "source", note)]


@on_a_loop
async def test_messages_of_one_turn_are_sent_together_at_its_end() -> None:
    # No keepalive may come in between, however slow the machine.
    n1, n2 = Node("n1", ping_ms=60_000), Node("n2")
    async with cluster(n1, n2):
        before = n1.link.stats.bytes_sent
        for number in range(100):
            n1.note("n2", str(number))
        assert n1.link.stats.bytes_sent == before
        await turns(1)
        assert n1.link.stats.frames_sent == 100
        await until(lambda: len(n2.received) == 100)
        assert n2.texts == [str(number) for number in range(100)]


@on_a_loop
async def test_the_transport_gets_little_at_once_so_that_control_can_overtake() -> None:
    n1, n2 = Node("n1"), Node("n2")
    async with cluster(n1, n2):
        n2.link.pause_receiving()
        sent = 30 << 20
        for number in range(30):
            n1.note("n2", str(number), data=bytes(1 << 20))
        # The kernel's buffer is bounded too; the rest must stay in the lanes, where control messages can overtake it.
        await turns(200)
        assert n1.link.waiting("n2") > sent // 2
        n1.note("n2", "control", control=True)
        n2.link.resume_receiving()
        await until(lambda: len(n2.received) == 31)
        assert n2.texts.index("control") < 15


@on_a_loop
async def test_messages_that_arrive_while_receiving_is_paused_are_received_later() -> None:
    n1, n2 = Node("n1"), Node("n2")
    async with cluster(n1, n2):
        n2.link.pause_receiving()
        n2.link.pause_receiving()
        n1.note("n2", "one")
        await turns(50)
        assert n2.received == []
        n2.link.resume_receiving()
        await until(lambda: n2.received)
        assert n2.texts == ["one"]


@on_a_loop
async def test_pausing_also_pauses_connections_made_later() -> None:
    n1, n2 = Node("n1"), Node("n2")
    async with running(n1, n2):
        n2.link.pause_receiving()
        introduce(n1, n2)
        await connected(n1, n2)
        n1.note("n2", "one")
        await turns(50)
        assert n2.received == []
        n2.link.resume_receiving()
        await until(lambda: n2.texts == ["one"])


@on_a_loop
async def test_close_sends_queued_messages() -> None:
    n1, n2 = Node("n1", close_ms=20_000), Node("n2")
    async with cluster(n1, n2):
        for number in range(20):
            n1.note("n2", str(number), data=bytes(500_000))
        await n1.link.close()
        await until(lambda: ("down", "n1", "closed by the peer") in n2.events)

        assert n2.texts == [str(number) for number in range(20)]
        await until(lambda: n1.events_of("down"))
        assert n1.events == [("up", "n2"), ("down", "n2", "closing")]


@on_a_loop
async def test_close_waits_for_a_slow_peer_only_for_a_bounded_time() -> None:
    n1, n2 = Node("n1", close_ms=50), Node("n2")
    async with cluster(n1, n2):
        n2.link.pause_receiving()
        for number in range(20):
            n1.note("n2", str(number), data=bytes(1 << 20))
        connection = n1.link._peers["n2"]._connection
        assert connection is not None
        await n1.link.close()
        assert connection.closed.done()
        await until(lambda: n1.events_of("down"))
        await turns(2)

        assert n1.events_of("up", "down") == [("up", "n2"), ("down", "n2", "closing")]
        refused = [message.text for _, _, _, _, message, reason in n1.events_of("refused") if reason == "closing"]
        # Messages that the transport had are lost; of all others nothing has left.
        assert refused == [str(number) for number in range(20 - len(refused), 20)]
        assert len(refused) >= 10


@on_a_loop
async def test_start_raises_if_the_port_is_in_use() -> None:
    n1 = Node("n1")
    async with running(n1):
        n2 = Node("n2", listen_port=n1.link.port)
        with pytest.raises(OSError, match="address already in use"):
            await n2.link.start()


@on_a_loop
async def test_each_node_learns_the_identity_of_the_other() -> None:
    n1, n2 = Node("n1", cluster_id="c", initial_cluster_hash="l1"), Node("n2", initial_cluster_hash="l2")
    async with cluster(n1, n2):
        assert n2.link.identity("n1") == identity("n1", "c")._replace(initial_cluster_hash="l1")
        assert n1.link.identity("n2") == identity("n2")._replace(initial_cluster_hash="l2")
        assert n1.link.identity("n3") is None


@on_a_loop
async def test_keepalives_keep_an_idle_connection_open() -> None:
    n1, n2 = Node("n1", ping_ms=5, silence_ms=20_000), Node("n2", ping_ms=5, silence_ms=20_000)
    async with cluster(n1, n2):
        await until(lambda: n1.link.stats.frames_received > 20)
        assert n1.events == [("up", "n2")]
        assert n2.events == [("up", "n1")]


@on_a_loop
async def test_only_handshake_records_are_sent_before_both_sides_have_proved_themselves() -> None:
    """A dialler first sends its hello; the secret itself is never sent."""
    n1, n2 = Node("n1"), Node("n2")
    async with running(n1, n2), Relay(n2.link.port) as relay:
        n2.link.add_peer("n1", n1.address)
        n1.link.add_peer("n2", relay.address)
        await connected(n1, n2)
        n1.note("n2", "one")
        await until(lambda: n2.texts == ["one"])
        assert n1.settings.secret not in relay.forth
        assert n1.settings.secret not in relay.back


def test_settings_that_contradict_each_other_are_refused() -> None:
    for wrong in (
        {"node_id": ""},
        {"node_id": "n" * 65},
        {"frame_bytes": 0},
        {"frame_bytes": 2, "message_bytes": 1},
        {"message_bytes": 1 << 25},
        {"backoff_min_ms": 0},
        {"backoff_min_ms": 2, "backoff_max_ms": 1},
        {"ping_ms": 2, "silence_ms": 1},
        {"handshakes": 0},
        {"control_messages": 0},
    ):
        with pytest.raises(ValueError):
            settings("n1", **wrong) if "node_id" not in wrong else settings(str(wrong["node_id"]))


@pytest.mark.parametrize(
    ("peer", "address"), [("n1", "h:1"), ("", "h:1"), ("n" * 65, "h:1"), ("n2", "h"), ("n2", ":1"), ("n2", "h:99999")]
)
def test_invalid_peers_are_refused(peer: str, address: str) -> None:
    with pytest.raises(ValueError):
        Node("n1").link.add_peer(peer, address)


@on_a_loop
async def test_peers_may_be_added_before_or_after_the_start() -> None:
    n2, n3 = Node("n2"), Node("n3")
    async with running(n2, n3):
        up: list[str] = []
        link = Link(
            settings("n1"),
            {"n2": n2.address},
            n2.link._context.codec,
            receive=lambda *_: None,
            on_up=up.append,
            on_down=lambda *_: None,
            on_refused=lambda *_: None,
            cluster_id=lambda: None,
            rng=random.Random(1),
        )
        link.add_peer("n3", n3.address)
        n2.link.add_peer("n1", "127.0.0.1:1")
        n3.link.add_peer("n1", "127.0.0.1:1")
        await link.start()
        await until(lambda: len(up) == 2)
        assert sorted(up) == ["n2", "n3"]
        await asyncio.gather(link.close())


def test_votes_are_control_messages() -> None:
    assert PEER_MESSAGES.is_control(RequestVoteReply("n1", 1, True))
