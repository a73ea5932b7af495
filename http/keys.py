"""``/keys/<key>/``: reading, writing and deleting one key.

Valid requests get the bodies and answers of the Go original (dborchard/raft-kv); requests that it answered wrongly are
errors here. A write of raw bytes (``Content-Type: application/octet-stream``) answers ``{"value":"…"}`` if
they are UTF-8 text, and ``{"bytes":n}`` if they are not.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from urllib.parse import quote

from raftkv.actors.gateway import Gateway
from raftkv.actors.messages.base import Level
from raftkv.actors.messages.requests import Applied, ReadResult
from raftkv.config.settings import Limits
from raftkv.http import bodies
from raftkv.http.answers import JSON, Answer, Headers
from raftkv.http.conditions import condition, etag, unmatched
from raftkv.http.connection import RequestHeaders
from raftkv.http.errors import ErrorKind, HttpError
from raftkv.http.exchange import Action
from raftkv.http.target import choice, decode_key, parse_query, timeout_s
from raftkv.store.commands import Delete, DeleteDone, DeleteIf, Get, Item, Put, PutDone, PutIf, Result, Unmatched

ALLOWED = "GET, HEAD, POST, PUT, DELETE"
DEFAULT_TIMEOUT_S = 5.0

_READ_PARAMETERS = ("level", "missing", "timeout")
_WRITE_PARAMETERS = ("timeout",)


class Keys:
    """Finds the action of a request for a key."""

    def __init__(self, gateway: Gateway, limits: Limits) -> None:
        self.gateway = gateway
        self.limits = limits

    def action(self, method: str, segment: str, query: str, headers: RequestHeaders) -> Action:
        """Return what a request for ``/keys/<segment>`` asks for; raises ``HttpError``."""
        key = decode_key(segment, self.limits.key_bytes)
        if method in ("GET", "HEAD"):
            return self._read(key, query, headers)
        if method not in ("POST", "PUT", "DELETE"):
            raise HttpError(ErrorKind.METHOD_NOT_ALLOWED, method[:32], headers=(("Allow", ALLOWED),))
        seconds = timeout_s(parse_query(query, _WRITE_PARAMETERS), DEFAULT_TIMEOUT_S) if query else DEFAULT_TIMEOUT_S
        demanded = condition(method, headers) if "If-Match" in headers or "If-None-Match" in headers else None
        if "Idempotency-Key" in headers:
            # Ignoring the header could make a change twice that the client wants once.
            raise HttpError(ErrorKind.NOT_SUPPORTED, "Idempotency-Key")
        if method == "DELETE":
            return DeleteKey(self.gateway, key, seconds, demanded)
        if "Content-Encoding" in headers and headers["Content-Encoding"].strip().lower() not in ("", "identity"):
            raise HttpError(ErrorKind.CONTENT_ENCODING)
        octets = "Content-Type" in headers and bodies.is_octets(headers["Content-Type"])
        return WriteKey(self.gateway, key, seconds, octets, self.limits.value_bytes, demanded)

    def _read(self, key: str, query: str, headers: RequestHeaders) -> ReadKey:
        level: Level = "linearizable"
        missing_is_404 = False
        seconds = DEFAULT_TIMEOUT_S
        if query:
            parameters = parse_query(query, _READ_PARAMETERS)
            if choice(parameters, "level", ("linearizable", "stale")) == "stale":
                level = "stale"
            missing_is_404 = choice(parameters, "missing", ("404",)) is not None
            seconds = timeout_s(parameters, DEFAULT_TIMEOUT_S)
        form = bodies.accepted(headers["Accept"]) if "Accept" in headers else bodies.Form.JSON
        return ReadKey(self.gateway, key, seconds, level, missing_is_404, form)


class ReadKey:
    """GET or HEAD: the value, or an empty one, without an ``ETag``, for a key that does not exist."""

    takes_body = False
    body_limit = 0

    __slots__ = ("_form", "_gateway", "_key", "_level", "_missing_is_404", "_seconds")

    def __init__(
        self, gateway: Gateway, key: str, seconds: float, level: Level, missing_is_404: bool, form: bodies.Form
    ) -> None:
        self._gateway = gateway
        self._key = key
        self._seconds = seconds
        self._level: Level = level
        self._missing_is_404 = missing_is_404
        self._form = form

    def start(self, body: bytes) -> asyncio.Future[tuple[ReadResult, Item | None]]:
        return self._gateway.read(Get(self._key), self._level, self._seconds)

    def answer(self, outcome: tuple[ReadResult, Item | None]) -> Answer:
        result, item = outcome
        position: Headers = (
            ("X-Raft-Revision", str(result.revision)),
            ("X-Raft-Term", str(self._gateway.term)),
            ("X-Raft-Level", self._level),
            *leader_header(self._gateway.leader),
        )
        if item is not None:
            position = (etag(item.modify_revision), *position)
        elif self._missing_is_404:
            raise HttpError(ErrorKind.NO_SUCH_KEY, headers=position)
        value = b"" if item is None else item.value
        if self._form is bodies.Form.OCTETS:
            return bodies.octets_answer(value, position)
        try:
            return Answer(200, bodies.encode_text(value.decode()), (("Content-Type", JSON), *position))
        except UnicodeDecodeError:
            if self._form is bodies.Form.EITHER:
                return bodies.octets_answer(value, position)
            detail = f"send Accept: {bodies.OCTETS} to get it as bytes"
            raise HttpError(ErrorKind.NOT_TEXT, detail, headers=position) from None

    def too_large(self) -> HttpError:
        return HttpError(ErrorKind.BODY_TOO_LARGE)


class WriteKey:
    """POST or PUT: sets the key, if it has the revision that is ``demanded``, and answers once that is applied."""

    takes_body = True

    __slots__ = ("_answer", "_demanded", "_gateway", "_key", "_octets", "_seconds", "_value_limit", "body_limit")

    def __init__(
        self, gateway: Gateway, key: str, seconds: float, octets: bool, value_limit: int, demanded: int | None
    ) -> None:
        self.body_limit = bodies.body_limit(octets, value_limit)
        self._gateway = gateway
        self._key = key
        self._seconds = seconds
        self._octets = octets
        self._value_limit = value_limit
        self._demanded = demanded
        self._answer = b""

    def start(self, body: bytes) -> asyncio.Future[tuple[Applied, Result]]:
        value = (bodies.read_octets if self._octets else bodies.read_json)(body, self._value_limit)
        self._answer = value.answer
        demanded = self._demanded
        command = Put(self._key, value.data) if demanded is None else PutIf(self._key, value.data, demanded)
        return self._gateway.propose(command, self._seconds)

    def answer(self, outcome: tuple[Applied, Result]) -> Answer:
        applied, result = outcome
        position = position_of(self._gateway, applied, result)
        if isinstance(result, Unmatched):
            raise unmatched(self._demanded, result, position)
        assert isinstance(result, PutDone), f"a Put results in PutDone, not {result!r}"
        return Answer(200, self._answer, (("Content-Type", JSON), etag(result.revision), *position))

    def too_large(self) -> HttpError:
        return bodies.too_large(self._value_limit)


class DeleteKey:
    """DELETE: ``{"deleted":true}``, or false if the key did not exist and no revision was ``demanded``."""

    takes_body = False
    body_limit = 0

    __slots__ = ("_demanded", "_gateway", "_key", "_seconds")

    def __init__(self, gateway: Gateway, key: str, seconds: float, demanded: int | None) -> None:
        self._gateway = gateway
        self._key = key
        self._seconds = seconds
        self._demanded = demanded

    def start(self, body: bytes) -> asyncio.Future[tuple[Applied, Result]]:
        demanded = self._demanded
        command = Delete(self._key) if demanded is None else DeleteIf(self._key, demanded)
        return self._gateway.propose(command, self._seconds)

    def answer(self, outcome: tuple[Applied, Result]) -> Answer:
        applied, result = outcome
        position = position_of(self._gateway, applied, result)
        if isinstance(result, Unmatched):
            raise unmatched(self._demanded, result, position)
        assert isinstance(result, DeleteDone), f"a Delete results in DeleteDone, not {result!r}"
        body = b'{"deleted":true}\n' if result.existed else b'{"deleted":false}\n'
        return Answer(200, body, (("Content-Type", JSON), *position))

    def too_large(self) -> HttpError:
        return HttpError(ErrorKind.BODY_TOO_LARGE)


def position_of(gateway: Gateway, applied: Applied, result: Result) -> Headers:
    """Return the headers that give a change's position in the history of the keyspace."""
    return (
        ("X-Raft-Revision", str(result.revision)),
        ("X-Raft-Term", str(applied.term)),
        *leader_header(gateway.leader),
    )


@lru_cache(16)
def leader_header(leader: str | None) -> Headers:
    """Return the header that names the leader, if there is one."""
    return () if leader is None else (("X-Raft-Leader", header_text(leader)),)


def header_text(name: str) -> str:
    """Return ``name`` in a form that is valid in a header, whatever characters it has."""
    return quote(name, safe="!#$&'*+-.^_`|~:/@")
