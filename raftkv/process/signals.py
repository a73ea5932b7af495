"""What a node needs of the operating system: stop signals, file descriptors and free ports."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import resource
import signal
import socket

from raftkv.config.values import HostPort
from raftkv.exit_status import EXIT_UNFINISHED
from raftkv.process.fail_stop import FailStop
from raftkv.process.supervisor import SupervisorPipe

logger = logging.getLogger("raftkv.node")


class StartError(Exception):
    """The node cannot start; the text is one line for the user."""


def listen_for_stop(supervisor: SupervisorPipe, fail_stop: FailStop) -> asyncio.Event:
    """Return an event that the first SIGTERM or SIGINT sets, and so does the end of the supervisor.

    A second signal ends the process at once.
    """
    loop = asyncio.get_running_loop()
    stop_requested = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if stop_requested.is_set():
            fail_stop.fail(EXIT_UNFINISHED, f"stopped at once on a second {number.name}")
        logger.info("stopping on %s", number.name)
        stop_requested.set()

    def on_supervisor(descriptor: int) -> None:
        if supervisor.is_gone():
            loop.remove_reader(descriptor)
            logger.info("stopping, because the process that started this node has ended")
            stop_requested.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    descriptor = supervisor.fileno()
    if descriptor is not None:
        loop.add_reader(descriptor, on_supervisor, descriptor)
    return stop_requested


def allow_many_files() -> None:
    """Raise the limit of open files as far as allowed: each connection needs one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Without a hard limit, some systems still refuse an unlimited soft one.
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (65536 if hard == resource.RLIM_INFINITY else hard, hard))


def check_free(name: str, endpoint: HostPort) -> None:
    """Raise ``StartError`` if this process cannot listen at ``endpoint``, the value of the setting ``name``."""
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


def cannot_listen(name: str, endpoint: HostPort, error: OSError) -> StartError:
    """Return the error for a failure to listen at ``endpoint``."""
    why = "another process listens there" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
    return StartError(f"cannot listen at {endpoint} (--{name}): {why}")
