"""``If-Match`` and ``If-None-Match`` on a write: at which modify revision the key must be (RFC 9110, 13.1).

An ``ETag`` is a key's modify revision in quotes. Whatever else these headers may say is refused, although the standard
lets it count as a condition that does not hold: who sends it means something, and would never learn that it is in vain.
"""

from __future__ import annotations

import re

from tornado.httputil import HTTPHeaders

from raftkv.http.errors import Headers, HttpError, bad_request
from raftkv.store.commands import MAX_REVISION, NOT_THERE, THERE, Unmatched

_ETAG = re.compile(r'"([1-9][0-9]{0,18})"')


def etag(revision: int) -> tuple[str, str]:
    """Return the header that names a state of a key."""
    return ("ETag", f'"{revision}"')


def condition(method: str, headers: HTTPHeaders) -> int | None:
    """Return which modify revision a write demands, or ``THERE`` or ``NOT_THERE``; raises ``HttpError`` (400)."""
    matching = headers["If-Match"].strip() if "If-Match" in headers else None
    if "If-None-Match" in headers:
        if matching is not None:
            raise bad_request("bad_condition", "If-Match and If-None-Match do not go together")
        if headers["If-None-Match"].strip() != "*":
            raise bad_request("bad_condition", "on a write, If-None-Match can only be *: the key must not be there")
        if method == "DELETE":
            raise bad_request("bad_condition", "what is not there cannot be deleted: leave If-None-Match out")
        return NOT_THERE
    if matching is None:
        return None
    if matching == "*":
        return THERE
    found = _ETAG.fullmatch(matching)
    if found is None or int(found[1]) > MAX_REVISION:
        raise bad_request("bad_condition", 'If-Match is * or one ETag as this store gives it, such as "12"')
    return int(found[1])


def unmatched(demanded: int | None, result: Unmatched, place: Headers) -> HttpError:
    """Return the error for a condition that did not hold (412): with the ``ETag`` of what is there, if anything is."""
    there = result.modify_revision
    if there == NOT_THERE:
        return HttpError(412, "unmatched", "there is no such key", headers=place, details={"current_revision": None})
    message = f"the key is there, at revision {there}" + ("" if demanded == NOT_THERE else f", not {demanded}")
    return HttpError(412, "unmatched", message, headers=(etag(there), *place), details={"current_revision": there})
