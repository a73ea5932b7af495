"""Values in bodies, in both directions: as JSON (``{"value": "text"}``) or as the plain bytes.

A body is either exactly what the documentation says or an error that says what is wrong with it.
"""

from __future__ import annotations

import json
import re
from enum import Enum
from typing import NamedTuple

import msgspec

from raftkv.http.answers import Answer, Headers, encode_json
from raftkv.http.errors import ErrorKind, HttpError, over_limit

OCTETS = "application/octet-stream"

_WEIGHT = re.compile(r"q=[01](\.[0-9]{0,3})?")

# JSON takes up to six characters for one byte of a text (\u0000), plus the object around it.
_JSON_EXPANSION = 6
_JSON_FRAME = 1024


class Form(Enum):
    """The form in which a client accepts a value; ``EITHER`` means JSON if the value is text."""

    JSON = "json"
    OCTETS = "octets"
    EITHER = "either"


class _ValueBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    value: str


_decode = msgspec.json.Decoder(_ValueBody).decode
_encode = msgspec.json.Encoder().encode


class Value(NamedTuple):
    """A value to be stored, and the body that confirms it to the client."""

    data: bytes
    answer: bytes


def is_octets(content_type: str) -> bool:
    """Whether a ``Content-Type`` says that the body is the value itself; every other one means JSON."""
    return content_type.partition(";")[0].strip().lower() == OCTETS


def accepted(accept: str) -> Form:
    """Return the form that an ``Accept`` header prefers (RFC 9110, 12.5.1).

    Plain bytes are only for clients that name them: ``*/*`` means JSON.
    """
    if OCTETS not in accept.lower():
        return Form.JSON
    weights = dict(_weight(piece) for piece in reversed(accept.lower().split(",")))
    octets = weights.get(OCTETS, 0.0)
    as_json = weights.get("application/json")
    if octets <= 0.0:
        return Form.JSON
    if as_json is None:
        # A name beats a wildcard, unless the wildcard has more weight.
        as_json = max(weights.get("application/*", 0.0), weights.get("*/*", 0.0))
        return Form.OCTETS if octets >= as_json else Form.EITHER
    return Form.OCTETS if octets > as_json else Form.EITHER


def _weight(piece: str) -> tuple[str, float]:
    media_type, *parameters = (part.strip() for part in piece.split(";"))
    for parameter in parameters:
        if _WEIGHT.fullmatch(parameter):
            return media_type, float(parameter[2:])
    return media_type, 1.0


def octets_answer(value: bytes, headers: Headers) -> Answer:
    """Return ``value`` as it is, with a header that keeps browsers from guessing its type."""
    return Answer(200, value, (("Content-Type", OCTETS), ("X-Content-Type-Options", "nosniff"), *headers))


def body_limit(octets: bool, value_limit: int) -> int:
    """Return how many bytes a body may have whose value may have ``value_limit``."""
    return value_limit if octets else value_limit * _JSON_EXPANSION + _JSON_FRAME


def too_large(limit: int) -> HttpError:
    """Return the error for a value that is longer than ``limit`` bytes (413)."""
    return over_limit(ErrorKind.VALUE_TOO_LARGE, limit)


def encode_text(text: str) -> bytes:
    """Return ``{"value":"text"}`` and a newline: no spaces, and no escapes where JSON allows plain UTF-8."""
    return b'{"value":' + _encode(text) + b"}\n"


def read_octets(body: bytes, limit: int) -> Value:
    """Return the value that is ``body``; the answer shows it if it is text, and is ``{"bytes":n}`` otherwise."""
    if len(body) > limit:
        raise too_large(limit)
    try:
        return Value(body, encode_text(body.decode()))
    except UnicodeDecodeError:
        return Value(body, encode_json({"bytes": len(body)}))


def read_json(body: bytes, limit: int) -> Value:
    """Return the value in ``{"value": "text"}``; raises ``HttpError``: 400 for anything else, 413 over ``limit``."""
    try:
        text = _decode(body).value
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _not_a_value(body, error) from None
    answer = encode_text(text)
    data = text.encode()
    # Most clients send exactly the JSON that we answer with, but for the newline: that needs no second look.
    if not answer.startswith(body) and _is_repeated(body):
        raise HttpError(ErrorKind.BAD_BODY, 'it has the member "value" more than once')
    if len(data) > limit:
        raise too_large(limit)
    return Value(data, answer)


def _is_repeated(body: bytes) -> bool:
    """Whether an object that has only members "value" with texts has more than one: the decoder takes the last."""
    # One member has exactly four quotes unless its text has some; only then is it worth parsing the body again.
    return body.count(b'"') > 4 and len(json.loads(body, object_pairs_hook=list)) > 1


def _not_a_value(body: bytes, error: Exception) -> HttpError:
    reason = str(error).removeprefix("JSON is malformed: ")[:200]
    if not body.strip():
        detail = "it is empty"
    elif isinstance(error, UnicodeDecodeError):
        detail = "it is not valid UTF-8"
    elif isinstance(error, msgspec.ValidationError):
        detail = reason
    elif b"\\ud" in body or b"\\uD" in body:
        detail = f"it is not valid JSON: {reason} (half of a surrogate pair is not text)"
    else:
        detail = f"it is not valid JSON: {reason}"
    return HttpError(ErrorKind.BAD_BODY, detail)
