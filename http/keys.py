"""``/keys/<key>/``: reading, writing and deleting one key.

Bodies and answers are those of the Go original for every valid request; what it answered wrongly is an error here.
A write of raw bytes (``Content-Type: application/octet-stream``) answers ``{"value":"…"}`` if they are UTF-8 text,
and ``{"bytes":n}`` if they are not.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from urllib.parse import quote

from tornado.httputil import HTTPHeaders

from raftkv.actors.gateway import Gateway
from raftkv.actors.messages.base import Level
from raftkv.actors.messages.requests import Applied, ReadResult
from raftkv.config.settings import Limits
from raftkv.http import bodies
from raftkv.http.conditions import condition, etag, unmatched
from raftkv.http.errors import JSON, Answer, Headers, HttpError, bad_request, not_allowed, unwanted_body
from raftkv.http.exchange import Action
from raftkv.http.target import choice, decode_key, parse_query, timeout_s
from raftkv.store.commands import Delete, DeleteDone, DeleteIf, Get, Item, Put, PutDone, PutIf, Result, Unmatched

METHODS = "GET, HEAD, POST, PUT, DELETE"
DEFAULT_TIMEOUT_S = 5.0

_READ_PARAMETERS = ("level", "missing", "timeout")
_WRITE_PARAMETERS = ("timeout",)


class Keys:
    """Makes actions of requests for keys."""

    def __init__(self, gateway: Gateway, limits: Limits) -> None:
        self.gateway = gateway
        self.limits = limits

    def action(self, method: str, segment: str, query: str, headers: HTTPHeaders) -> Action:
        """Return what a request for ``/keys/<segment>`` asks for; raises ``HttpError``."""
        key = decode_key(segment, self.limits.key_bytes)
        if method in ("GET", "HEAD"):
            return self._read(key, query, headers)
        if method not in ("POST", "PUT", "DELETE"):
            raise not_allowed(method, METHODS)
        seconds = timeout_s(parse_query(query, _WRITE_PARAMETERS), DEFAULT_TIMEOUT_S) if query else DEFAULT_TIMEOUT_S
        demanded = condition(method, headers) if "If-Match" in headers or "If-None-Match" in headers else None
        if "Idempotency-Key" in headers:
            # To ignore it would do what the client asked not to have done.
            raise bad_request("not_supported", "Idempotency-Key is not supported yet, so nothing was changed")
        if method == "DELETE":
            return DeleteKey(self.gateway, key, seconds, demanded)
        if "Content-Encoding" in headers and headers["Content-Encoding"].strip().lower() not in ("", "identity"):
            raise HttpError(415, "content_encoding", "a body is sent as it is, without Content-Encoding")
        octets = "Content-Type" in headers and bodies.is_octets(headers["Content-Type"])
        return WriteKey(self.gateway, key, seconds, octets, self.limits.value_bytes, demanded)

    def _read(self, key: str, query: str, headers: HTTPHeaders) -> ReadKey:
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
    """GET or HEAD: the value, or an empty one for a key that is not there, which alone has no ``ETag``."""

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
        answers, item = outcome
        view = self._gateway.view
        place: Headers = (
            ("X-Raft-Revision", str(answers.revision)),
            ("X-Raft-Term", str(view.term)),
            ("X-Raft-Level", self._level),
            *leader_header(view.leader),
        )
        if item is not None:
            place = (etag(item.modify_revision), *place)
        elif self._missing_is_404:
            raise HttpError(404, "no_such_key", "there is no such key", headers=place)
        value = b"" if item is None else item.value
        if self._form is bodies.Form.OCTETS:
            return bodies.octets_answer(value, place)
        try:
            return Answer(200, bodies.encode_text(value.decode()), (("Content-Type", JSON), *place))
        except UnicodeDecodeError:
            if self._form is bodies.Form.EITHER:
                return bodies.octets_answer(value, place)
            message = f"the value is not UTF-8 text; ask for it with Accept: {bodies.OCTETS}"
            raise HttpError(406, "not_text", message, headers=place) from None

    def too_large(self) -> HttpError:
        return unwanted_body()


class WriteKey:
    """POST or PUT: sets the key, if it is at the revision that is ``demanded``, and answers once that is applied."""

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
        place = written(self._gateway, applied, result)
        if isinstance(result, Unmatched):
            raise unmatched(self._demanded, result, place)
        assert isinstance(result, PutDone), f"a Put gives PutDone, not {result!r}"
        return Answer(200, self._answer, (("Content-Type", JSON), etag(result.revision), *place))

    def too_large(self) -> HttpError:
        return bodies.too_large(self._value_limit)


class DeleteKey:
    """DELETE: ``{"deleted":true}``, or false if there was no such key and none was ``demanded``."""

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
        place = written(self._gateway, applied, result)
        if isinstance(result, Unmatched):
            raise unmatched(self._demanded, result, place)
        assert isinstance(result, DeleteDone), f"a Delete gives DeleteDone, not {result!r}"
        body = b'{"deleted":true}\n' if result.existed else b'{"deleted":false}\n'
        return Answer(200, body, (("Content-Type", JSON), *place))

    def too_large(self) -> HttpError:
        return unwanted_body()


def written(gateway: Gateway, applied: Applied, result: Result) -> Headers:
    """Return the headers that say where in the history a change stands."""
    return (
        ("X-Raft-Revision", str(result.revision)),
        ("X-Raft-Term", str(applied.term)),
        *leader_header(gateway.view.leader),
    )


@lru_cache(16)
def leader_header(leader: str | None) -> Headers:
    """Return the header that names the leader, where there is one."""
    return () if leader is None else (("X-Raft-Leader", header_text(leader)),)


def header_text(name: str) -> str:
    """Return ``name`` as it can stand in a header, whatever characters it has."""
    return quote(name, safe="!#$&'*+-.^_`|~:/@")
