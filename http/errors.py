"""Every error that a client can be answered with: one JSON shape, and the one table from refusals to statuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import msgspec

from raftkv.actors.messages.requests import Refused

JSON = "application/json; charset=utf-8"
Outcome = Literal["not_done", "unknown"]
Headers = tuple[tuple[str, str], ...]

REASONS = {
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
RETRY_SOON: Headers = (("Retry-After", "1"),)

_encode = msgspec.json.Encoder().encode


def encode_json(content: object) -> bytes:
    """Return ``content`` as the body of an answer: JSON and a newline, so that a shell prompt starts on its own line."""
    return _encode(content) + b"\n"


class Answer(NamedTuple):
    """What goes back to a client; ``headers`` has the content type, never the length."""

    status: int
    body: bytes
    headers: Headers


class HttpError(Exception):
    """A request that is answered with an error.

    ``outcome`` says whether what was asked for may have been done all the same; ``details`` are further members of
    the error object.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        outcome: Outcome = "not_done",
        headers: Headers = (),
        details: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.code = code
        self.message = message
        self.outcome = outcome
        self.headers = headers
        self.details = details or {}

    def answer(self) -> Answer:
        """Return the answer: ``{"error": {"code", "message", "outcome", …}}``."""
        error = {"code": self.code, "message": self.message, "outcome": self.outcome, **self.details}
        return Answer(self.status, encode_json({"error": error}), (("Content-Type", JSON), *self.headers))


_STATUS_OF = {
    "no_leader": (503, "there is no leader that this node can reach"),
    "not_leader": (503, "the leader changed while the request was under way"),
    "not_committed": (503, "a new leader replaced the entry before it was committed"),
    "retry": (503, "the leader changed while the request was under way"),
    "stopping": (503, "this node is stopping"),
    "overloaded": (429, "this node has too much to do"),
    "no_room": (507, "there is no room left on the disk"),
    "invalid": (400, "the request is not valid"),
}


def refusal(refused: Refused, *, writes: bool) -> HttpError:
    """Return the error for a request that the node refused.

    Only a write can have an unknown outcome (504). A read that got no answer in time changed nothing (503).
    """
    if refused.code == "unknown":
        detail = refused.detail or "no answer in time"
        if writes:
            return HttpError(
                504, "unknown", f"{detail}; the change may have been made, or may yet be", outcome="unknown"
            )
        return HttpError(503, "no_answer", detail, headers=RETRY_SOON)
    status, message = _STATUS_OF[refused.code]
    headers = RETRY_SOON if status in (429, 503) else ()
    return HttpError(
        status, refused.code, f"{message}: {refused.detail}" if refused.detail else message, headers=headers
    )


def bad_request(code: str, message: str) -> HttpError:
    """Return the error for a request that is wrong in itself (400)."""
    return HttpError(400, code, message)


def not_allowed(method: str, allowed: str) -> HttpError:
    """Return the error for a method that a path does not have (405)."""
    message = f"{method[:32]} is not possible here; possible are {allowed}"
    return HttpError(405, "method_not_allowed", message, headers=(("Allow", allowed),))


def unwanted_body() -> HttpError:
    """Return the error for a body that nobody asked for and that is too long to be skipped (413)."""
    return HttpError(413, "body_too_large", "a request of this kind takes no body")


def internal_error(*, writes: bool) -> HttpError:
    """Return the error for a bug of ours (500), which says nothing of the inside."""
    return HttpError(
        500, "internal", "this node failed to answer; its log says why", outcome="unknown" if writes else "not_done"
    )
