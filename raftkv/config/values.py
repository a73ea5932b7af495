"""The notation of settings: addresses, ids, sizes, numbers.

Each parser raises ``ValueError`` with what is wrong and what would be right.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import NamedTuple

from raftkv.raft.names import NAME_LENGTH


class HostPort(NamedTuple):
    """An address to listen at or to connect to."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return ``host:port``, with brackets round an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_wildcard(self) -> bool:
        """Whether this means every interface of the machine, to which no peer can connect."""
        return self.host in ("0.0.0.0", "::")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


_ENDPOINT = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[\w.-]+)):(?P<port>[0-9]{1,5})", re.ASCII)


def parse_host_port(text: str) -> HostPort:
    """Parse ``host:port``; port 0 lets the system choose one."""
    match = _ENDPOINT.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:4001 or [::1]:4001")
    return HostPort(match["six"] or match["host"], int(match["port"]))


def parse_fixed_port(text: str) -> HostPort:
    """Parse a ``host:port`` whose port other nodes must know."""
    endpoint = parse_host_port(text)
    if endpoint.port == 0:
        raise ValueError(f"{text!r} has port 0, but the other nodes must know the port; give one from 1 to 65535")
    return endpoint


def parse_reachable(text: str) -> HostPort:
    """Parse a ``host:port`` to which others connect."""
    endpoint = parse_fixed_port(text)
    if endpoint.is_wildcard:
        raise ValueError(f"{text!r} means every interface; give an address that others can connect to")
    return endpoint


def parse_cluster(text: str) -> tuple[tuple[str, HostPort], ...]:
    """Parse ``n1=host:port,n2=host:port,…``: the nodes in the order of their ids."""
    nodes: dict[str, HostPort] = {}
    example = "give all nodes, such as n1=127.0.0.1:5001,n2=127.0.0.1:5002"
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, address = part.partition("=")
        if not equals:
            raise ValueError(f"{part!r} is not ID=HOST:PORT; {example}")
        endpoint = parse_reachable(address)
        if parse_name(name) in nodes:
            raise ValueError(f"{name} is listed twice; each node needs its own id")
        twin = next((other for other, taken in nodes.items() if taken == endpoint), None)
        if twin is not None:
            raise ValueError(f"{twin} and {name} have the same address {endpoint}; each node needs its own")
        nodes[name] = endpoint
    if not nodes:
        raise ValueError(f"the list is empty; {example}")
    return tuple(sorted(nodes.items()))


def parse_name(text: str) -> str:
    """Parse the id of a node."""
    if len(text) > NAME_LENGTH or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) is None:
        raise ValueError(
            f"{text!r} is not a node id; use up to {NAME_LENGTH} letters, digits, dots, dashes and underscores, "
            "such as n1"
        )
    return text


def parse_path(text: str) -> str:
    """Parse a path."""
    if not text or "\0" in text:
        raise ValueError("the path is empty" if not text else "a path cannot contain a zero byte")
    return text


_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


def parse_size(low: int, high: int) -> Callable[[str], int]:
    """Return the parser of a number of bytes from ``low`` to ``high``, with or without a unit."""

    def parse(text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,15}) ?([A-Za-z]*)", text)
        if match is None or match[2].lower() not in _UNITS:
            raise ValueError(f"{text!r} is not a size; give a whole number of bytes, KiB, MiB or GiB, such as 64KiB")
        size = int(match[1]) * _UNITS[match[2].lower()]
        if not low <= size <= high:
            raise ValueError(f"{text!r} is out of range; give {format_size(low)} to {format_size(high)}")
        return size

    return parse


def format_size(size: int) -> str:
    """Return a number of bytes as ``parse_size`` reads it, in the largest unit that divides it."""
    for name, unit in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size and size % unit == 0:
            return f"{size // unit}{name}"
    return str(size)


def parse_count(low: int, high: int) -> Callable[[str], int]:
    """Return the parser of a whole number from ``low`` to ``high``."""

    def parse(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,15}", text) is None or not low <= int(text) <= high:
            raise ValueError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return parse


def parse_number(low: float, high: float) -> Callable[[str], float]:
    """Return the parser of a number from ``low`` to ``high``."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise ValueError(f"{text!r} is not a number from {low:.15g} to {high:.15g}")
        return number

    return parse


def parse_choice(*choices: str) -> Callable[[str], str]:
    """Return the parser of one of ``choices``."""

    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"{text!r} is not one of {', '.join(choices)}")
        return text.lower()

    return parse
