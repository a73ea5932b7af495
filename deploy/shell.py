"""Run a shell, or any command, in a node's container, connected to our terminal."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from typing import Any

from docker.errors import APIError

from deploy.engine import DeployError, explained
from deploy.waiting import wait_for

CHUNK = 65536


def run(client: Any, container: str, command: Sequence[str]) -> int:
    """Run a command in a container until it ends, and return its exit status."""
    if sys.stdin is None or sys.stdout is None:
        raise DeployError("standard input or output is closed; redirect it, for example from /dev/null")
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    with explained():
        made = client.api.exec_create(
            container, list(command), stdin=True, tty=interactive, environment={"TERM": os.environ.get("TERM", "dumb")}
        )["Id"]
        stream = client.api.exec_start(made, socket=True, tty=interactive)
        connection: socket.socket = stream._sock
        with raw_terminal(client, made) if interactive else contextlib.nullcontext():
            relay(connection, sys.stdin.fileno(), sys.stdout.fileno(), framed=not interactive)
        # A busy engine closes the connection before it has the exit status.
        wait_for(lambda: not client.api.exec_inspect(made)["Running"], lambda: "the command does not end")
        status: int = client.api.exec_inspect(made)["ExitCode"]
    return status


@contextlib.contextmanager
def raw_terminal(client: Any, execution: str) -> Iterator[None]:
    """Pass every key through unchanged, and keep the other terminal at the size of ours."""

    def resize(*_: object) -> None:
        size = shutil.get_terminal_size()
        # The command may have ended.
        with contextlib.suppress(APIError):
            client.api.exec_resize(execution, height=size.lines, width=size.columns)

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    handler = signal.signal(signal.SIGWINCH, resize)
    try:
        # TCSADRAIN keeps what was typed before: it is meant for the shell.
        tty.setraw(terminal, termios.TCSADRAIN)
        resize()
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, handler)


def relay(connection: socket.socket, source: int, target: int, *, framed: bool) -> None:
    """Copy bytes both ways until the other side ends; without a terminal the engine sends its output in frames."""
    waiting, sources = b"", [connection.fileno(), source]
    while True:
        ready, _, _ = select.select(sources, [], [])
        if source in ready:
            typed = os.read(source, CHUNK)
            if typed:
                connection.sendall(typed)
            else:
                sources.remove(source)
                connection.shutdown(socket.SHUT_WR)
        if connection.fileno() in ready:
            came = connection.recv(CHUNK)
            if not came:
                return
            waiting = unframed(waiting + came, target) if framed else write_all(target, came)


def write_all(target: int, data: bytes) -> bytes:
    """Write all of ``data``; return the empty rest."""
    while data:
        data = data[os.write(target, data) :]
    return data


def unframed(data: bytes, target: int) -> bytes:
    """Write the content of complete frames to ``target`` or, if it is stderr's, to 2; return the rest."""
    while len(data) >= 8 and len(data) >= 8 + (length := int.from_bytes(data[4:8])):
        write_all(2 if data[0] == 2 else target, data[8 : 8 + length])
        data = data[8 + length :]
    return data
