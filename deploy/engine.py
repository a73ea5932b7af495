"""The connection to the Docker Engine, and its errors as messages that say what helps."""

from __future__ import annotations

import contextlib
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import docker
import requests
from docker.errors import APIError, DockerException

from deploy.interrupts import interrupted_later

# Only an overloaded machine takes this long; then waiting is better than giving up halfway.
ENGINE_TIMEOUT_S = 120
MOST_AT_ONCE = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


class DeployError(Exception):
    """An operation failed; the text is for the user and says what helps."""


class UsageError(DeployError):
    """The request itself is invalid: it has a name or a value that cannot work here."""


class PortTakenError(DeployError):
    """Another process on this machine listens on the port of a node."""


def connect() -> Any:
    """Return a client of the engine that DOCKER_HOST names; raises ``DeployError`` if it does not answer."""
    try:
        try_socket(endpoint())
        client = docker.from_env(timeout=ENGINE_TIMEOUT_S)
    except (DockerException, requests.RequestException, OSError, ValueError) as error:
        raise DeployError(no_engine(str(error))) from None
    return client


def endpoint() -> str:
    """Return the URL of the engine."""
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def try_socket(url: str) -> None:
    """Raise ``OSError`` if ``url`` is a Unix socket without a listener; the library would leak its own socket."""
    if url.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as trial:
            trial.connect(url.removeprefix("unix://"))


def no_engine(why: str) -> str:
    """Return the message for an engine that does not answer; ``why`` is the error."""
    if "Permission" in why:
        return f"the Docker Engine at {endpoint()} denies access to this user; join the group docker, or use sudo"
    if "No such file" in why or "refused" in why:
        return (
            f"no Docker Engine answers at {endpoint()}; install and start one (on Linux: systemctl start docker), "
            "or set DOCKER_HOST to the URL of one"
        )
    return f"no Docker Engine answers at {endpoint()}: {brief(why)}"


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn the engine's errors into ``DeployError``."""
    try:
        yield
    except APIError as error:
        raise as_error(str(error.explanation or error)) from None
    except requests.ReadTimeout:
        raise DeployError(
            f"the Docker Engine at {endpoint()} has not answered for {ENGINE_TIMEOUT_S} s; it may be overloaded, and "
            "may still carry out the request"
        ) from None
    except requests.RequestException as error:
        raise DeployError(no_engine(str(error))) from None
    except DockerException as error:
        raise DeployError(brief(str(error))) from None


PORT_TAKEN = re.compile(r"port is already allocated|address already in use|ports are not available", re.I)
NAME_TAKEN = re.compile(r"(container) name \"/?([^\"]+)\" is already in use|(network) with name (\S+) already exists")


def as_error(explanation: str) -> DeployError:
    """Return the exception for an error of the engine."""
    kind = PortTakenError if PORT_TAKEN.search(explanation) else DeployError
    return kind(explain(explanation))


def explain(explanation: str) -> str:
    """Return the message for an error of the engine, with a remedy where one is known."""
    if taken := NAME_TAKEN.search(explanation):
        return name_taken(taken[1] or taken[3], taken[2] or taken[4])
    if PORT_TAKEN.search(explanation):
        found = re.search(r":(\d+)(?:: bind|: listen| failed|/tcp| ->|:)", explanation)
        port = f"port {found[1]}" if found else "one of the ports"
        return (
            f"{port} of this machine is in use: does another cluster run (`make run`, `make docker`, "
            "another --name)? Choose other ports with --base-port"
        )
    if re.search(r"no space left on device", explanation):
        return "the disk of the Docker Engine is full; `docker system df` shows what uses it"
    if re.search(r"could not find an available.* address pool", explanation):
        return "the Docker Engine has no addresses left for a network; `docker network prune` removes unused networks"
    return f"the Docker Engine reports: {brief(explanation)}"


def name_taken(kind: str, name: str) -> str:
    """Return the message for a container, network or volume that has a name we need."""
    return (
        f"a {kind} named {name} exists and does not belong to this cluster: remove it yourself, or give the cluster "
        "another --name"
    )


def brief(text: str) -> str:
    """Return a text on one line."""
    return " ".join(text.split())


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """Call ``work`` for each item in threads, return the results in order, and raise the first error.

    At most ``MOST_AT_ONCE`` calls run at a time: an engine with more requests answers some of them too late.

    Returns or raises only when all calls have ended, even on Ctrl-C, which reaches the main thread only: an abandoned
    request could still create something after the clean-up.
    """
    items = list(items)
    if not items:
        return []
    with interrupted_later(), ThreadPoolExecutor(min(len(items), MOST_AT_ONCE)) as pool:
        futures = [pool.submit(work, item) for item in items]
    return [future.result() for future in futures]
