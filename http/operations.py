"""The pages for operators and their tools: ``/status``, ``/livez``, ``/readyz``, ``/cluster``, and a hint at ``/``.

Each shows what this node itself knows at this moment. ``/status`` names the leader by id and, as far as the nodes have
advertised their addresses to each other, by URL; the process id of another node is on that node's ``/status``.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import raftkv
from raftkv.actors.gateway import Gateway, RequestFailed
from raftkv.actors.messages.requests import PeerStatus, Status
from raftkv.http.answers import JSON, Answer, encode_json
from raftkv.http.errors import ErrorKind, HttpError
from raftkv.http.target import parse_query
from raftkv.raft.entry import NodeId
from raftkv.store.commands import Get

ALLOWED = "GET, HEAD"
READY_TIMEOUT_S = 1.0

Parameters = dict[str, str]


class Addresses(NamedTuple):
    """Where peers and clients reach a node, as ``host:port``; None for what is not known."""

    raft: str | None = None
    http: str | None = None


Describe = Callable[[], Mapping[NodeId, Addresses]]


class ReadPage:
    """The action of a request for one of these pages."""

    takes_body = False
    body_limit = 0

    def __init__(self, page: Callable[[Parameters], Awaitable[object]], parameters: Parameters) -> None:
        self._page = page
        self._parameters = parameters

    def start(self, body: bytes) -> asyncio.Future[object]:
        """Begin to gather the content of the page."""
        return asyncio.ensure_future(self._page(self._parameters))

    def answer(self, outcome: object) -> Answer:
        """Return the page."""
        return Answer(200, encode_json(outcome), (("Content-Type", JSON),))

    def too_large(self) -> HttpError:
        """Return the error for a body that is too long to be discarded."""
        return HttpError(ErrorKind.BODY_TOO_LARGE)


class Operations:
    """Finds the action of a request for a page. ``describe`` returns the addresses of the members that are known."""

    def __init__(self, gateway: Gateway, node_id: NodeId, describe: Describe) -> None:
        self._gateway = gateway
        self._node_id = node_id
        self._describe = describe
        self._started_s = time.monotonic()
        self._pages: dict[str, tuple[Callable[[Parameters], Awaitable[object]], tuple[str, ...]]] = {
            "/": (self._hint, ()),
            "/status": (self._status, ()),
            "/livez": (self._live, ()),
            "/readyz": (self._ready, ("verbose",)),
            "/cluster": (self._cluster, ()),
        }

    def action(self, method: str, path: str, query: str) -> ReadPage:
        """Return what a request for ``path`` asks for; raises ``HttpError``: 404, 405, or 400 for the query."""
        if len(path) > 2:
            path = path.removesuffix("/")
        if path == "/keys":
            raise HttpError(ErrorKind.NOT_FOUND, "keys cannot be listed yet; a key is at /keys/<key>/")
        if path not in self._pages:
            raise HttpError(ErrorKind.NOT_FOUND, "a key is at /keys/<key>/")
        if method not in ("GET", "HEAD"):
            raise HttpError(ErrorKind.METHOD_NOT_ALLOWED, method[:32], headers=(("Allow", ALLOWED),))
        page, known = self._pages[path]
        return ReadPage(page, parse_query(query, known))

    async def _hint(self, _: Parameters) -> object:
        return {
            "raftkv": raftkv.__version__,
            "id": self._node_id,
            "keys": "/keys/<key>/",
            "operations": [path for path in self._pages if path != "/"],
        }

    async def _live(self, _: Parameters) -> object:
        # The answer itself is the check: it shows that the event loop runs.
        return {"status": "ok"}

    async def _status(self, _: Parameters) -> object:
        status = await self._gateway.status()
        return {
            "id": status.id,
            # A bootstrapping node is reported as a follower; ``reason`` explains why.
            "role": "follower" if status.role == "bootstrap" else status.role,
            "term": status.term,
            "leader": status.leader,
            "leader_url": self._url(status.leader),
            "commit_index": status.commit_index,
            "last_applied": status.last_applied,
            "last_log_index": status.last_log_index,
            "durable_index": status.durable_index,
            "pid": os.getpid(),
            "version": raftkv.__version__,
            "uptime_s": round(time.monotonic() - self._started_s, 3),
            "cluster_id": status.cluster_id,
            "incarnation": status.incarnation,
            "voters": status.voters,
            "peers": [_peer(peer) for peer in status.peers],
            "reason": status.reason,
        }

    def _url(self, node_id: NodeId | None) -> str | None:
        """Return where clients reach a node, as far as that is known."""
        address = None if node_id is None else self._describe().get(node_id, Addresses()).http
        return None if address is None else f"http://{address}"

    async def _cluster(self, _: Parameters) -> object:
        status = await self._gateway.status()
        known = self._describe()
        raft = {peer.id: peer.address for peer in status.peers}
        ids = sorted({status.id, *status.voters, *raft, *known})
        unknown = Addresses()
        return {
            "cluster_id": status.cluster_id,
            "leader": status.leader,
            "term": status.term,
            "voters": status.voters,
            "members": [
                {
                    "id": member,
                    "raft": raft.get(member) or known.get(member, unknown).raft,
                    "http": known.get(member, unknown).http,
                    "voter": member in status.voters,
                }
                for member in ids
            ],
            "reason": status.reason,
        }

    async def _ready(self, parameters: Parameters) -> object:
        checks = [await self._check_leader(), await self._check_read()]
        shown: dict[str, object] = {"checks": checks} if "verbose" in parameters else {}
        failed = [f"{check['name']}: {check['detail']}" for check in checks if not check["ok"]]
        if failed:
            raise HttpError(ErrorKind.NOT_READY, "; ".join(failed), members=shown)
        return {"status": "ready", **shown}

    async def _check_leader(self) -> dict[str, object]:
        try:
            status: Status = await self._gateway.status(READY_TIMEOUT_S)
        except RequestFailed as error:
            return _check("leader", False, error.refused.detail)
        if status.leader is None:
            return _check("leader", False, status.reason or "no leader is known")
        return _check("leader", True, f"{status.leader} leads in term {status.term}")

    async def _check_read(self) -> dict[str, object]:
        try:
            result, _ = await self._gateway.read(Get("readyz"), "linearizable", READY_TIMEOUT_S)
        except RequestFailed as error:
            return _check("read", False, f"{error.refused.code}: {error.refused.detail}")
        return _check("read", True, f"a linearizable read was answered at revision {result.revision}")


def _check(name: str, ok: bool, detail: str) -> dict[str, object]:
    return {"name": name, "ok": ok, "detail": detail}


def _peer(peer: PeerStatus) -> dict[str, object]:
    return {
        "id": peer.id,
        "address": peer.address,
        "connected": peer.connected,
        "last_heard_ms": None if peer.last_heard_ms is None else round(peer.last_heard_ms, 3),
        "match_index": peer.match_index,
        "next_index": peer.next_index,
        "state": peer.state,
    }
