"""Real processes of the project, for tests: started on free ports, waited for with a deadline, never left behind."""

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
"""How long anything may take on a machine that is busy with other things; nothing here is fast because of it."""

# Below the ports that the system gives to connections, which may come and go at any moment.
_ports = itertools.count(20_000 + os.getpid() % 8_000)
_reserved: list[socket.socket] = []

Found = TypeVar("Found")


def environment() -> dict[str, str]:
    """Return our environment without settings of nodes."""
    return {name: value for name, value in os.environ.items() if not name.startswith("RAFTKV_")}


def free_ports(count: int = 1) -> int:
    """Return the first of ``count`` ports in a row that nobody else has, nor will have as long as we run."""
    in_a_row = 0
    while in_a_row < count:
        port = next(_ports)
        assert port < 32_000, "no free ports"
        in_a_row = in_a_row + 1 if _reserve(port) else 0
    return port - count + 1


def _reserve(port: int) -> bool:
    """Bind a port without listening there, so that other tests on this machine do not take it, if none has."""
    reserving = socket.socket()
    try:
        reserving.bind(("127.0.0.1", port))
    except OSError:
        reserving.close()
        return False
    # Set only now: had it been set before, a port that others have reserved would have been given to us as well. From
    # here on whoever sets this too may listen on the port, as servers do.
    reserving.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _reserved.append(reserving)
    return True


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
        return self.wait_until(lambda: re.compile(pattern).search(self.text, after), repr(pattern))

    def wait_until(self, look: Callable[[], Found | None], what: str) -> Found:
        """Return what is found in what it says, as soon as there is something."""
        deadline = time.monotonic() + WITHIN_S
        while (found := look()) is None:
            if self.popen.poll() is not None or time.monotonic() > deadline:
                # What it said last may still be on its way, but no more will come.
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
    """Return status and decoded answer of a GET, or of a POST of ``body``, for a key; the node may take its time."""
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
