"""What a node's process asks of the operating system: to be told to stop, many files, and free places to listen at."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import signal
import socket

from raftkv.config.values import Endpoint
from raftkv.exit_status import EXIT_UNFINISHED
from raftkv.process.fail_stop import FailStop
from raftkv.process.supervisor import SupervisorPipe

logger = logging.getLogger("raftkv.node")


class StartError(Exception):
    """The node cannot start; the text is one line for people."""


def listen_for_stop(supervisor: SupervisorPipe, fail_stop: FailStop) -> asyncio.Event:
    """Return what is set on the first SIGTERM or SIGINT, or when the parent is gone; a second signal ends at once."""
    loop = asyncio.get_running_loop()
    told = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if told.is_set():
            fail_stop.fail(EXIT_UNFINISHED, f"stopped at once, on a second {number.name}")
        logger.info("stopping on %s", number.name)
        told.set()

    def on_parent(descriptor: int) -> None:
        if supervisor.is_gone():
            loop.remove_reader(descriptor)
            logger.info("stopping, because the process that started this one has gone")
            told.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    descriptor = supervisor.fileno()
    if descriptor is not None:
        loop.add_reader(descriptor, on_parent, descriptor)
    return told


def allow_many_files() -> None:
    """Use all the file descriptors we may have: each client's connection takes one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Where there is no hard limit, some systems refuse to have no soft one.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (65536 if hard == resource.RLIM_INFINITY else hard, hard))


def check_free(name: str, endpoint: Endpoint) -> None:
    """Raise ``StartError`` if we cannot listen at ``endpoint``, which the setting ``name`` gave."""
    try:
        found = socket.getaddrinfo(*endpoint, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in found:
            with socket.socket(family, kind, protocol) as trial:
                trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                trial.bind(address)
    except OSError as error:
        raise cannot_listen(name, endpoint, error) from None


def cannot_listen(name: str, endpoint: Endpoint, error: OSError) -> StartError:
    """Return what to say when listening at ``endpoint`` failed."""
    why = "another process listens there" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
    return StartError(f"cannot listen at {endpoint} (--{name}): {why}")
