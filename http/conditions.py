"""``If-Match`` and ``If-None-Match`` on a write: the modify revision that the key must have (RFC 9110, 13.1).

An ``ETag`` is a key's modify revision in quotes. Everything else in these headers is refused, although the standard
allows treating it as a condition that does not hold: otherwise the client would never learn that its condition
has no effect.
"""

from __future__ import annotations

import re

from raftkv.http.answers import Headers
from raftkv.http.connection import RequestHeaders
from raftkv.http.errors import ErrorKind, HttpError
from raftkv.store.commands import MAX_REVISION, NOT_THERE, THERE, Unmatched

_ETAG = re.compile(r'"([1-9][0-9]{0,18})"')


def etag(revision: int) -> tuple[str, str]:
    """Return the header that names a state of a key."""
    return ("ETag", f'"{revision}"')


def condition(method: str, headers: RequestHeaders) -> int | None:
    """Return the modify revision that a write demands, ``THERE``, ``NOT_THERE``, or None for no condition.

    Raises ``HttpError`` (400).
    """
    if_match = headers["If-Match"].strip() if "If-Match" in headers else None
    if "If-None-Match" in headers:
        if if_match is not None:
            raise _bad_condition("If-Match and If-None-Match cannot be combined")
        if headers["If-None-Match"].strip() != "*":
            raise _bad_condition("on a write, If-None-Match must be *, for a key that does not exist")
        if method == "DELETE":
            raise _bad_condition("a DELETE cannot have If-None-Match: a key that does not exist cannot be deleted")
        return NOT_THERE
    if if_match is None:
        return None
    if if_match == "*":
        return THERE
    found = _ETAG.fullmatch(if_match)
    if found is None or int(found[1]) > MAX_REVISION:
        raise _bad_condition('If-Match must be * or one ETag of this store, such as "12"')
    return int(found[1])


def _bad_condition(detail: str) -> HttpError:
    return HttpError(ErrorKind.BAD_CONDITION, detail)


def unmatched(demanded: int | None, result: Unmatched, position: Headers) -> HttpError:
    """Return the error for a condition that did not hold (412), with the ``ETag`` of the key if it exists."""
    current = result.modify_revision
    if current == NOT_THERE:
        detail, headers = "the key does not exist", position
    else:
        detail = f"the key exists, at revision {current}" + ("" if demanded == NOT_THERE else f", not {demanded}")
        headers = (etag(current), *position)
    members = {"current_revision": None if current == NOT_THERE else current}
    return HttpError(ErrorKind.UNMATCHED, detail, headers=headers, members=members)
