"""The container's health check: exit with 0 if the node beside us says at ``/readyz`` that it can serve.

Run in every container every few seconds, so it imports next to nothing: the standard library's HTTP client alone
would take several times as long as the question.
"""

from __future__ import annotations

import os
import socket
import sys

TIMEOUT_S = 2.5
DEFAULT = "127.0.0.1:4001"


def address(text: str) -> tuple[str, int]:
    """Return where to ask a node that listens at ``host:port``: on loopback, where it listens at every interface."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port)


def answer(place: tuple[str, int]) -> bytes:
    """Return what the node answers, head and body; raises ``OSError``."""
    with socket.create_connection(place, TIMEOUT_S) as connection:
        connection.sendall(b"GET /readyz?verbose HTTP/1.1\r\nHost: ready\r\nConnection: close\r\n\r\n")
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def main() -> int:
    """Ask, print what was answered, and return the exit status."""
    try:
        said = answer(address(os.environ.get("RAFTKV_HTTP") or DEFAULT))
    except OSError as error:
        sys.stdout.write(f"no answer: {error}\n")
        return 1
    head, _, body = said.partition(b"\r\n\r\n")
    sys.stdout.write(body.decode("utf-8", "replace") + "\n")
    return 0 if head.split(b" ", 2)[1:2] == [b"200"] else 1


if __name__ == "__main__":
    sys.exit(main())
