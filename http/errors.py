"""Every error that an HTTP answer can report: one table of kinds, one shape in JSON.

A new kind of error is one line of ``ErrorKind``; status, outcome, first sentence and ``Retry-After`` follow from it.
``docs/guarantees.md`` explains each code, and a test compares the two.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Literal

from raftkv.actors.messages.requests import Refused
from raftkv.http.answers import JSON, Answer, Headers, encode_json

Outcome = Literal["not_done", "unknown"]

REASON_PHRASES = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    408: "Request Timeout",
    412: "Precondition Failed",
    413: "Content Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    507: "Insufficient Storage",
}
"""Of RFC 9110, RFC 6585 and RFC 4918, for every status that an answer can have."""

_RETRY_STATUSES = (429, 503)
_RETRY_SOON: Headers = (("Retry-After", "1"),)


class ErrorKind(Enum):
    """Status, first sentence of the message, and outcome, by code: the name in lower case.

    The outcome says whether the change that was asked for may have been made all the same.
    """

    status: int
    message: str
    outcome: Outcome

    def __new__(cls, status: int, message: str, outcome: Outcome = "not_done") -> ErrorKind:
        kind = object.__new__(cls)
        # The default value is the whole tuple: kinds with equal tuples would become one.
        kind._value_ = len(cls.__members__)
        kind.status = status
        kind.message = message
        kind.outcome = outcome
        return kind

    MALFORMED = 400, "the request is not valid HTTP/1.1"
    BAD_TARGET = 400, "the request target is not valid"
    BAD_ESCAPE = 400, "the request target has a % that is not followed by two hexadecimal digits"
    BAD_ENCODING = 400, "the request target does not decode to UTF-8"
    EMPTY_KEY = 400, "the key is empty"
    UNKNOWN_PARAMETER = 400, "the query has an unknown parameter"
    REPEATED_PARAMETER = 400, "the query repeats a parameter"
    BAD_PARAMETER = 400, "a query parameter has an invalid value"
    BAD_BODY = 400, 'the body must be {"value": "text"}'
    BAD_CONDITION = 400, "the condition is not valid"
    NOT_SUPPORTED = 400, "the request needs a feature that does not exist yet, so nothing was changed"
    INVALID = 400, "the request is not valid"
    NOT_FOUND = 404, "there is nothing at this path"
    NO_SUCH_KEY = 404, "the key does not exist"
    METHOD_NOT_ALLOWED = 405, "this path does not support the method"
    NOT_TEXT = 406, "the value is not UTF-8 text"
    TOO_SLOW = 408, "the body did not arrive in time"
    UNMATCHED = 412, "the condition does not hold"
    VALUE_TOO_LARGE = 413, "the value is too large"
    BODY_TOO_LARGE = 413, "this request takes no body"
    KEY_TOO_LONG = 414, "the key is too long"
    TARGET_TOO_LONG = 414, "the request line is too long"
    CONTENT_ENCODING = 415, "a body with a Content-Encoding is not accepted"
    OVERLOADED = 429, "this node is overloaded"
    HEADERS_TOO_LARGE = 431, "the headers are too large"
    INTERNAL = 500, "this node failed to answer; its log says why"
    NO_LEADER = 503, "this node cannot reach a leader"
    NOT_LEADER = 503, "the leader changed while the request was being served"
    NOT_COMMITTED = 503, "a new leader replaced the entry before it was committed"
    RETRY = 503, "the leader could not confirm that it still leads"
    NO_ANSWER = 503, "the read was not answered"
    STOPPING = 503, "this node is stopping"
    NOT_READY = 503, "this node is not ready"
    TOO_MANY_CONNECTIONS = 503, "this node has no room for another connection"
    UNKNOWN = 504, "the change may have been made, or may still be made", "unknown"
    NO_ROOM = 507, "there is no room left on the disk"

    @property
    def code(self) -> str:
        """What clients see, and may rely on: messages may change, codes do not."""
        return self.name.lower()


class HttpError(Exception):
    """A request that is answered with an error.

    The message is the kind's sentence and, after a colon, ``detail``. ``members`` are further members of the error
    object; ``outcome`` overrides the kind's.
    """

    def __init__(
        self,
        kind: ErrorKind,
        detail: str = "",
        *,
        outcome: Outcome | None = None,
        headers: Headers = (),
        members: Mapping[str, object] | None = None,
    ) -> None:
        self.kind = kind
        self.status = kind.status
        self.code = kind.code
        self.message = f"{kind.message}: {detail}" if detail else kind.message
        self.outcome = outcome or kind.outcome
        self.headers = (*_RETRY_SOON, *headers) if kind.status in _RETRY_STATUSES else headers
        self.members = members or {}
        super().__init__(self.status, self.code, self.message)

    def answer(self) -> Answer:
        """Return the answer: ``{"error": {"code", "message", "outcome", …}}``."""
        error = {"code": self.code, "message": self.message, "outcome": self.outcome, **self.members}
        return Answer(self.status, encode_json({"error": error}), (("Content-Type", JSON), *self.headers))


def refusal(refused: Refused, *, writes: bool) -> HttpError:
    """Return the error for a request that the node refused; every code of ``Refused`` is a kind of error.

    Only a write can have an unknown outcome (504). A read that was not answered in time changed nothing (503).
    """
    if refused.code == "unknown" and not writes:
        return HttpError(ErrorKind.NO_ANSWER, refused.detail)
    return HttpError(ErrorKind[refused.code.upper()], refused.detail)


def over_limit(kind: ErrorKind, limit_bytes: int, unit: str = "bytes") -> HttpError:
    """Return the error for something longer than ``limit_bytes``; the error object has the limit as a member."""
    return HttpError(kind, f"the limit is {limit_bytes} {unit}", members={"limit_bytes": limit_bytes})
