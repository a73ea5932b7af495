"""Arbitrary bytes from strangers on a node's ports stop neither the node nor its clients and peers."""

from __future__ import annotations

import asyncio
import contextlib
from random import Random

from tests.support.cluster import Cluster
from tests.support.load import MakeLoad, check

ATTACKS_PER_PORT = 40


def garbage(rng: Random) -> bytes:
    """Return bytes that no node or client sends; some begin like a valid handshake or request."""
    noise = rng.randbytes(rng.choice([1, 10, 100, 1000, 100_000]))
    kind = rng.randrange(8)
    if kind == 0:
        # The link's magic, any version, any length of what follows.
        return b"RKVL" + rng.randbytes(4) + noise
    if kind == 1:
        return b"RKVL" + (1).to_bytes(2) + min(len(noise), 1024).to_bytes(2) + noise
    if kind == 2:
        return b"PUT /keys/hostile/ HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n" + noise
    if kind == 3:
        return b"PUT /keys/hostile/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + noise
    if kind == 4:
        return b"PUT /keys/hostile/ HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(noise) + noise
    if kind == 5:
        return b"GET /keys/" + noise.replace(b"\n", b"").replace(b"\r", b"") + b"/ HTTP/1.1\r\nHost: a\r\n\r\n"
    if kind == 6:
        return b"GET /status HTTP/1.1\r\n" + b"X: y\r\n" * 10_000 + b"\r\n"
    return noise


async def attack(port: int, data: bytes, waits: bool) -> None:
    """Send this and hang up; with ``waits``, first read until the node hangs up or is silent for a while."""
    with contextlib.suppress(OSError, TimeoutError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(data)
            async with asyncio.timeout(0.3):
                await writer.drain()
                while waits and await reader.read(1 << 16):
                    pass
        finally:
            writer.transport.abort()


async def attack_all(ports: list[int], rng: Random) -> None:
    """Attack all ports, a few connections at a time."""
    attacks = [(port, garbage(rng), rng.random() < 0.5) for port in ports for _ in range(ATTACKS_PER_PORT)]
    rng.shuffle(attacks)
    for first in range(0, len(attacks), 12):
        await asyncio.gather(*(attack(*each) for each in attacks[first : first + 12]))


def test_garbage_on_every_port_under_load_stops_no_node(cluster: Cluster, make_load: MakeLoad, seed: int) -> None:
    load = make_load(cluster)
    load.wait_for_writes(10, *cluster.ids)
    pids = {node_id: cluster[node_id].pid for node_id in cluster.ids}
    ports = [port for node in cluster.nodes.values() for port in (node.http, node.raft)]

    load.run(attack_all(ports, Random(seed)))

    load.wait_for_writes(10, *cluster.ids)
    assert {node_id: cluster.wait_for_status(node_id)["pid"] for node_id in cluster.ids} == pids
    check(cluster, load)


def test_silent_connections_keep_no_client_or_peer_out(cluster: Cluster, make_load: MakeLoad) -> None:
    """A crowd of silent connections blocks neither clients nor peers: a killed node can rejoin."""
    load = make_load(cluster)

    async def crowd() -> list[asyncio.StreamWriter]:
        ports = [port for node in cluster.nodes.values() for port in [node.http] * 100 + [node.raft] * 200]
        return [(await asyncio.open_connection("127.0.0.1", port))[1] for port in ports]

    async def disperse(strangers: list[asyncio.StreamWriter]) -> None:
        for stranger in strangers:
            stranger.transport.abort()

    strangers = load.run(crowd())
    load.wait_for_writes(10, *cluster.ids)
    follower = next(node_id for node_id in cluster.ids if node_id != cluster.wait_for_leader())
    cluster.kill(follower)
    cluster.start(follower)
    load.wait_for_writes(10, *cluster.ids)
    load.run(disperse(strangers))
    check(cluster, load)
