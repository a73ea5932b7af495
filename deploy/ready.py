"""The container's health check: exit with 0 if the node answers ``/readyz`` with 200.

Every container runs it every few seconds, so it imports very little: importing the standard library's HTTP client
alone would take several times as long as the request.
"""

from __future__ import annotations

import os
import socket
import sys

TIMEOUT_S = 2.5
DEFAULT = "127.0.0.1:4001"


def address(text: str) -> tuple[str, int]:
    """Return the address to connect to for a node that listens at ``host:port``; loopback for all interfaces."""
    host, _, port = text.rpartition(":")
    host = host.strip("[]")
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), int(port)


def answer(place: tuple[str, int]) -> bytes:
    """Return the node's answer, head and body; raises ``OSError``."""
    with socket.create_connection(place, TIMEOUT_S) as connection:
        connection.sendall(b"GET /readyz?verbose HTTP/1.1\r\nHost: ready\r\nConnection: close\r\n\r\n")
        parts = []
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def main() -> int:
    """Send the request, print the answer's body, and return the exit status."""
    try:
        received = answer(address(os.environ.get("RAFTKV_HTTP") or DEFAULT))
    except OSError as error:
        sys.stdout.write(f"no answer: {error}\n")
        return 1
    head, _, body = received.partition(b"\r\n\r\n")
    sys.stdout.write(body.decode("utf-8", "replace") + "\n")
    return 0 if head.split(b" ", 2)[1:2] == [b"200"] else 1


if __name__ == "__main__":
    sys.exit(main())
