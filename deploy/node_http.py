"""HTTP requests to one node, through its published port, as any client sends them."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from deploy.engine import DeployError

HOST = "127.0.0.1"
"""The address on which the nodes' ports are published."""

STATUS_TIMEOUT_S = 1.0
REQUEST_TIMEOUT_S = 10.0


class NodeAnswer(NamedTuple):
    """The answer of a node; ``body`` is decoded JSON."""

    status: int
    body: Any


def ask(port: int, method: str, path: str, body: object = None, timeout_s: float = REQUEST_TIMEOUT_S) -> NodeAnswer:
    """Send one request on a new connection; raises ``OSError``, ``HTTPException`` or ``ValueError``."""
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout_s)
    with contextlib.closing(connection):
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        return NodeAnswer(answer.status, json.loads(answer.read()))


def try_get(port: int, path: str, timeout_s: float = STATUS_TIMEOUT_S) -> NodeAnswer | None:
    """Return the answer to a GET, or None if the node does not answer."""
    try:
        return ask(port, "GET", path, timeout_s=timeout_s)
    except (OSError, http.client.HTTPException, ValueError):
        return None


def key_path(key: str) -> str:
    """Return the path of a key."""
    return f"/keys/{quote(key, safe='')}/"


def require_success(node_id: str, send: Callable[[], NodeAnswer], also: Sequence[int] = ()) -> NodeAnswer:
    """Return the answer if its status is 200 or in ``also``; raises ``DeployError`` with the node's error message."""
    try:
        answer = send()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DeployError(f"{node_id} does not answer: {error}") from None
    if answer.status != 200 and answer.status not in also:
        raise DeployError(f"{node_id} answers {answer.status}: {error_message(answer)}")
    return answer


def error_message(answer: NodeAnswer) -> str:
    """Return the message of a node's error answer, or quote the body if it is not one."""
    try:
        return str(answer.body["error"]["message"])
    except (KeyError, TypeError):
        return f"{answer.body!r:.100}, which is not an answer of a node"
