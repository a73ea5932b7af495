"""Compare-and-set through every node while leaders are killed: every change is applied exactly once or not at all."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.support.cluster import Answer, Cluster, ask, wait_for

KEY = "/keys/counter/"
PACE_S = 0.01
"""Pause of a client between two increments, so that the clients leave the machine to the nodes."""


class Counting:
    """A client of one node that keeps incrementing a number under a key."""

    def __init__(self, port: int, stopped: threading.Event) -> None:
        self.port = port
        self.stopped = stopped
        self.done: list[tuple[str, str]] = []
        """The ETag that each increment required, and the ETag that it produced."""
        self.outcomes: Counter[str] = Counter()

    def ask(self, method: str, body: object = None, **headers: str) -> Answer | None:
        """Return an answer, or None if there is none."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            return ask(self.port, method, KEY + "?timeout=1", body, headers=named)
        except (OSError, http.client.HTTPException):
            return None

    def run(self) -> None:
        """Count until the event is set."""
        while not self.stopped.wait(PACE_S):
            read = self.ask("GET")
            if read is None or read.status != 200:
                continue
            etag, number = read.headers["Etag"], int(read.body["value"])
            written = self.ask("PUT", {"value": str(number + 1)}, If_Match=etag)
            if written is None:
                self.outcomes["unknown"] += 1
            elif written.status == 200:
                self.outcomes["done"] += 1
                self.done.append((etag, written.headers["Etag"]))
            else:
                assert written.status in (412, 429, 503, 504), written
                self.outcomes[str(written.body["error"]["outcome"])] += 1


def count_while(cluster: Cluster, act: Callable[[list[Counting]], None]) -> list[Counting]:
    """Run two clients per node while ``act`` runs; return them when all have ended."""
    stopped = threading.Event()
    clients = [Counting(cluster[node_id].http, stopped) for node_id in cluster.ids for _ in range(2)]
    with ThreadPoolExecutor(len(clients)) as pool:
        running = [pool.submit(client.run) for client in clients]
        try:
            act(clients)
        finally:
            stopped.set()
        for each in running:
            each.result()
    return clients


def wait_until_more(clients: list[Counting]) -> None:
    """Wait until each client has made one more increment."""
    before = {client: len(client.done) for client in clients}
    wait_for(
        lambda: all(len(client.done) > before[client] for client in clients), "every client makes another increment"
    )


def test_concurrent_compare_and_set_counts_every_increment_once(cluster: Cluster) -> None:
    def kill_leaders(clients: list[Counting]) -> None:
        for _ in range(2):
            wait_until_more(clients)
            leader = cluster.wait_for_leader()
            cluster.kill(leader)
            cluster.wait_for_leader(not_in=(leader,))
            cluster.start(leader)
        wait_until_more(clients)

    assert cluster.ask("n1", "PUT", KEY, {"value": "0"}, headers={"If-None-Match": "*"}).status == 200
    clients = count_while(cluster, kill_leaders)

    done = [pair for client in clients for pair in client.done]
    outcomes = sum((client.outcomes for client in clients), Counter[str]())
    required, produced = zip(*done, strict=True)
    counted = int(cluster.get("n1", "counter"))
    # Of all writes that require the same revision one succeeds, and each write produces a new revision.
    assert len(set(required)) == len(set(produced)) == len(done)
    assert len(done) <= counted <= len(done) + outcomes["unknown"], outcomes


def test_of_concurrent_creations_of_a_key_one_succeeds(cluster: Cluster) -> None:
    def make(number: int) -> Answer:
        body = {"value": str(number)}
        return cluster.ask(cluster.ids[number % 3], "PUT", KEY, body, headers={"If-None-Match": "*"})

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(make, range(12)))

    (winner,) = (number for number, answer in enumerate(answers) if answer.status == 200)
    losers = [answer for answer in answers if answer.status != 200]
    assert {(answer.status, answer.headers["Etag"]) for answer in losers} == {(412, answers[winner].headers["Etag"])}
    assert [cluster.get(node_id, "counter") for node_id in cluster.ids] == [str(winner)] * 3
