"""A server that answers as it is told, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import re
import socketserver
import threading
from collections.abc import Callable, Iterator

CLOSE = b""
ANSWER_HEAD = b"HTTP/1.1 %d Whatever\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_LENGTH = re.compile(rb"Content-Length: (\d+)")


def answer(status: int, body: bytes) -> bytes:
    """Return a whole answer."""
    return ANSWER_HEAD % (status, len(body)) + body


def right_answer(request: bytes) -> bytes:
    """Return what a node answers to a write: the body again, and a newline."""
    return answer(200, request.partition(b"\r\n\r\n")[2] + b"\n")


class FakeServer:
    """Its ``script`` gets the number of a request, from 0 on, and the request.

    It returns the pieces of the answer. No pieces are no answer, and ``CLOSE`` among them closes the connection.
    """

    def __init__(self, script: Callable[[int, bytes], list[bytes]]) -> None:
        self.script = script
        self.requests: list[bytes] = []
        self.connections = 0
        self.lock = threading.Lock()
        self.target = ""

    def serve(self, connection: socketserver.StreamRequestHandler) -> None:
        """Answer the requests of one connection until it ends."""
        with self.lock:
            self.connections += 1
        while request := read_request(connection):
            with self.lock:
                number = len(self.requests)
                self.requests.append(request)
            for piece in self.script(number, request):
                if piece == CLOSE:
                    return
                connection.wfile.write(piece)


def read_request(connection: socketserver.StreamRequestHandler) -> bytes:
    """Return the next request, or nothing at the end."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = connection.rfile.readline()
        if not line:
            return b""
        head += line
    length = _LENGTH.search(head)
    return head + connection.rfile.read(int(length[1])) if length else head


@contextlib.contextmanager
def serving(script: Callable[[int, bytes], list[bytes]]) -> Iterator[FakeServer]:
    """Run a server at a port of its own."""
    fake = FakeServer(script)

    class Handler(socketserver.StreamRequestHandler):
        disable_nagle_algorithm = True

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):
                fake.serve(self)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        fake.target = f"127.0.0.1:{server.server_address[1]}"
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
