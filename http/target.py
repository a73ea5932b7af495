"""What a request's target says: path, key and query, taken apart strictly, so that no two spellings are confused."""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import unquote_to_bytes

from raftkv.http.errors import HttpError, bad_request

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_AUTHORITY = re.compile(r"https?://[^/?]*", re.IGNORECASE)
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9}")

MAX_TIMEOUT_S = 60.0


def split_target(target: str) -> tuple[str, str]:
    """Return the raw path and the raw query of a request target; raises ``HttpError`` (400)."""
    if not target.startswith("/"):
        # The absolute form, which servers must take as well (RFC 9112, 3.2.2); the authority tells us nothing new.
        target, found = _AUTHORITY.subn("", target, count=1) if _AUTHORITY.match(target) else (target, 0)
        if not found:
            raise bad_request("bad_target", "the request target must begin with /")
        target = target if target.startswith("/") else "/" + target
    if "#" in target:
        raise bad_request("bad_target", "a # in a request target must be written %23")
    path, _, query = target.partition("?")
    return path, query


def decode(raw: str, what: str) -> str:
    """Return the text that ``raw``, bytes spelled as Latin-1, stands for; ``+`` stays ``+``; may raise."""
    if raw.isascii() and "%" not in raw:
        return raw
    data = raw.encode("latin-1")
    if _BAD_ESCAPE.search(data):
        raise bad_request("bad_escape", f"in the {what}, a % must be followed by two hexadecimal digits")
    try:
        return unquote_to_bytes(data).decode()
    except UnicodeDecodeError:
        raise bad_request("bad_encoding", f"the {what} is not valid UTF-8") from None


def decode_key(segment: str, limit: int) -> str:
    """Return the key that the rest of a path after ``/keys/`` names, with or without its trailing slash.

    Raises ``HttpError``: 400 empty or badly encoded, 404 a slash inside, 414 longer than ``limit`` bytes.
    """
    segment = segment.removesuffix("/")
    if not segment:
        raise bad_request("empty_key", "the key is empty")
    if "/" in segment:
        raise HttpError(404, "not_found", "there is nothing at this path; a / that belongs to a key is written %2F")
    # No key within the limit takes more than three characters for each of its bytes: don't decode what can't fit.
    key = decode(segment, "key") if len(segment) <= 3 * limit else None
    if key is None or (len(key) * 4 > limit and len(key.encode()) > limit):
        raise HttpError(
            414, "key_too_long", f"a key has at most {limit} bytes of UTF-8", details={"limit_bytes": limit}
        )
    return key


def parse_query(query: str, allowed: Collection[str]) -> dict[str, str]:
    """Return a query's parameters; raises ``HttpError`` (400) for one that is unknown or there twice."""
    parameters: dict[str, str] = {}
    if not query:
        return parameters
    for piece in query.split("&"):
        raw_name, _, raw_value = piece.partition("=")
        name = decode(raw_name, "query")
        if name not in allowed:
            known = ", ".join(allowed) or "none"
            raise bad_request("unknown_parameter", f"unknown query parameter {name[:64]!r}; known here: {known}")
        if name in parameters:
            raise bad_request("repeated_parameter", f"the query parameter {name!r} is given more than once")
        parameters[name] = decode(raw_value, "query")
    return parameters


def choice(parameters: dict[str, str], name: str, choices: Collection[str]) -> str | None:
    """Return a parameter that has one of a few values, or None without it; raises ``HttpError`` (400)."""
    value = parameters.get(name)
    if value is not None and value not in choices:
        raise bad_request("bad_parameter", f"{name} is one of: {', '.join(choices)}; not {value[:64]!r}")
    return value


def timeout_s(parameters: dict[str, str], default: float) -> float:
    """Return the parameter ``timeout``, in seconds; raises ``HttpError`` (400) unless 0 < timeout <= 60."""
    text = parameters.get("timeout")
    if text is None:
        return default
    if _SECONDS.fullmatch(text) is None or not 0.0 < float(text) <= MAX_TIMEOUT_S:
        raise bad_request("bad_parameter", f"timeout is a number of seconds, above 0 and at most {MAX_TIMEOUT_S:g}")
    return float(text)
