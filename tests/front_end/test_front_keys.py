"""``/keys/<key>/`` answers as the original did where that was right, and says what is wrong where it was not."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPRequest

from raftkv.actors.messages.node import RoleChanged
from raftkv.actors.messages.requests import (
    Applied,
    Propose,
    Read,
    Refused,
)
from raftkv.store.commands import Delete, DeleteDone, Get, Item, Put, PutDone
from tests.front_end.fronts import FakeNode, Front, Reply, with_front

JSON = "application/json; charset=utf-8"


def error(reply: Reply) -> dict[str, Any]:
    """Return the error in an answer, which must have the one shape of all errors."""
    assert reply.body.endswith(b"}\n")
    body = json.loads(reply.body)
    assert list(body) == ["error"]
    assert list(body["error"])[:3] == ["code", "message", "outcome"]
    assert reply.headers["content-type"] == JSON
    result: dict[str, Any] = body["error"]
    return result


def brief(reply: Reply) -> tuple[int, str, str]:
    """Return status, code and outcome of an error."""
    said = error(reply)
    return reply.status, said["code"], said["outcome"]


# --- Byte for byte.


def test_the_bytes_of_a_write_and_a_read() -> None:
    async def scenario(front: Front) -> tuple[bytes, bytes]:
        post = b'POST /keys/k/ HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: 14\r\n\r\n{"value":"v1"}'
        get = b"GET /keys/k/ HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
        return await front.exchange(post), await front.exchange(get)

    assert with_front(scenario) == (
        b"HTTP/1.1 200 OK\r\n"
        b"Content-Type: application/json; charset=utf-8\r\n"
        b'Etag: "1"\r\n'
        b"X-Raft-Revision: 1\r\n"
        b"X-Raft-Term: 7\r\n"
        b"X-Raft-Leader: n1\r\n"
        b"Content-Length: 15\r\n"
        b"X-Raft-Served-By: n1\r\n"
        b"Connection: close\r\n"
        b'\r\n{"value":"v1"}\n',
        b"HTTP/1.1 200 OK\r\n"
        b"Content-Type: application/json; charset=utf-8\r\n"
        b'Etag: "1"\r\n'
        b"X-Raft-Revision: 1\r\n"
        b"X-Raft-Term: 7\r\n"
        b"X-Raft-Level: linearizable\r\n"
        b"X-Raft-Leader: n1\r\n"
        b"Content-Length: 15\r\n"
        b"X-Raft-Served-By: n1\r\n"
        b"Connection: close\r\n"
        b'\r\n{"value":"v1"}\n',
    )


# --- The table in ORIGINAL.md, row by row.


def test_get_of_a_key_that_is_there() -> None:
    async def scenario(front: Front) -> Reply:
        front.node.apply((Put("other", b""), Put("k", b"v1")))
        return await front.request("GET", "/keys/k/")

    reply = with_front(scenario)

    assert (reply.status, reply.headers["content-type"], reply.body) == (200, JSON, b'{"value":"v1"}\n')
    assert {name: value for name, value in reply.headers.items() if name == "etag" or name.startswith("x-raft")} == {
        "etag": '"2"',
        "x-raft-revision": "2",
        "x-raft-term": "7",
        "x-raft-leader": "n1",
        "x-raft-served-by": "n1",
        "x-raft-level": "linearizable",
    }


def test_get_of_a_missing_key_is_an_empty_value_that_alone_has_no_etag() -> None:
    async def scenario(front: Front) -> list[Reply]:
        front.node.apply((Put("empty", b""),))
        return [await front.request("GET", f"/keys/{key}/") for key in ("missing", "empty")]

    missing, empty = with_front(scenario)

    assert (missing.status, missing.body, missing.headers.get("etag")) == (200, b'{"value":""}\n', None)
    assert (empty.status, empty.body, empty.headers.get("etag")) == (200, b'{"value":""}\n', '"1"')


def test_missing_404_asks_for_a_404() -> None:
    async def scenario(front: Front) -> list[Reply]:
        front.node.apply((Put("there", b"v"),))
        return [await front.request("GET", f"/keys/{key}/?missing=404") for key in ("missing", "there")]

    missing, there = with_front(scenario)

    assert brief(missing) == (404, "no_such_key", "not_done")
    assert missing.headers["x-raft-revision"] == "1"
    assert (there.status, there.body) == (200, b'{"value":"v"}\n')


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "application/json"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "text/plain; charset=latin-1"},
        {"Content-Encoding": "identity"},
    ],
)
def test_a_write_is_json_whatever_its_content_type_says(method: str, headers: dict[str, str]) -> None:
    async def scenario(front: Front) -> tuple[Reply, dict[str, Item]]:
        return await front.request(method, "/keys/k/", b'{"value":"v1"}', headers), front.node.keys

    reply, keys = with_front(scenario)

    assert (reply.status, reply.headers["content-type"], reply.body) == (200, JSON, b'{"value":"v1"}\n')
    assert (reply.headers["etag"], reply.headers["x-raft-revision"], reply.headers["x-raft-term"]) == ('"1"', "1", "7")
    assert keys == {"k": Item(b"v1", 1, 1, 1)}


def test_a_write_answers_only_once_it_is_applied() -> None:
    async def scenario(front: Front) -> tuple[bool, Reply]:
        applied = asyncio.get_running_loop().create_future()
        front.node.script.append(applied)
        connection = await front.connect()
        connection.send(b'POST /keys/k/ HTTP/1.1\r\nHost: t\r\nContent-Length: 14\r\n\r\n{"value":"v1"}')
        answer = asyncio.create_task(connection.reply())
        while not front.node.asked:
            await asyncio.sleep(0)
        early = answer.done()
        applied.set_result(None)
        return early, await answer

    early, reply = with_front(scenario)

    assert not early
    assert (reply.status, reply.body) == (200, b'{"value":"v1"}\n')


def test_a_write_without_a_leader_waits_and_is_then_a_503_that_says_why() -> None:
    async def scenario(front: Front) -> tuple[Reply, list[object]]:
        front.node.script.append(Refused("no_leader", "n1 hears from 1 of 3 voters"))
        reply = await front.request("POST", "/keys/k/?timeout=2", b'{"value":"v1"}')
        return reply, front.node.messages

    reply, messages = with_front(scenario, time_stands_still=True)

    assert brief(reply) == (503, "no_leader", "not_done")
    assert "n1 hears from 1 of 3 voters" in error(reply)["message"]
    assert reply.headers["retry-after"] == "1"
    assert messages == [Propose((Put("k", b"v1"),), 2000.0)]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"value":123}',
        b"{}",
        b"null",
        b'{"value":null}',
        b'{"value":"v1"}rubbish',
        b'{"VALUE":"v1"}',
    ],
)
def test_what_the_original_took_or_overwrote_the_key_for_is_a_400_and_changes_nothing(body: bytes) -> None:
    async def scenario(front: Front) -> tuple[Reply, list[object]]:
        return await front.request("POST", "/keys/k/", body), front.node.messages

    reply, messages = with_front(scenario)

    assert brief(reply) == (400, "bad_body", "not_done")
    assert messages == []


def test_a_post_without_any_body_is_a_400() -> None:
    async def scenario(front: Front) -> Reply:
        return await front.request("POST", "/keys/k/")

    assert brief(with_front(scenario)) == (400, "bad_body", "not_done")


def test_keys_are_answered_at_once_with_and_without_the_slash_at_the_end() -> None:
    async def scenario(front: Front) -> list[Reply]:
        return [
            await front.request("POST", "/keys/a", b'{"value":"v1"}'),
            await front.request("GET", "/keys/a/"),
            await front.request("PUT", "/keys/a/", b'{"value":"v2"}'),
            await front.request("GET", "/keys/a"),
        ]

    assert [(reply.status, reply.body) for reply in with_front(scenario)] == [
        (200, b'{"value":"v1"}\n'),
        (200, b'{"value":"v1"}\n'),
        (200, b'{"value":"v2"}\n'),
        (200, b'{"value":"v2"}\n'),
    ]


def test_delete_says_whether_there_was_a_key() -> None:
    async def scenario(front: Front) -> list[Reply]:
        front.node.apply((Put("k", b"v1"),))
        return [await front.request("DELETE", "/keys/k/") for _ in range(2)]

    first, second = with_front(scenario)

    assert (first.status, first.body, first.headers["x-raft-revision"]) == (200, b'{"deleted":true}\n', "2")
    assert (second.status, second.body, second.headers["x-raft-revision"]) == (200, b'{"deleted":false}\n', "2")
    assert "etag" not in first.headers


@pytest.mark.parametrize("target", ["/keys/there/", "/keys/missing/", "/keys/missing/?missing=404", "/keys/bytes/"])
def test_head_is_get_without_the_body(target: str) -> None:
    async def scenario(front: Front) -> list[Reply]:
        front.node.apply((Put("there", "é".encode()), Put("bytes", b"\xff")))
        return [await front.request(method, target) for method in ("GET", "HEAD")]

    get, head = with_front(scenario)

    assert (head.status, head.body) == (get.status, b"")
    assert {**head.headers, "date": ""} == {**get.headers, "date": ""}
    assert int(head.headers["content-length"]) == len(get.body)


def test_an_escaped_slash_belongs_to_the_key_and_a_plain_one_gets_a_hint() -> None:
    async def scenario(front: Front) -> tuple[list[Reply], list[str]]:
        replies = [
            await front.request("POST", "/keys/a%2Fb/", b'{"value":"v1"}'),
            await front.request("GET", "/keys/a%2fb"),
            await front.request("GET", "/keys/a/b/"),
        ]
        return replies, list(front.node.keys)

    (post, get, plain), keys = with_front(scenario)

    assert (post.status, get.body, keys) == (200, b'{"value":"v1"}\n', ["a/b"])
    assert brief(plain) == (404, "not_found", "not_done")
    assert "%2F" in error(plain)["message"]


@pytest.mark.parametrize(
    ("target", "wrong"),
    [("/keys/", "not_found"), ("/keys", "not_found"), ("/nothing", "not_found"), ("//keys/a", "not_found")],
)
def test_a_path_with_nothing_behind_it_is_a_404(target: str, wrong: str) -> None:
    async def scenario(front: Front) -> Reply:
        return await front.request("GET", target)

    assert brief(with_front(scenario)) == (404, wrong, "not_done")


def test_html_stands_as_it_is_in_json() -> None:
    async def scenario(front: Front) -> Reply:
        await front.request("POST", "/keys/k/", b'{"value":"\\u003cb\\u003e &\xc3\xa9"}')
        return await front.request("GET", "/keys/k/")

    assert with_front(scenario).body == '{"value":"<b> &é"}\n'.encode()


# --- Limits.


@pytest.mark.parametrize("content_type", ["application/json", "application/octet-stream"])
def test_a_value_up_to_the_limit_is_taken_and_one_byte_more_is_a_413_that_names_it(content_type: str) -> None:
    limit = 1 << 20

    def body(size: int) -> bytes:
        text = b"v" * size
        return text if content_type == "application/octet-stream" else b'{"value":"' + text + b'"}'

    async def scenario(front: Front) -> tuple[Reply, Reply, Reply]:
        headers = {"Content-Type": content_type}
        return (
            await front.request("PUT", "/keys/k/", body(limit), headers),
            await front.request("PUT", "/keys/k/", body(limit + 1), headers),
            await front.request("GET", "/keys/k/"),
        )

    taken, refused, kept = with_front(scenario)

    assert (taken.status, kept.body) == (200, body(limit) + b"\n" if content_type == "application/json" else taken.body)
    assert brief(refused) == (413, "value_too_large", "not_done")
    assert error(refused)["limit_bytes"] == limit


def test_a_key_up_to_the_limit_is_taken_and_one_byte_more_is_a_414_that_names_it() -> None:
    async def scenario(front: Front) -> list[Reply]:
        keys = ["k" * 4096, "k" * 4097, "%F0%9F%98%80" * 1024, "%F0%9F%98%80" * 1024 + "k"]
        return [await front.request("POST", f"/keys/{key}/", b'{"value":"v"}') for key in keys]

    replies = with_front(scenario)

    assert [reply.status for reply in replies] == [200, 414, 200, 414]
    assert error(replies[1])["limit_bytes"] == 4096


# --- Bytes that are no text.


def test_octets_are_stored_as_they_are() -> None:
    octets = {"Content-Type": "Application/Octet-Stream; x=y"}

    async def scenario(front: Front) -> list[Reply]:
        return [
            await front.request("PUT", "/keys/k/", b"\xff\0\r\n", octets),
            await front.request("GET", "/keys/k/", headers={"Accept": "application/octet-stream"}),
            await front.request("GET", "/keys/k/", headers={"Accept": "application/json, application/octet-stream"}),
            await front.request("GET", "/keys/k/"),
            await front.request("PUT", "/keys/k/", b'{"value":"v1"}', octets),
            await front.request("GET", "/keys/k/"),
            await front.request("GET", "/keys/k/", headers={"Accept": "application/json, application/octet-stream"}),
            await front.request("GET", "/keys/none/", headers={"Accept": "application/octet-stream"}),
        ]

    put, raw, either, as_json, put_text, text, either_text, missing = with_front(scenario)

    assert (put.status, put.body) == (200, b'{"bytes":4}\n')
    for reply in (raw, either):
        assert (reply.status, reply.body, reply.headers["etag"]) == (200, b"\xff\0\r\n", '"1"')
        assert reply.headers["content-type"] == "application/octet-stream"
        assert reply.headers["x-content-type-options"] == "nosniff"
    assert brief(as_json) == (406, "not_text", "not_done")
    assert "Accept: application/octet-stream" in error(as_json)["message"]
    assert as_json.headers["etag"] == '"1"'
    assert put_text.body == text.body == either_text.body == b'{"value":"{\\"value\\":\\"v1\\"}"}\n'
    assert (missing.status, missing.body, missing.headers.get("etag")) == (200, b"", None)


# --- Query parameters and headers.


@pytest.mark.parametrize(
    ("query", "level", "timeout_ms"),
    [
        ("", "linearizable", 5000.0),
        ("?", "linearizable", 5000.0),
        ("?level=linearizable", "linearizable", 5000.0),
        ("?level=stale", "stale", 5000.0),
        ("?level=stale&timeout=0.5&missing=404", "stale", 500.0),
        ("?timeout=60", "linearizable", 60000.0),
    ],
)
def test_a_read_says_how_fresh_and_for_how_long(query: str, level: Any, timeout_ms: float) -> None:
    async def scenario(front: Front) -> tuple[Reply, list[object]]:
        front.node.apply((Put("k", b"v"),))
        return await front.request("GET", f"/keys/k/{query}"), front.node.messages

    reply, messages = with_front(scenario, time_stands_still=True)

    assert (reply.status, reply.headers["x-raft-level"]) == (200, level)
    assert messages == [Read((Get("k"),), level, timeout_ms)]


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE"])
@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("timeout=0", "bad_parameter"),
        ("timeout=61", "bad_parameter"),
        ("timeout=nan", "bad_parameter"),
        ("timeout=", "bad_parameter"),
        ("ttl=5", "unknown_parameter"),
        ("timeout=1&timeout=1", "repeated_parameter"),
        ("%zz", "bad_escape"),
    ],
)
def test_a_parameter_that_is_wrong_is_a_400_and_nothing_is_asked(method: str, query: str, code: str) -> None:
    async def scenario(front: Front) -> tuple[Reply, list[object]]:
        return await front.request(method, f"/keys/k/?{query}", b""), front.node.messages

    reply, messages = with_front(scenario)

    assert (reply.status, messages) == (400, [])
    assert method == "HEAD" or brief(reply) == (400, code, "not_done")


@pytest.mark.parametrize("query", ["level=lease", "level=", "missing=200", "level=stale&level=stale"])
def test_a_read_takes_only_levels_there_are(query: str) -> None:
    async def scenario(front: Front) -> Reply:
        return await front.request("GET", f"/keys/k/?{query}")

    assert with_front(scenario).status == 400


@pytest.mark.parametrize("parameter", ["level=stale", "missing=404"])
def test_a_write_takes_no_parameters_of_reads(parameter: str) -> None:
    async def scenario(front: Front) -> Reply:
        return await front.request("PUT", f"/keys/k/?{parameter}", b'{"value":"v"}')

    reply = with_front(scenario)

    assert brief(reply) == (400, "unknown_parameter", "not_done")
    assert parameter.partition("=")[0] in error(reply)["message"]


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
def test_a_promise_that_can_t_be_kept_yet_is_refused(method: str) -> None:
    async def scenario(front: Front) -> tuple[Reply, list[object]]:
        return await front.request(method, "/keys/k/", b'{"value":"v"}', {"Idempotency-Key": "x"}), front.node.messages

    reply, messages = with_front(scenario)

    assert brief(reply) == (400, "not_supported", "not_done")
    assert "Idempotency-Key" in error(reply)["message"]
    assert messages == []


# --- Conditions.


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
@pytest.mark.parametrize("header", ['If-Match: "1"', "If-Match: *", 'if-match:  "1" '])
def test_a_write_on_a_condition_that_holds_is_done(method: str, header: str) -> None:
    async def scenario(front: Front) -> tuple[Reply, dict[str, Item]]:
        front.node.apply((Put("k", b"old"), Put("other", b"")))
        name, _, value = header.partition(":")
        return await front.request(method, "/keys/k/", b'{"value":"new"}', {name: value}), front.node.keys

    reply, keys = with_front(scenario)

    assert (reply.status, reply.headers["x-raft-revision"]) == (200, "3")
    if method == "DELETE":
        assert (reply.body, reply.headers.get("etag"), keys.get("k")) == (b'{"deleted":true}\n', None, None)
    else:
        assert (reply.body, reply.headers["etag"]) == (b'{"value":"new"}\n', '"3"')
        assert keys["k"] == Item(b"new", 1, 3, 2)


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
@pytest.mark.parametrize("revision", [1, 3, 2**63 - 1])
def test_a_write_to_a_key_that_has_changed_is_a_412_with_the_etag_of_what_is_there(method: str, revision: int) -> None:
    async def scenario(front: Front) -> tuple[Reply, dict[str, Item]]:
        front.node.apply((Put("k", b"old"), Put("k", b"newer"), Put("other", b"")))
        headers = {"If-Match": f'"{revision}"'}
        return await front.request(method, "/keys/k/", b'{"value":"new"}', headers), front.node.keys

    reply, keys = with_front(scenario)

    assert brief(reply) == (412, "unmatched", "not_done")
    assert error(reply)["current_revision"] == 2
    assert str(revision) in error(reply)["message"]
    assert (reply.headers["etag"], reply.headers["x-raft-revision"]) == ('"2"', "3")
    assert keys["k"] == Item(b"newer", 1, 2, 2)


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE"])
@pytest.mark.parametrize("value", ['"1"', "*"])
def test_a_write_to_a_key_that_is_gone_is_a_412_without_an_etag(method: str, value: str) -> None:
    async def scenario(front: Front) -> tuple[Reply, list[str]]:
        front.node.apply((Put("k", b"old"), Delete("k")))
        return await front.request(method, "/keys/k/", b'{"value":"new"}', {"If-Match": value}), list(front.node.keys)

    reply, keys = with_front(scenario)

    assert brief(reply) == (412, "unmatched", "not_done")
    assert (error(reply)["current_revision"], reply.headers.get("etag")) == (None, None)
    assert keys == []


@pytest.mark.parametrize("method", ["PUT", "POST"])
def test_if_none_match_makes_a_key_and_never_overwrites_one(method: str) -> None:
    async def scenario(front: Front) -> tuple[list[Reply], dict[str, Item]]:
        headers = {"If-None-Match": "*"}
        replies = [
            await front.request(method, "/keys/k/", body, headers) for body in (b'{"value":"1"}', b'{"value":"2"}')
        ]
        return replies, front.node.keys

    (made, kept), keys = with_front(scenario)

    assert (made.status, made.headers["etag"]) == (200, '"1"')
    assert brief(kept) == (412, "unmatched", "not_done")
    assert kept.headers["etag"] == '"1"'
    assert keys == {"k": Item(b"1", 1, 1, 1)}


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
@pytest.mark.parametrize(
    "headers",
    [
        {"If-Match": value}
        for value in [
            "",
            "1",
            "'1'",
            'W/"1"',
            '"0"',
            '"-1"',
            '"01"',
            '"1',
            '"x"',
            '"1", "2"',
            "**",
            f'"{2**63}"',
            '"٣"',
            '"1" x',
        ]
    ]
    + [{"If-None-Match": value} for value in ["", '"1"', 'W/"1"', "x"]]
    + [{"If-Match": "*", "If-None-Match": "*"}],
    ids=str,
)
def test_a_condition_that_is_none_is_a_400_and_nothing_is_asked(method: str, headers: dict[str, str]) -> None:
    async def scenario(front: Front) -> tuple[Reply, list[object]]:
        return await front.request(method, "/keys/k/", b'{"value":"v"}', headers), front.node.messages

    reply, messages = with_front(scenario)

    assert brief(reply) == (400, "bad_condition", "not_done")
    assert messages == []


def test_a_deletion_of_what_must_not_be_there_is_a_400() -> None:
    async def scenario(front: Front) -> tuple[Reply, list[object]]:
        return await front.request("DELETE", "/keys/k/", b"", {"If-None-Match": "*"}), front.node.messages

    reply, messages = with_front(scenario)

    assert brief(reply) == (400, "bad_condition", "not_done")
    assert messages == []


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip"])
def test_an_encoded_body_is_a_415(encoding: str) -> None:
    async def scenario(front: Front) -> tuple[Reply, list[object]]:
        headers = {"Content-Encoding": encoding}
        return await front.request("PUT", "/keys/k/", b'{"value":"v"}', headers), front.node.messages

    reply, messages = with_front(scenario)

    assert brief(reply) == (415, "content_encoding", "not_done")
    assert messages == []


@pytest.mark.parametrize("method", ["OPTIONS", "PATCH", "TRACE", "get", "BREW", "X" * 1000])
def test_another_method_is_a_405_that_names_those_there_are(method: str) -> None:
    async def scenario(front: Front) -> Reply:
        return await front.request(method, "/keys/k/", b'{"value":"v"}')

    reply = with_front(scenario)

    assert brief(reply) == (405, "method_not_allowed", "not_done")
    assert reply.headers["allow"] == "GET, HEAD, POST, PUT, DELETE"
    assert len(error(reply)["message"]) < 200


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_a_body_that_nobody_asked_for_is_skipped_up_to_64_kib(method: str) -> None:
    async def scenario(front: Front) -> list[int]:
        return [
            (await front.request(method, "/keys/k/", bytes(size))).status for size in (0, 1, 64 << 10, (64 << 10) + 1)
        ]

    assert with_front(scenario) == [200, 200, 200, 413]


# --- Refusals of the node.

TABLE = [
    ("no_leader", 503, "no_leader", "not_done", "1"),
    ("overloaded", 429, "overloaded", "not_done", "1"),
    ("no_room", 507, "no_room", "not_done", None),
    ("stopping", 503, "stopping", "not_done", "1"),
    ("invalid", 400, "invalid", "not_done", None),
]


@pytest.mark.parametrize(("method", "body"), [("PUT", b'{"value":"v"}'), ("DELETE", None), ("GET", None)])
@pytest.mark.parametrize(("refused", "status", "code", "outcome", "retry_after"), TABLE)
def test_every_refusal_has_its_status(
    method: str, body: bytes | None, refused: Any, status: int, code: str, outcome: str, retry_after: str | None
) -> None:
    async def scenario(front: Front) -> Reply:
        front.node.script.append(Refused(refused, "the reason why"))
        return await front.request(method, "/keys/k/", body)

    reply = with_front(scenario)

    assert brief(reply) == (status, code, outcome)
    assert reply.headers.get("retry-after") == retry_after
    assert error(reply)["message"].endswith(": the reason why")


@pytest.mark.parametrize("refused", ["not_leader", "not_committed", "retry"])
@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_what_was_tried_again_in_vain_was_not_done(method: str, refused: Any) -> None:
    async def scenario(front: Front) -> Reply:
        front.node.script.extend(Refused(refused) for _ in range(1000))
        return await front.request(method, "/keys/k/?timeout=0.05", b'{"value":"v"}')

    reply = with_front(scenario)

    assert brief(reply) == (503, refused, "not_done")
    assert reply.headers["retry-after"] == "1"


@pytest.mark.parametrize(("method", "body"), [("PUT", b'{"value":"v"}'), ("POST", b'{"value":"v"}'), ("DELETE", None)])
@pytest.mark.parametrize("scripted", [Refused("unknown", "the leader is gone"), None, "nonsense"])
def test_a_change_whose_outcome_is_unknown_is_a_504(method: str, body: bytes | None, scripted: object) -> None:
    async def scenario(front: Front) -> Reply:
        front.node.script.append(scripted)
        return await front.request(method, "/keys/k/", body)

    reply = with_front(scenario)

    assert brief(reply) == (504, "unknown", "unknown")
    assert "retry-after" not in reply.headers


def test_a_read_that_nobody_answered_in_time_is_a_503_since_it_changed_nothing() -> None:
    async def scenario(front: Front) -> Reply:
        front.node.script.append(None)
        return await front.request("GET", "/keys/k/")

    reply = with_front(scenario)

    assert brief(reply) == (503, "no_answer", "not_done")
    assert reply.headers["retry-after"] == "1"


def test_a_result_of_the_wrong_kind_is_our_bug_and_shows_nothing_of_the_inside() -> None:
    async def scenario(front: Front) -> list[Reply]:
        replies = []
        for method, body in (("DELETE", None), ("PUT", b'{"value":"v"}')):
            wrong = PutDone(1) if method == "DELETE" else DeleteDone(1, True)
            front.node.script.append(Applied(1, 1, 1, (wrong,)))
            replies.append(await front.request(method, "/keys/k/", body))
        return replies

    for reply in with_front(scenario):
        assert brief(reply) == (500, "internal", "unknown")
        assert b"PutDone" not in reply.body
        assert b"Traceback" not in reply.body


def test_the_answer_to_a_write_names_the_leader_as_this_node_last_heard() -> None:
    async def scenario(front: Front) -> list[str | None]:
        leaders = []
        for leader in ("n1", "n2", None, 'ü"\r\nX: y'):
            front.gateway.on_role_changed(RoleChanged("n1", "follower", 8, leader, ""))
            reply = await front.request("GET", "/keys/k/")
            leaders.append(reply.headers.get("x-raft-leader"))
            assert reply.headers["x-raft-term"] == "8"
        return leaders

    assert with_front(scenario) == ["n1", "n2", None, "%C3%BC%22%0D%0AX:%20y"]


# --- Many requests at once.


def test_requests_that_arrive_together_are_asked_for_together() -> None:
    async def scenario(front: Front) -> tuple[list[Reply], FakeNode]:
        connections = [await front.connect() for _ in range(20)]
        await (await front.connect()).close()
        put = b'PUT /keys/%d/ HTTP/1.1\r\nHost: t\r\nContent-Length: 13\r\n\r\n{"value":"v"}'
        for number, connection in enumerate(connections):
            connection.send(put % number)
        return await asyncio.gather(*(connection.reply() for connection in connections)), front.node

    replies, node = with_front(scenario)

    assert sorted(int(reply.headers["x-raft-revision"]) for reply in replies) == list(range(1, 21))
    proposed = [message.commands for message in node.messages if isinstance(message, Propose)]
    assert sorted(command.key for commands in proposed for command in commands) == sorted(map(str, range(20)))
    # All were written before the loop looked at its sockets again; how many it then finds ready is the kernel's affair.
    assert len(proposed) < 10


def test_pipelined_requests_are_answered_one_after_the_other() -> None:
    async def scenario(front: Front) -> bytes:
        put = b'PUT /keys/k/ HTTP/1.1\r\nHost: t\r\nContent-Length: 14\r\n\r\n{"value":"v%d"}'
        get = b"GET /keys/k/ HTTP/1.1\r\nHost: t\r\n\r\n"
        last = b"GET /keys/k/ HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
        return await front.exchange(put % 1 + get + put % 2 + last)

    received = with_front(scenario)

    assert [part.partition(b"\r\n\r\n")[2][:14] for part in received.split(b"HTTP/1.1 200 OK")[1:]] == [
        b'{"value":"v1"}',
        b'{"value":"v1"}',
        b'{"value":"v2"}',
        b'{"value":"v2"}',
    ]


def test_a_client_that_goes_away_disturbs_nobody() -> None:
    async def scenario(front: Front) -> tuple[Reply, list[str]]:
        applied = asyncio.get_running_loop().create_future()
        front.node.script.append(applied)
        gone, stays = await front.connect(), await front.connect()
        for name, connection in ((b"gone", gone), (b"stays", stays)):
            connection.send(b'PUT /keys/%s/ HTTP/1.1\r\nHost: t\r\nContent-Length: 13\r\n\r\n{"value":"v"}' % name)
        while sum(len(message.commands) for message in front.node.messages if isinstance(message, Propose)) < 2:
            await asyncio.sleep(0)
        await gone.close()
        applied.set_result(None)
        return await stays.reply(), list(front.node.keys)

    reply, keys = with_front(scenario)

    assert (reply.status, reply.body) == (200, b'{"value":"v"}\n')
    assert sorted(keys) == ["gone", "stays"]


def test_tornado_s_own_client_gets_along_with_it() -> None:
    async def scenario(front: Front) -> list[tuple[int, bytes]]:
        client = AsyncHTTPClient(force_instance=True)
        url = f"http://127.0.0.1:{front.server.port}/keys/%C3%A9%2F/"
        requests = [
            HTTPRequest(url, "PUT", body='{"value":"1"}'),
            HTTPRequest(url, "GET"),
            HTTPRequest(url, "DELETE"),
            HTTPRequest(url + "?missing=404", "GET"),
        ]
        replies = [await client.fetch(request, raise_error=False) for request in requests]
        client.close()
        return [(reply.code, reply.body[:15]) for reply in replies]

    assert with_front(scenario) == [
        (200, b'{"value":"1"}\n'),
        (200, b'{"value":"1"}\n'),
        (200, b'{"deleted":true'),
        (404, b'{"error":{"code'),
    ]
