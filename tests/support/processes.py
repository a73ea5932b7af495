"""Real processes of the project, for tests: started on free ports, waited for with a deadline, never left behind."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
WITHIN_S = 20.0

# Below the ports that the system gives to connections, which may come and go at any moment.
_next_port = 20_000 + os.getpid() % 8_000


def environment() -> dict[str, str]:
    """Return our environment without settings of nodes."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAFTKV_")}


def free_ports(count: int = 1) -> int:
    """Return the first of ``count`` ports in a row that nobody listens on, and that were not returned before."""
    global _next_port
    while _next_port < 32_000:
        first, _next_port = _next_port, _next_port + count
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + count):
                stack.enter_context(socket.create_server(("127.0.0.1", port)))
            return first
    raise AssertionError("no free ports")


class Process:
    """A process with its output collected."""

    def __init__(
        self, *arguments: str, descriptor: int | None = None, variables: Mapping[str, str] | None = None
    ) -> None:
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "raftkv", *arguments],
            cwd=ROOT,
            env=environment() | dict(variables or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=() if descriptor is None else (descriptor,),
        )
        self._text = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        """What it has said so far."""
        return self._text.decode()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        while data := os.read(self.popen.stdout.fileno(), 1 << 16):
            self._text += data

    def wait_for(self, pattern: str, after: int = 0) -> re.Match[str]:
        """Return the first match of ``pattern`` in what it says from character ``after`` on."""
        deadline = time.monotonic() + WITHIN_S
        while (found := re.compile(pattern).search(self.text, after)) is None:
            if self.popen.poll() is not None or time.monotonic() > deadline:
                self._reader.join(1)
                found = re.compile(pattern).search(self.text, after)
                assert found, f"no {pattern!r} in: {self.text}"
                return found
            time.sleep(0.01)
        return found

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.popen.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Return the exit status, once it and its output have ended."""
        status = self.popen.wait(WITHIN_S)
        self._reader.join(WITHIN_S)
        return status

    def close(self) -> None:
        """Leave nothing behind."""
        if self.popen.poll() is None:
            self.popen.kill()
        self.wait()
        assert self.popen.stdout is not None
        self.popen.stdout.close()


@contextlib.contextmanager
def process(
    *arguments: str, descriptor: int | None = None, variables: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """Run the command line; killed at the end, if it has not ended by then."""
    running = Process(*arguments, descriptor=descriptor, variables=variables)
    try:
        yield running
    finally:
        running.close()


def request(port: int, path: str, body: object = None) -> tuple[int, object]:
    """Return status and decoded answer of a GET, or of a POST of ``body``."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", data, WITHIN_S) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


@contextlib.contextmanager
def full_pipe() -> Iterator[int]:
    """Give the end for writing of a pipe that is full and that nobody reads."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    try:
        yield writer
    finally:
        os.close(reader)
        os.close(writer)
