"""The Docker Engine: how it is reached, and its errors in words that say what to do."""

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

# Nothing takes so long unless the machine has far too much to do; then it is better late than half done.
ENGINE_TIMEOUT_S = 120
MOST_AT_ONCE = 8

Part = TypeVar("Part")
Result = TypeVar("Result")


class DeployError(Exception):
    """Something cannot be done; the text is for people and says what would help."""


class UsageError(DeployError):
    """What was asked for cannot be meant: a name or a value that makes no sense here."""


class PortTakenError(DeployError):
    """Somebody else on this machine listens where a node was to serve clients."""


def connect() -> Any:
    """Return the client of an engine that answers; raises ``DeployError``. DOCKER_HOST says which engine."""
    try:
        try_socket(place())
        client = docker.from_env(timeout=ENGINE_TIMEOUT_S)
    except (DockerException, requests.RequestException, OSError, ValueError) as error:
        raise DeployError(no_engine(str(error))) from None
    return client


def place() -> str:
    """Return where the engine is expected."""
    return os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


def try_socket(where: str) -> None:
    """Raise ``OSError`` if nobody listens at a local socket; the library would leave its own open."""
    if where.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as trial:
            trial.connect(where.removeprefix("unix://"))


def no_engine(why: str) -> str:
    """Return what to say when no engine answers, and ``why`` was what came instead."""
    if "Permission" in why:
        return f"the Docker Engine at {place()} does not let this user in; join the group docker, or use sudo"
    if "No such file" in why or "refused" in why:
        return (
            f"no Docker Engine answers at {place()}; install and start one (on Linux: systemctl start docker), "
            "or let DOCKER_HOST say where one is"
        )
    return f"no Docker Engine answers at {place()}: {brief(why)}"


@contextlib.contextmanager
def explained() -> Iterator[None]:
    """Turn the engine's errors into ``DeployError``."""
    try:
        yield
    except APIError as error:
        raise as_error(str(error.explanation or error)) from None
    except requests.ReadTimeout:
        raise DeployError(
            f"the Docker Engine at {place()} has not answered for {ENGINE_TIMEOUT_S} s; it may have too much to do, "
            "and may still do what it was asked for"
        ) from None
    except requests.RequestException as error:
        raise DeployError(no_engine(str(error))) from None
    except DockerException as error:
        raise DeployError(brief(str(error))) from None


PORT_TAKEN = re.compile(r"port is already allocated|address already in use|ports are not available", re.I)
NAME_TAKEN = re.compile(r"(container) name \"/?([^\"]+)\" is already in use|(network) with name (\S+) already exists")


def as_error(explanation: str) -> DeployError:
    """Return what to raise for an error of the engine."""
    kind = PortTakenError if PORT_TAKEN.search(explanation) else DeployError
    return kind(in_words(explanation))


def in_words(explanation: str) -> str:
    """Return what an error of the engine means, and what would help, where we know."""
    if taken := NAME_TAKEN.search(explanation):
        return name_taken(taken[1] or taken[3], taken[2] or taken[4])
    if PORT_TAKEN.search(explanation):
        found = re.search(r":(\d+)(?:: bind|: listen| failed|/tcp| ->|:)", explanation)
        port = f"port {found[1]}" if found else "one of the ports"
        return (
            f"{port} of this machine is taken: does another cluster run (`make run`, `make docker`, "
            "another --name)? Choose other ports with --base-port"
        )
    if re.search(r"no space left on device", explanation):
        return "the disk of the Docker Engine is full; `docker system df` shows by what"
    if re.search(r"could not find an available.* address pool", explanation):
        return "the Docker Engine has no addresses left for another network; `docker network prune` removes unused ones"
    return f"the Docker Engine says: {brief(explanation)}"


def name_taken(kind: str, name: str) -> str:
    """Return what to say of a container, network or volume that is in the way."""
    return (
        f"there is a {kind} {name} already that is no part of this cluster, and stays as it is: remove it yourself, or "
        "give the cluster another --name"
    )


def brief(text: str) -> str:
    """Return a text as one line."""
    return " ".join(text.split())


def in_parallel(work: Callable[[Part], Result], parts: Iterable[Part]) -> list[Result]:
    """Do ``work`` for all parts and return the results in order; raises the first error, after all are done.

    It is done at once, but for so many parts at most: an engine that gets more answers some of them too late.

    The work is done in other threads, which Ctrl-C does not reach, and is waited for even then: a request to the engine
    that was given up could make something later, when nobody looks for it any more.
    """
    parts = list(parts)
    if not parts:
        return []
    with interrupted_later(), ThreadPoolExecutor(min(len(parts), MOST_AT_ONCE)) as pool:
        futures = [pool.submit(work, part) for part in parts]
    return [future.result() for future in futures]
