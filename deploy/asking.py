"""Asking a node over HTTP, as any client does."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from deploy.engine import DeployError

HOST = "127.0.0.1"
"""Where the nodes' ports are published."""

STATUS_TIMEOUT_S = 1.0
REQUEST_TIMEOUT_S = 10.0


class Answer(NamedTuple):
    """What a node answered; ``body`` is decoded JSON."""

    status: int
    body: Any


def ask(port: int, method: str, path: str, body: object = None, timeout_s: float = REQUEST_TIMEOUT_S) -> Answer:
    """Do one request on a connection of its own; raises ``OSError``, ``HTTPException`` or ``ValueError``."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    with contextlib.closing(connection):
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        return Answer(answer.status, json.loads(answer.read()))


def ask_if_there(port: int, path: str, timeout_s: float = STATUS_TIMEOUT_S) -> Answer | None:
    """Return what a node answers to a GET, or None if it does not."""
    try:
        return ask(port, "GET", path, timeout_s=timeout_s)
    except (OSError, http.client.HTTPException, ValueError):
        return None


def key_path(key: str) -> str:
    """Return the path of a key."""
    return f"/keys/{quote(key, safe='')}/"


def must_be_done(node_id: str, do: Callable[[], Answer], also: Sequence[int] = ()) -> Answer:
    """Return an answer with status 200, or one of ``also``; raises ``DeployError`` with what the node said instead."""
    try:
        answer = do()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DeployError(f"{node_id} does not answer: {error}") from None
    if answer.status != 200 and answer.status not in also:
        raise DeployError(f"{node_id} answers {answer.status}: {complaint(answer)}")
    return answer


def complaint(answer: Answer) -> str:
    """Return what a node says that cannot do something, or whatever else it was that answered."""
    try:
        return str(answer.body["error"]["message"])
    except (KeyError, TypeError):
        return f"{answer.body!r:.100}, which no node says"
