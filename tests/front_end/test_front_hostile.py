"""What no client should send: never a 500, never a change, never a word left over, and the next client is served."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.config.settings import Limits
from raftkv.store.commands import Item, Put
from tests.front_end.fronts import Front, serving, with_front
from tests.front_end.test_front_bodies import BAD_BODIES

HOST = b"Host: t\r\n"
VALUE = b'{"value":"evil"}'
LIMITS = Limits(key_bytes=64, value_bytes=1024, header_bytes=4096)


def put(head: bytes = b"", body: bytes = VALUE, *, target: bytes = b"/keys/k/", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return b"PUT %s HTTP/1.1\r\n%s%sContent-Length: %d\r\n\r\n%s" % (target, HOST, head, size, body)


def chunked(*lines: bytes, head: bytes = b"") -> bytes:
    return b"PUT /keys/k/ HTTP/1.1\r\n" + HOST + head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(lines)


def get(target: bytes, head: bytes = b"") -> bytes:
    return b"GET " + target + b" HTTP/1.1\r\n" + HOST + head + b"\r\n"


MALFORMED: list[tuple[str, bytes]] = [
    ("no request at all", b"\r\n\r\n\r\n"),
    ("rubbish", b"\x00\x01\x02\xff\xfe\r\n\r\n"),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("HTTP/0.9", b"GET /keys/k/\r\n\r\n"),
    ("HTTP/3.0", b"GET /keys/k/ HTTP/3.0\r\n" + HOST + b"\r\n"),
    ("HTTP version in lower case", b"GET /keys/k/ http/1.1\r\n" + HOST + b"\r\n"),
    ("another protocol", b"GET /keys/k/ ICY/1.1\r\n" + HOST + b"\r\n"),
    ("no target", b"GET  HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("a space in the target", b"GET /keys/a b/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("a tab in the target", b"GET /keys/a\tb/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("a NUL in the target", b"GET /keys/a\0b/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("a method with a colon", b"GE:T /keys/k/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("a space before the method", b" GET /keys/k/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    ("no Host", b"GET /keys/k/ HTTP/1.1\r\n\r\n"),
    ("two Hosts", b"GET /keys/k/ HTTP/1.1\r\n" + HOST + b"Host: u\r\n\r\n"),
    ("a header without a colon", b"GET /keys/k/ HTTP/1.1\r\n" + HOST + b"Nonsense\r\n\r\n"),
    ("a header without a name", b"GET /keys/k/ HTTP/1.1\r\n" + HOST + b": x\r\n\r\n"),
    ("a space before the colon", put(b"Content-Length : 3\r\n")),
    ("a folded header", get(b"/keys/k/", b"X: a\r\n b\r\n")),
    ("a header that begins with a space", b"GET /keys/k/ HTTP/1.1\r\n X: a\r\n" + HOST + b"\r\n"),
    ("a NUL in a header", get(b"/keys/k/", b"X: a\0b\r\n")),
    ("a lone CR in a header", get(b"/keys/k/", b"X: a\rb\r\n")),
    ("a control character in a header's name", get(b"/keys/k/", b"X\x01: a\r\n")),
    ("non-ASCII in a header's name", get(b"/keys/k/", b"X\xe9: a\r\n")),
    ("length and chunks", put(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n")),
    ("chunks and length", chunked(b"0\r\n\r\n", head=b"Content-Length: 5\r\n")),
    ("the same length twice", put(b"Content-Length: 16\r\n")),
    ("two lengths", put(b"Content-Length: 3\r\n")),
    ("a list of lengths", b"PUT /keys/k/ HTTP/1.1\r\n" + HOST + b"Content-Length: 16, 16\r\n\r\n" + VALUE),
    ("a length below zero", put(length=-1)),
    ("a length with a sign", b"PUT /keys/k/ HTTP/1.1\r\n" + HOST + b"Content-Length: +16\r\n\r\n" + VALUE),
    ("a length in hexadecimal", b"PUT /keys/k/ HTTP/1.1\r\n" + HOST + b"Content-Length: 0x10\r\n\r\n" + VALUE),
    ("a length with an underscore", b"PUT /keys/k/ HTTP/1.1\r\n" + HOST + b"Content-Length: 1_6\r\n\r\n" + VALUE),
    ("a length in superscript", b"PUT /keys/k/ HTTP/1.1\r\n" + HOST + b"Content-Length: \xb2\r\n\r\n" + VALUE),
    ("an empty length", b"PUT /keys/k/ HTTP/1.1\r\n" + HOST + b"Content-Length:\r\n\r\n" + VALUE),
    ("a length of 4,000 digits", b"PUT /keys/k/ HTTP/1.1\r\n" + HOST + b"Content-Length: " + b"9" * 4000 + b"\r\n\r\n"),
    ("an unknown coding", put(b"").replace(b"Content-Length: 16", b"Transfer-Encoding: gzip")),
    ("a coding before chunked", put(b"").replace(b"Content-Length: 16", b"Transfer-Encoding: gzip, chunked")),
    ("chunked with a suffix", put(b"").replace(b"Content-Length: 16", b"Transfer-Encoding: chunked-ish")),
    ("chunked twice", chunked(b"0\r\n\r\n", head=b"Transfer-Encoding: chunked\r\n")),
    ("chunks in HTTP/1.0", chunked(b"10\r\n", VALUE, b"\r\n0\r\n\r\n").replace(b"HTTP/1.1", b"HTTP/1.0")),
    ("a chunk of no size", chunked(b"\r\n", VALUE)),
    ("a chunk size that is no number", chunked(b"zz\r\n", VALUE)),
    ("a chunk size below zero", chunked(b"-10\r\n", VALUE)),
    ("a chunk size with 0x", chunked(b"0x10\r\n", VALUE)),
    ("a chunk size with a space", chunked(b"10 \r\n", VALUE)),
    ("a chunk size with an extension", chunked(b"10;a=b\r\n", VALUE)),
    ("a chunk size without an end", chunked(b"1" * 100)),
    ("a chunk size that ends in LF", chunked(b"10\n", VALUE, b"\n0\n\n" + b"x" * 100)),
    ("a chunk that is longer than it says", chunked(b"3\r\n", VALUE, b"\r\n0\r\n\r\n")),
    ("a chunk without an end", chunked(b"10\r\n", VALUE, b"xx0\r\n\r\n")),
    ("a trailer", chunked(b"10\r\n", VALUE, b"\r\n0\r\nX: y\r\n\r\n")),
]

REFUSED: list[tuple[int, bytes]] = [
    (404, get(b"/keys/a/b/")),
    (404, get(b"/keys/../../etc/passwd")),
    (404, get(b"//")),
    (404, get(b"/KEYS/k/")),
    (404, get(b"/%6beys/k/")),
    (404, get(b"/status/status")),
    (404, get(b"/" + b"a/" * 500)),
    (400, get(b"/keys//")),
    (400, get(b"/keys/%")),
    (400, get(b"/keys/%4")),
    (400, get(b"/keys/%zz/")),
    (400, get(b"/keys/%ff/")),
    (400, get(b"/keys/%ed%a0%80/")),
    (400, get(b"/keys/\xff/")),
    (400, get(b"/keys/k/#x")),
    (400, get(b"keys/k/")),
    (400, get(b"*")),
    (400, get(b"ftp://t/keys/k/")),
    (400, get(b"/keys/k/?x")),
    (400, get(b"/keys/k/?=")),
    (400, get(b"/keys/k/?" + b"&" * 2000)),
    (400, get(b"/keys/k/?%ff=%ff")),
    (400, get(b"/keys/k/?timeout=1e400")),
    (400, get(b"/keys/k/?timeout=" + b"9" * 2000)),
    (400, get(b"/status?x=1")),
    (405, b"PUT /status HTTP/1.1\r\n" + HOST + b"\r\n"),
    (405, b"CONNECT /keys/k/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    (414, get(b"/keys/" + b"k" * 65)),
    (414, get(b"/keys/" + b"%6b" * 65)),
    (414, get(b"/keys/" + b"k" * 5000 + b"/")),
    (414, put(target=b"/keys/" + b"k" * 3000)),
    (431, get(b"/keys/k/", b"X: " + b"y" * 5000 + b"\r\n")),
    (431, get(b"/keys/k/", b"X: y\r\n" * 1000)),
    (413, put(body=b'{"value":"' + b"v" * 1025 + b'"}')),
    (413, put(body=b'{"value":"' + b"v" * 10_000 + b'"}')),
    (413, put(b"Content-Type: application/octet-stream\r\n", b"v" * 1025)),
    (413, put(length=10**17)),
    (413, put(b"Expect: 100-continue\r\n", b"", length=10**9)),
    (413, put(b"Content-Type: application/octet-stream\r\n", b"", length=1025)),
    (413, chunked(b"2000\r\n", b"v" * 0x2000, b"\r\n0\r\n\r\n")),
    (413, chunked(b"fffffffff\r\n", b"v" * 10_000)),
    (413, chunked(*[b"1\r\nv\r\n"] * 8000)),
    (413, b"DELETE /keys/k/ HTTP/1.1\r\n" + HOST + b"Content-Length: 65537\r\n\r\n"),
    (400, chunked(b"0\r\n\r\n")),
    (400, chunked(b"1\r\n{\r\n0\r\n\r\n")),
    (400, b"PUT /keys/k/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    (400, b"PUT /keys/k/ HTTP/1.0\r\n\r\n"),
    (415, put(b"Content-Encoding: gzip\r\n", b"\x1f\x8b")),
    (415, put(b"Content-Encoding: deflate, gzip\r\n")),
    *((400, put(body=body)) for body, _ in BAD_BODIES if len(body) <= 1024),
]


async def still_serves(front: Front) -> None:
    """Check that the next client is served, and that the key is what it was."""
    reply = await front.request("GET", "/keys/k/")
    assert (reply.status, reply.body) == (200, b'{"value":"good"}\n')
    assert front.node.keys == {"k": Item(b"good", 1, 1, 1)}


async def say(front: Front, data: bytes) -> bytes:
    """Send ``data`` and return the answer: all of it up to the end if that comes, which is hurried along."""
    connection = await front.connect()
    connection.send(data)
    connection.writer.write_eof()
    received = await connection.rest()
    await connection.close()
    return received


def the_one_answer(received: bytes) -> tuple[int, str]:
    """Return status and outcome of an answer, of which there must be exactly one, in the shape of all errors."""
    match = re.fullmatch(rb"HTTP/1\.1 (\d+) [ A-Za-z]+\r\n(.+?)\r\n\r\n(.*)", received, re.DOTALL)
    assert match is not None, f"no answer: {received[:200]!r}"
    assert match[3].endswith(b"}\n")
    body = json.loads(match[3])
    assert list(body) == ["error"]
    assert list(body["error"])[:3] == ["code", "message", "outcome"]
    assert b"Content-Length: %d" % len(match[3]) in match[2]
    assert b"Traceback" not in received
    return int(match[1]), body["error"]["outcome"]


@pytest.mark.parametrize("data", [data for _, data in MALFORMED], ids=[what for what, _ in MALFORMED])
def test_what_is_no_http_is_a_400_and_closed(data: bytes) -> None:
    async def scenario(front: Front) -> bytes:
        front.node.apply((Put("k", b"good"),))
        connection = await front.connect()
        connection.send(data)
        received = await connection.rest()
        await still_serves(front)
        return received

    assert the_one_answer(with_front(scenario, limits=LIMITS)) == (400, "not_done")


@pytest.mark.parametrize(("status", "data"), REFUSED, ids=[f"{status}-{data[:60]!r}" for status, data in REFUSED])
def test_what_can_t_be_done_is_refused_and_changes_nothing(status: int, data: bytes) -> None:
    async def scenario(front: Front) -> bytes:
        front.node.apply((Put("k", b"good"),))
        connection = await front.connect()
        connection.send(data)
        reply = await connection.reply()
        head = f"HTTP/1.1 {reply.status} X\r\nContent-Length: {len(reply.body)}\r\n\r\n".encode()
        await connection.close()
        await still_serves(front)
        return head + reply.body

    assert the_one_answer(with_front(scenario, limits=LIMITS)) == (status, "not_done")


def test_a_refused_request_leaves_the_connection_in_step() -> None:
    """What is refused after it was read whole costs nobody a connection, and no byte is taken for the next request."""

    async def scenario(front: Front) -> list[int]:
        connection = await front.connect()
        bad = [
            put(body=b"[]"),
            get(b"/keys/%"),
            put(b"If-Match: x\r\n"),
            get(b"/nothing"),
            chunked(b"1\r\nx\r\n0\r\n\r\n"),
        ]
        connection.send(b"".join(bad) + get(b"/keys/k/"))
        return [(await connection.reply()).status for _ in range(6)]

    assert with_front(scenario, limits=LIMITS) == [400, 400, 400, 404, 400, 200]


def test_a_request_in_the_body_of_another_is_no_request() -> None:
    async def scenario(front: Front) -> list[str]:
        connection = await front.connect()
        smuggled = put(target=b"/keys/smuggled/")
        connection.send(b"GET /keys/a/ HTTP/1.1\r\n" + HOST + b"Content-Length: %d\r\n\r\n" % len(smuggled) + smuggled)
        await connection.reply()
        connection.send(put(body=smuggled, target=b"/keys/b/"))
        await connection.reply()
        connection.send(put(length=5000, body=smuggled, target=b"/keys/c/"))
        connection.writer.write_eof()
        await connection.rest()
        return list(front.node.keys)

    assert with_front(scenario) == []


@pytest.mark.parametrize("cut", range(0, 90, 3))
def test_a_request_that_is_cut_off_anywhere_changes_nothing(cut: int) -> None:
    request = put(b"Content-Type: application/json\r\n")

    async def scenario(front: Front) -> bytes:
        front.node.apply((Put("k", b"good"),))
        assert cut < len(request)
        received = await say(front, request[:cut])
        await still_serves(front)
        return received

    assert with_front(scenario) == b""


def test_a_client_that_asks_before_it_sends_is_told_no_at_once() -> None:
    async def scenario(front: Front) -> list[bytes]:
        received = []
        for target, length in ((b"/keys/k/", 10**6), (b"/keys/%/", 16), (b"/keys/k/", 16)):
            connection = await front.connect()
            connection.send(put(b"Expect: 100-continue\r\n", b"", target=target, length=length))
            received.append(await connection.reader.readline())
        return received

    assert with_front(scenario, limits=LIMITS) == [
        b"HTTP/1.1 413 Content Too Large\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"HTTP/1.1 100 (Continue)\r\n",
    ]


def test_the_answer_to_what_is_too_long_gets_through_to_a_client_that_still_sends() -> None:
    """Closing at once would make the kernel reset the connection, and destroy the answer on its way."""

    async def scenario(front: Front) -> list[bytes]:
        received = []
        for data in (
            put(length=4 << 20, body=b"v" * (4 << 20)),
            chunked(b"400000\r\n", b"v" * (4 << 20)),
            get(b"/keys/k/", b"X: " + b"y" * (4 << 20)),
            get(b"/keys/" + b"y" * (4 << 20)),
        ):
            connection = await front.connect()
            connection.send(data)
            await connection.writer.drain()
            received.append(await connection.reader.readline())
        return received

    assert with_front(scenario, limits=LIMITS) == [
        b"HTTP/1.1 413 Content Too Large\r\n",
        b"HTTP/1.1 413 Content Too Large\r\n",
        b"HTTP/1.1 431 Request Header Fields Too Large\r\n",
        b"HTTP/1.1 414 URI Too Long\r\n",
    ]


def test_whatever_bytes_come_the_server_lives_and_nothing_changes() -> None:
    """Random bytes, and random changes to a request that would be valid."""
    valid = put(b"Content-Type: application/json\r\n", target=b"/keys/other/?timeout=1")
    edits = st.lists(st.tuples(st.integers(0, len(valid)), st.integers(0, 12), st.binary(max_size=12)), max_size=4)

    def edited(changes: list[tuple[int, int, bytes]]) -> bytes:
        data = valid
        for start, removed, added in changes:
            data = data[:start] + added + data[start + removed :]
        return data

    with asyncio.Runner() as runner:
        context = serving(limits=LIMITS)
        front = runner.run(context.__aenter__())
        front.node.apply((Put("k", b"good"),))

        @settings(max_examples=150, deadline=None)
        @given(st.binary() | edits.map(edited))
        def attack(data: bytes) -> None:
            received = runner.run(say(front, data))
            front.connections.clear()
            statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]
            assert all(status in (100, 200) or 400 <= status < 500 for status in statuses), received
            assert front.node.keys["k"] == Item(b"good", 1, 1, 1)

        try:
            attack()
            reply = runner.run(front.request("GET", "/keys/k/"))
            assert (reply.status, reply.body) == (200, b'{"value":"good"}\n')
        finally:
            runner.run(context.__aexit__(None, None, None))
