"""A shell, or any command, in a node's container, with the terminal that we have."""

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
        raise DeployError("a shell needs an input and an output; `</dev/null` is one that is empty")
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    with explained():
        made = client.api.exec_create(
            container, list(command), stdin=True, tty=interactive, environment={"TERM": os.environ.get("TERM", "dumb")}
        )["Id"]
        stream = client.api.exec_start(made, socket=True, tty=interactive)
        connection: socket.socket = stream._sock
        with raw_terminal(client, made) if interactive else contextlib.nullcontext():
            pump(connection, sys.stdin.fileno(), sys.stdout.fileno(), framed=not interactive)
        # An engine that has much to do closes the connection before it knows how the command ended.
        wait_for(lambda: not client.api.exec_inspect(made)["Running"], lambda: "the command does not end")
        status: int = client.api.exec_inspect(made)["ExitCode"]
    return status


@contextlib.contextmanager
def raw_terminal(client: Any, execution: str) -> Iterator[None]:
    """Let every key go through as it is, and the other side know the size of the terminal."""

    def resize(*_: object) -> None:
        size = shutil.get_terminal_size()
        # The command may have ended already.
        with contextlib.suppress(APIError):
            client.api.exec_resize(execution, height=size.lines, width=size.columns)

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    handler = signal.signal(signal.SIGWINCH, resize)
    try:
        # What was typed already is meant for the shell.
        tty.setraw(terminal, termios.TCSADRAIN)
        resize()
        yield
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)
        signal.signal(signal.SIGWINCH, handler)


def pump(connection: socket.socket, source: int, target: int, *, framed: bool) -> None:
    """Carry bytes both ways until the other side ends; without a terminal its output comes in frames."""
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
    """Write all of ``data``; nothing is left of it."""
    while data:
        data = data[os.write(target, data) :]
    return data


def unframed(data: bytes, target: int) -> bytes:
    """Write what is in whole frames, to where it belongs, and return the rest."""
    while len(data) >= 8 and len(data) >= 8 + (length := int.from_bytes(data[4:8])):
        write_all(2 if data[0] == 2 else target, data[8 : 8 + length])
        data = data[8 + length :]
    return data
