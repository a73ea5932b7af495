"""Fuzzing the front end with what any client may send, over a connection of its own, in virtual time."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Sequence

from raftkv.config.settings import Limits
from raftkv.store.commands import Put
from raftkv.store.keyspace import Keyspace
from tests.front_end.fronts import Front, _VirtualLoop
from tests.fuzz.target import Target, pieces

LIMITS = Limits(key_bytes=64, value_bytes=1024, header_bytes=4096)
HOST = b"Host: t\r\n"
REPLY = re.compile(rb"HTTP/1\.1 (\d{3}) [ A-Za-z()-]+\r\n((?:[^\r\n]+\r\n)*)\r\n")


class _Complaints(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(self.format(record))


class Requests(Target):
    """Whatever is sent, it is answered with whole answers, never a 500, and nothing is left of it."""

    words = (b"GET ", b"PUT ", b"DELETE ", b"HEAD ", b"POST ", b"OPTIONS ", b"/keys/", b"/keys/k/", b"/status", b"/",
             b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", b"\r\n", b"\r\n\r\n", b"\n", b"%", b"%2f", b"%00", b"%ff", b"?", b"&",
             b"?timeout=", b"?consistency=stale", b"?value", HOST, b"Content-Length: ", b"Content-Length: 16\r\n",
             b"Transfer-Encoding: chunked\r\n", b"10\r\n", b"0\r\n\r\n", b"f" * 16, b"Expect: 100-continue\r\n",
             b"Connection: close\r\n", b"Connection: keep-alive\r\n", b"If-Match: ", b"If-None-Match: *\r\n", b"ETag: ",
             b"Content-Type: application/octet-stream\r\n", b"Content-Type: application/json\r\n",
             b"Content-Encoding: gzip\r\n", b"Accept: ", b"Range: bytes=0-1\r\n", b"Upgrade: websocket\r\n",
             b'{"value":"v"}', b'{"value":', b'"\\ud800"', b"[" * 99, b"1e999", b"9" * 99, b"null", b"true",
             b"A" * 1024, b"\x00", b"\xff\xfe", b"\xed\xa0\x80")  # fmt: skip

    def __init__(self) -> None:
        self._runner = asyncio.Runner(loop_factory=_VirtualLoop)
        self._front: Front | None = None
        self._complaints = _Complaints()
        for name in ("raftkv", "tornado", "asyncio"):
            logging.getLogger(name).addHandler(self._complaints)

    def seeds(self) -> Sequence[bytes]:
        """Return requests that are right, alone and in a row, and some that are wrong in known ways."""
        value = b'{"value":"good"}'
        put = b"PUT /keys/k/ HTTP/1.1\r\n" + HOST + b"Content-Length: 16\r\n\r\n" + value
        get = b"GET /keys/k/ HTTP/1.1\r\n" + HOST + b"\r\n"
        raw = (
            b"PUT /keys/r HTTP/1.1\r\n"
            + HOST
            + b"Content-Type: application/octet-stream\r\nContent-Length: 4\r\n\r\n\0\1\2\3"
        )
        chunks = (
            b"PUT /keys/c/ HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n10\r\n" + value + b"\r\n0\r\n\r\n"
        )
        return [
            put,
            get,
            raw,
            chunks,
            put + get + b"DELETE /keys/k/ HTTP/1.1\r\n" + HOST + b"\r\n" + get,
            b"GET /keys/k%20%C3%A4?consistency=stale&timeout=5 HTTP/1.1\r\n" + HOST + b"Accept: */*\r\n\r\n",
            b"PUT /keys/k/ HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 16\r\n\r\n" + value,
            b"HEAD /status HTTP/1.1\r\n" + HOST + b"\r\n" + b"GET /status HTTP/1.0\r\n\r\n",
            b"POST /keys/k/ HTTP/1.1\r\n" + HOST + b"Content-Length: 2\r\n\r\n{}" + get,
            b'PUT /keys/k/ HTTP/1.1\r\nIf-Match: "1"\r\n' + HOST + b"Content-Length: 16\r\n\r\n" + value,
            b"DELETE /keys/k/ HTTP/1.1\r\nIf-None-Match: *\r\n" + HOST + b"\r\n",
            b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n" + b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n",
        ]

    def check(self, data: bytes) -> str:
        """Send it, end the sending, and read until the front end ends the connection."""
        return self._runner.run(self._check(data))

    async def _check(self, data: bytes) -> str:
        if self._front is None:
            self._front = Front(limits=LIMITS, idle_timeout_s=4, body_timeout_s=4)
            self._front.server.listen("127.0.0.1", 0)
        front = self._front
        front.node.keyspace = Keyspace()
        front.node.asked.clear()
        front.node.apply((Put("k", b"good"),))
        reader, writer = await asyncio.open_connection("127.0.0.1", front.server.port)
        try:
            for piece in pieces(data, 4096):
                writer.write(piece)
                await asyncio.sleep(0)
            received = await reader.read()
        except ConnectionError:
            received = b""
        writer.transport.abort()
        while front.server.connections:
            await asyncio.sleep(0)
        assert self._complaints.records == []
        assert front.server.buffered_bytes == 0, front.server.buffered_bytes
        assert front.server.busy == 0
        return self._statuses(received)

    def _statuses(self, received: bytes) -> str:
        """Return the statuses of all answers, after a look at each."""
        statuses, at = [], 0
        while match := REPLY.match(received, at):
            status, head = int(match[1]), match[2].lower()
            assert status < 500 or status in (501, 505), received
            at = match.end()
            length = re.search(rb"content-length: (\d+)", head)
            if status >= 200 and length is not None:
                body = received[at : at + int(length[1])]
                if body[:9] == b"HTTP/1.1 " or not body:
                    # What answers a HEAD has a length and no body.
                    body = b""
                elif b"application/json" in head:
                    json.loads(body)
                    assert body.endswith(b"}\n"), body
                at += len(body)
            statuses.append(status)
        assert at == len(received), received[at:]
        return " ".join(map(str, statuses[:4]))

    def close(self) -> None:
        """Stop the front end and close the loop."""

        async def stop(front: Front) -> None:
            await front.server.stop(0)
            await front.gateway.close()

        if self._front is not None:
            self._runner.run(stop(self._front))
        self._runner.close()
        for name in ("raftkv", "tornado", "asyncio"):
            logging.getLogger(name).removeHandler(self._complaints)
