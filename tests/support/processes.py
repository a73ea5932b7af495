"""Real processes of the project, for tests: on free ports, with a deadline, and none outlives its test."""

from __future__ import annotations

import contextlib
import itertools
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
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parent.parent.parent
WITHIN_S = 45.0
"""Deadline for anything, long enough for a busy machine; no test waits that long when all is well."""

# Below the range from which the system takes ports for outgoing connections.
_ports = itertools.count(20_000 + os.getpid() % 8_000)
_reserved: list[socket.socket] = []

Found = TypeVar("Found")


def environment() -> dict[str, str]:
    """Return the environment of this process without RAFTKV_… variables."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAFTKV_")}


def free_ports(count: int = 1) -> int:
    """Return the first of ``count`` consecutive ports that are free and stay reserved until this process ends."""
    in_a_row = 0
    while in_a_row < count:
        port = next(_ports)
        assert port < 32_000, "no free ports"
        in_a_row = in_a_row + 1 if _reserve(port) else 0
    return port - count + 1


def _reserve(port: int) -> bool:
    """Bind a port without listening, so that no other test on this machine takes it; return whether it was free."""
    reserving = socket.socket()
    try:
        reserving.bind(("127.0.0.1", port))
    except OSError:
        reserving.close()
        return False
    # Set only after binding: set before, it would let this process bind a port that another test has reserved. From
    # here on another socket with this option, as servers have it, may listen on the port.
    reserving.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _reserved.append(reserving)
    return True


class Process:
    """A running `raftkv` command; its output is collected."""

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
        """Its output so far."""
        return self._text.decode()

    def _read(self) -> None:
        assert self.popen.stdout is not None
        while data := os.read(self.popen.stdout.fileno(), 1 << 16):
            self._text += data

    def wait_for(self, pattern: str, after: int = 0) -> re.Match[str]:
        """Wait for ``pattern`` in the output, from character ``after`` on, and return the match."""
        return self.wait_until(lambda: re.compile(pattern).search(self.text, after), repr(pattern))

    def wait_until(self, look: Callable[[], Found | None], what: str) -> Found:
        """Poll until ``look`` finds something, and return it; fails when the process has ended without it."""
        deadline = time.monotonic() + WITHIN_S
        while (found := look()) is None:
            if self.popen.poll() is not None or time.monotonic() > deadline:
                # The last output may not have been read yet, but no more will come.
                self._reader.join(WITHIN_S if self.popen.poll() is not None else 0)
                found = look()
                assert found is not None, f"no {what} in: {self.text}"
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
        """Kill the process if it still runs, and release its output."""
        if self.popen.poll() is None:
            self.popen.kill()
        self.wait()
        assert self.popen.stdout is not None
        self.popen.stdout.close()


@contextlib.contextmanager
def process(
    *arguments: str, descriptor: int | None = None, variables: Mapping[str, str] | None = None
) -> Iterator[Process]:
    """Run a `raftkv` command, and kill it at the end if it still runs."""
    running = Process(*arguments, descriptor=descriptor, variables=variables)
    try:
        yield running
    finally:
        running.close()


def request(port: int, path: str, body: object = None) -> tuple[int, object]:
    """Send a GET for a key, or a POST of ``body``, with a long timeout; return the status and the decoded body."""
    url = f"http://127.0.0.1:{port}{path}?timeout={WITHIN_S:g}"
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(url, data, 2 * WITHIN_S) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


@contextlib.contextmanager
def full_pipe() -> Iterator[int]:
    """Yield the writing end of a pipe that is full and has no active reader."""
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
