"""Every text as a key or value, and all bytes as a value, come back exactly as they were sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st

from raftkv.store.commands import Item
from raftkv.store.keyspace import Keyspace
from tests.front_end.fronts import Connection, Front, Reply, serving

KEYS = st.text(min_size=1, max_size=200)
SPELLINGS: list[Callable[[str], str]] = [
    lambda key: quote(key, safe=""),
    lambda key: "".join(f"%{byte:02x}" for byte in key.encode()),
]
OCTETS = "application/octet-stream"


class Session:
    """One connection that is kept for all examples, as most clients keep theirs."""

    def __init__(self, runner: asyncio.Runner, front: Front, connection: Connection) -> None:
        self.runner = runner
        self.front = front
        self.connection = connection

    def request(self, method: str, key: str, body: bytes = b"", headers: str = "") -> Reply:
        head = f"{method} /keys/{key}/ HTTP/1.1\r\nHost: t\r\nContent-Length: {len(body)}\r\n{headers}\r\n"

        async def exchange() -> Reply:
            self.connection.send(head.encode() + body)
            return await self.connection.reply()

        return self.runner.run(exchange())


@contextmanager
def session() -> Iterator[Session]:
    with asyncio.Runner() as runner:
        context = serving()
        front = runner.run(context.__aenter__())
        try:
            yield Session(runner, front, runner.run(front.connect()))
        finally:
            runner.run(context.__aexit__(None, None, None))


def test_any_text_is_a_key_and_a_value() -> None:
    with session() as client:

        @settings(max_examples=200, deadline=None)
        @given(KEYS, st.text(), st.sampled_from(SPELLINGS), st.booleans())
        def round_trip(key: str, value: str, spell: Callable[[str], str], ascii_only: bool) -> None:
            client.front.node.keyspace = Keyspace()
            body = json.dumps({"value": value}, ensure_ascii=ascii_only).encode()

            put = client.request("PUT", spell(key), body)
            get = client.request("GET", spell(key))

            assert put.status == get.status == 200
            assert json.loads(put.body) == json.loads(get.body) == {"value": value}
            assert {name: record.value for name, record in client.front.node.keys.items()} == {key: value.encode()}

        round_trip()


def test_any_bytes_are_a_value() -> None:
    with session() as client:

        @settings(max_examples=100, deadline=None)
        @given(st.binary())
        def round_trip(value: bytes) -> None:
            put = client.request("PUT", "k", value, f"Content-Type: {OCTETS}\r\n")
            get = client.request("GET", "k", headers=f"Accept: {OCTETS}\r\n")

            revision = client.front.node.keyspace.revision
            assert (put.status, get.status, get.body) == (200, 200, value)
            assert client.front.node.keys["k"].value == value
            assert isinstance(client.front.node.keys["k"], Item)
            assert get.headers["etag"] == f'"{revision}"'

        round_trip()
