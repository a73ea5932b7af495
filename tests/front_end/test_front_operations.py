"""What operators ask is answered with what the node knows of itself, and why it can't serve if it can't."""

from __future__ import annotations

import json
import os
from typing import Any

import msgspec
import pytest

import raftkv
from raftkv.actors.messages.requests import Read, Refused
from raftkv.http.operations import Addresses
from raftkv.store.commands import Get
from tests.front_end.fronts import STATUS, Front, Reply, serving, with_front

PAGES = ["/", "/status", "/livez", "/readyz", "/cluster"]


def body(reply: Reply) -> Any:
    assert reply.headers["content-type"] == "application/json; charset=utf-8"
    assert reply.body.endswith(b"}\n")
    return json.loads(reply.body)


def test_status_is_what_the_node_knows_and_which_process_it_is() -> None:
    async def scenario(front: Front) -> Reply:
        return await front.request("GET", "/status")

    reply = with_front(scenario)

    shown = body(reply)
    assert reply.status == 200
    assert 0 <= shown.pop("uptime_s") < 60
    assert shown == {
        "id": "n1",
        "role": "leader",
        "term": 7,
        "leader": "n1",
        "leader_url": None,
        "commit_index": 12,
        "last_applied": 11,
        "last_log_index": 13,
        "durable_index": 12,
        "pid": os.getpid(),
        "version": raftkv.__version__,
        "cluster_id": "c0ffee",
        "incarnation": "i1",
        "voters": ["n1", "n2", "n3"],
        "peers": [
            {
                "id": "n2",
                "address": "10.0.0.2:5001",
                "connected": True,
                "last_heard_ms": 12.5,
                "match_index": 12,
                "next_index": 13,
                "state": "replicate",
            },
            {
                "id": "n3",
                "address": "10.0.0.3:5001",
                "connected": False,
                "last_heard_ms": None,
                "match_index": None,
                "next_index": None,
                "state": None,
            },
        ],
        "reason": None,
    }


@pytest.mark.parametrize(
    ("leader", "url"), [("n1", "http://10.0.0.1:4001"), ("n2", "http://[::1]:4001"), ("n3", None), ("n4", None)]
)
def test_status_has_the_url_of_the_leader_if_the_leader_has_advertised_it(leader: str, url: str | None) -> None:
    """That of this node too; n3 has not advertised its address yet, and n4 is not known at all."""

    def describe() -> dict[str, Addresses]:
        return {
            "n1": Addresses("10.0.0.1:5001", "10.0.0.1:4001"),
            "n2": Addresses("[::1]:5001", "[::1]:4001"),
            "n3": Addresses("10.0.0.3:5001", None),
        }

    async def scenario(front: Front) -> Reply:
        front.node.status = msgspec.structs.replace(STATUS, leader=leader)
        return await front.request("GET", "/status")

    shown = body(with_front(scenario, describe=describe))

    assert (shown["leader"], shown["leader_url"]) == (leader, url)


def test_status_of_a_follower_leads_to_the_status_of_the_leader() -> None:
    """There is what only the leader itself knows, such as its process id."""

    async def scenario(front: Front) -> tuple[str, str]:
        async with serving(node_id="n2", describe=lambda: addresses) as follower:
            follower.node.status = msgspec.structs.replace(STATUS, id="n2", role="follower")
            addresses["n1"] = Addresses(None, f"127.0.0.1:{front.server.port}")
            found = body(await follower.request("GET", "/status"))
            assert found["leader_url"] == f"http://127.0.0.1:{front.server.port}"
            return found["id"], body(await front.request("GET", "/status"))["id"]

    addresses: dict[str, Addresses] = {}

    assert with_front(scenario) == ("n2", "n1")


@pytest.mark.parametrize(
    ("role", "shown"), [("bootstrap", "follower"), ("follower", "follower"), ("candidate", "candidate")]
)
def test_status_says_why_there_is_no_leader_and_knows_three_roles(role: str, shown: str) -> None:
    async def scenario(front: Front) -> Reply:
        front.node.status = msgspec.structs.replace(STATUS, role=role, leader=None, reason="n1 waits for n3")
        return await front.request("GET", "/status/")

    page = body(with_front(scenario))

    assert (page["role"], page["leader"], page["leader_url"], page["reason"]) == (shown, None, None, "n1 waits for n3")


def test_cluster_lists_everyone_who_is_known_in_order() -> None:
    def describe() -> dict[str, Addresses]:
        return {
            "n1": Addresses("10.0.0.1:5001", "10.0.0.1:4001"),
            "n2": Addresses("elsewhere:1", "10.0.0.2:4001"),
            "n4": Addresses(None, "10.0.0.4:4001"),
        }

    async def scenario(front: Front) -> Reply:
        return await front.request("GET", "/cluster")

    assert body(with_front(scenario, describe=describe)) == {
        "cluster_id": "c0ffee",
        "leader": "n1",
        "term": 7,
        "voters": ["n1", "n2", "n3"],
        "members": [
            {"id": "n1", "raft": "10.0.0.1:5001", "http": "10.0.0.1:4001", "voter": True},
            {"id": "n2", "raft": "10.0.0.2:5001", "http": "10.0.0.2:4001", "voter": True},
            {"id": "n3", "raft": "10.0.0.3:5001", "http": None, "voter": True},
            {"id": "n4", "raft": None, "http": "10.0.0.4:4001", "voter": False},
        ],
        "reason": None,
    }


def test_livez_asks_nobody() -> None:
    async def scenario(front: Front) -> tuple[Reply, list[object]]:
        return await front.request("GET", "/livez"), front.node.messages

    reply, messages = with_front(scenario)

    assert (reply.status, body(reply), messages) == (200, {"status": "ok"}, [])


def test_readyz_takes_a_leader_and_a_linearizable_read() -> None:
    async def scenario(front: Front) -> tuple[list[Reply], list[object]]:
        return [await front.request("GET", f"/readyz{query}") for query in ("", "?verbose")], front.node.messages

    (brief, verbose), messages = with_front(scenario, time_stands_still=True)

    assert (brief.status, body(brief)) == (200, {"status": "ready"})
    assert body(verbose) == {
        "status": "ready",
        "checks": [
            {"name": "leader", "ok": True, "detail": "n1 leads in term 7"},
            {"name": "read", "ok": True, "detail": "a linearizable read was answered at revision 0"},
        ],
    }
    assert [message for message in messages if isinstance(message, Read)] == [
        Read((Get("readyz"),), "linearizable", 1000.0)
    ] * 2


def test_readyz_without_a_leader_says_why() -> None:
    async def scenario(front: Front) -> Reply:
        front.node.status = msgspec.structs.replace(STATUS, leader=None, reason="n1 hears from nobody")
        front.node.script.append(Refused("no_leader", "an election is under way"))
        return await front.request("GET", "/readyz?verbose")

    reply = with_front(scenario)

    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert body(reply) == {
        "error": {
            "code": "not_ready",
            "message": (
                "this node is not ready: leader: n1 hears from nobody; read: no_leader: an election is under way"
            ),
            "outcome": "not_done",
            "checks": [
                {"name": "leader", "ok": False, "detail": "n1 hears from nobody"},
                {"name": "read", "ok": False, "detail": "no_leader: an election is under way"},
            ],
        }
    }


def test_readyz_of_a_node_that_hangs_is_a_503() -> None:
    async def scenario(front: Front) -> Reply:
        front.node.status = None
        front.node.script.append(None)
        return await front.request("GET", "/readyz")

    reply = with_front(scenario)

    assert reply.status == 503
    assert body(reply)["error"]["message"] == (
        "this node is not ready: leader: the node did not answer; read: unknown: no answer in time"
    )


@pytest.mark.parametrize("page", ["/status", "/cluster"])
def test_a_node_that_hangs_has_no_status(page: str) -> None:
    async def scenario(front: Front) -> list[Reply]:
        front.node.status = None
        replies = [await front.request("GET", page)]
        front.node.status = Refused("stopping", "bye")
        return [*replies, await front.request("GET", page)]

    replies = with_front(scenario)

    assert [(reply.status, body(reply)["error"]["code"]) for reply in replies] == [
        (503, "no_answer"),
        (503, "stopping"),
    ]


def test_the_first_page_says_where_to_go() -> None:
    async def scenario(front: Front) -> Reply:
        return await front.request("GET", "/")

    assert body(with_front(scenario)) == {
        "raftkv": raftkv.__version__,
        "id": "n1",
        "keys": "/keys/<key>/",
        "operations": ["/status", "/livez", "/readyz", "/cluster"],
    }


@pytest.mark.parametrize("page", PAGES)
def test_pages_are_for_reading(page: str) -> None:
    async def scenario(front: Front) -> list[Reply]:
        return [await front.request(method, page) for method in ("GET", "HEAD", "POST", "DELETE")]

    get, head, post, delete = with_front(scenario)

    assert (get.status, head.status, head.body) == (200, 200, b"")
    assert page == "/status" or head.headers["content-length"] == get.headers["content-length"]
    for reply in (post, delete):
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("target", [f"{page}?x=1" for page in PAGES] + ["/readyz?verbose&verbose", "/status?verbose"])
def test_pages_take_no_other_parameters(target: str) -> None:
    async def scenario(front: Front) -> Reply:
        return await front.request("GET", target)

    assert with_front(scenario).status == 400


def test_a_bug_in_a_page_is_a_500_that_changed_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def describe() -> dict[str, Addresses]:
        raise ZeroDivisionError("the inside")

    async def scenario(front: Front) -> Reply:
        return await front.request("GET", "/cluster")

    reply = with_front(scenario, describe=describe)

    assert (reply.status, body(reply)["error"]["outcome"]) == (500, "not_done")
    assert b"inside" not in reply.body
    assert "the inside" in caplog.text
