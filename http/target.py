"""What a request target says: path, key and query, taken apart strictly.

A target that two programs in a row could read differently is refused, so that no key has two meanings.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from urllib.parse import unquote_to_bytes

from raftkv.http.errors import ErrorKind, HttpError, over_limit

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_AUTHORITY = re.compile(r"https?://[^/?]*", re.IGNORECASE)
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9}")

MAX_TIMEOUT_S = 60.0


def split_target(target: str) -> tuple[str, str]:
    """Return the raw path and the raw query of a request target; raises ``HttpError`` (400)."""
    if not target.startswith("/"):
        # Servers must accept the absolute form as well (RFC 9112, 3.2.2); its authority is of no interest.
        target, found = _AUTHORITY.subn("", target, count=1) if _AUTHORITY.match(target) else (target, 0)
        if not found:
            raise HttpError(ErrorKind.BAD_TARGET, "it must begin with /")
        target = target if target.startswith("/") else "/" + target
    if "#" in target:
        raise HttpError(ErrorKind.BAD_TARGET, "write # as %23")
    path, _, query = target.partition("?")
    return path, query


def decode(raw: str, part: str) -> str:
    """Return the text of ``raw``, whose characters are bytes as Latin-1; ``+`` stays ``+``.

    Raises ``HttpError`` (400), which names the ``part`` of the target.
    """
    if raw.isascii() and "%" not in raw:
        return raw
    data = raw.encode("latin-1")
    if _BAD_ESCAPE.search(data):
        raise HttpError(ErrorKind.BAD_ESCAPE, f"in the {part}")
    try:
        return unquote_to_bytes(data).decode()
    except UnicodeDecodeError:
        raise HttpError(ErrorKind.BAD_ENCODING, f"in the {part}") from None


def decode_key(segment: str, limit: int) -> str:
    """Return the key in the rest of a path after ``/keys/``, with or without its trailing slash.

    Raises ``HttpError``: 400 empty or badly encoded, 404 a slash inside, 414 longer than ``limit`` bytes.
    """
    segment = segment.removesuffix("/")
    if not segment:
        raise HttpError(ErrorKind.EMPTY_KEY)
    if "/" in segment:
        raise HttpError(ErrorKind.NOT_FOUND, "write a / that belongs to a key as %2F")
    # A key within the limit has at most three characters for each of its bytes; a longer one is not worth decoding.
    key = decode(segment, "key") if len(segment) <= 3 * limit else None
    if key is None or (len(key) * 4 > limit and len(key.encode()) > limit):
        raise over_limit(ErrorKind.KEY_TOO_LONG, limit, "bytes of UTF-8")
    return key


def parse_query(query: str, allowed: Collection[str]) -> dict[str, str]:
    """Return a query's parameters; raises ``HttpError`` (400) for one that is unknown or repeated."""
    parameters: dict[str, str] = {}
    if not query:
        return parameters
    for piece in query.split("&"):
        raw_name, _, raw_value = piece.partition("=")
        name = decode(raw_name, "query")
        if name not in allowed:
            known = f"only {', '.join(allowed)}" if allowed else "no parameters"
            raise HttpError(ErrorKind.UNKNOWN_PARAMETER, f"{name[:64]!r}; this request takes {known}")
        if name in parameters:
            raise HttpError(ErrorKind.REPEATED_PARAMETER, repr(name))
        parameters[name] = decode(raw_value, "query")
    return parameters


def choice(parameters: dict[str, str], name: str, choices: Collection[str]) -> str | None:
    """Return a parameter that has one of a few values, or None without it; raises ``HttpError`` (400)."""
    value = parameters.get(name)
    if value is not None and value not in choices:
        raise HttpError(ErrorKind.BAD_PARAMETER, f"{name} must be {' or '.join(choices)}, not {value[:64]!r}")
    return value


def timeout_s(parameters: dict[str, str], default: float) -> float:
    """Return the parameter ``timeout``, in seconds; raises ``HttpError`` (400) unless 0 < timeout <= 60."""
    text = parameters.get("timeout")
    if text is None:
        return default
    if _SECONDS.fullmatch(text) is None or not 0.0 < float(text) <= MAX_TIMEOUT_S:
        limits = f"more than 0 and at most {MAX_TIMEOUT_S:g}"
        raise HttpError(ErrorKind.BAD_PARAMETER, f"timeout must be a number of seconds, {limits}, not {text[:64]!r}")
    return float(text)
