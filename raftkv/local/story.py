"""Prints what happens in a local cluster, in words that need no knowledge of Raft."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable

from raftkv.local.files import LocalNode
from raftkv.process.supervisor import Event, Leaderless, Listening, RoleReport
from raftkv.raft.entry import NodeId


class Story:
    """Turns reports of the nodes into lines for ``say``; ``pid_of`` returns the process id of a running node."""

    def __init__(
        self, say: Callable[[str], None], nodes: Iterable[LocalNode], pid_of: Callable[[NodeId], int | None]
    ) -> None:
        self._say = say
        self._nodes = {node.id: node for node in nodes}
        self._pid_of = pid_of
        self._leader: NodeId | None = None
        self._term = 0
        self._up: set[NodeId] = set()
        self._knows_leader: set[NodeId] = set()
        self._last_news: dict[NodeId, object] = {}
        self._explained = False

    def add(self, event: Event) -> None:
        """Print a report, unless it repeats the one before of the same node."""
        if isinstance(event, Listening):
            self._up.add(event.id)
            log = self._nodes[event.id].log
            self._say(f"{event.id} is up: http://{event.http} (pid {self._pid_of(event.id)}, log {log})")
        elif isinstance(event, Leaderless):
            self._say_once(event.id, event, f"{event.id} has no leader: {event.reason}")
        else:
            self._add_role(event)

    def forget(self, node_id: NodeId) -> None:
        """Note that a node stopped: its next report is news again."""
        self._last_news.pop(node_id, None)
        self._up.discard(node_id)
        self._knows_leader.discard(node_id)

    def _add_role(self, event: RoleReport) -> None:
        if event.leader is not None and event.term > self._term:
            self._leader, self._term = event.leader, event.term
            self._knows_leader.clear()
            pid = self._pid_of(event.leader) if self._explained else None
            hint = f" To stop it too: kill -9 {pid}" if pid else ""
            self._say(f"{event.leader} is the leader now (term {event.term}).{hint}")
        match event.role:
            case "bootstrap":
                self._say_once(event.id, "bootstrap", f"{event.id} is new and waits until all nodes are connected.")
            case "candidate":
                # A candidate that does not win starts one election after another; only the first is news.
                self._say_once(event.id, "candidate", f"{event.id} starts an election: {event.reason}")
            case "follower" if event.leader is not None:
                self._say_once(event.id, event.term, f"{event.id} follows {event.leader} (term {event.term}).")
            case "follower" if event.id == self._leader and event.term >= self._term:
                self._say_once(event.id, "deposed", f"{event.id} is no longer the leader: {event.reason}")
            case _:
                self._last_news.pop(event.id, None)
        if event.leader is not None and event.term == self._term:
            self._knows_leader.add(event.id)
            self._explain_once(event.leader)

    def _say_once(self, node_id: NodeId, news: object, line: str) -> None:
        if self._last_news.get(node_id) != news:
            self._last_news[node_id] = news
            self._say(line)

    def _explain_once(self, leader: NodeId) -> None:
        """Print what to try, once every node knows the leader, so that no other line comes in between."""
        if not self._explained and self._up <= self._knows_leader:
            self._explained = True
            for line in self._explanation(leader):
                self._say(line)

    def _explanation(self, leader: NodeId) -> Iterable[str]:
        """Yield what to try, with the nodes' addresses and the leader's process id."""
        urls = [f"http://{node.http}" for node in self._nodes.values()]
        survivor = next((f"http://{node.http}" for node in self._nodes.values() if node.id != leader), urls[0])
        yield ""
        yield "Try it in another terminal:"
        yield f'  curl -X POST {urls[0]}/keys/greeting/ -d \'{{"value": "hello"}}\''
        yield f"  curl {urls[-1]}/keys/greeting/"
        pid = self._pid_of(leader)
        if pid is not None and len(urls) > 1:
            yield "Kill the leader; the others elect a new one, and no write is lost:"
            yield f"  kill -9 {pid}"
            yield f"  curl {survivor}/keys/greeting/"
        yield "Ctrl-C here stops all nodes."
        yield ""


def how_it_ended(status: int) -> str:
    """Return the exit status of a child in words; a negative status is a signal."""
    if status >= 0:
        return f"exit status {status}"
    try:
        return f"killed by signal {-status}, {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
