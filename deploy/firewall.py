"""Drop packets between this network namespace and others, by rules of the kernel's nf_tables.

Run inside a node's container, as ``python -c SOURCE '{"port": 5001, "drops": [["172.18.0.3", "in", 1.0]]}'``: the
image has Python but no tool that sets such rules, so this speaks to the kernel itself. It needs nothing but the
standard library and the right to administer the network, and it replaces all rules that it made before, at once.

A drop is (address, direction, probability). Nodes send on connections that they opened themselves, so a direction is
one of the two connections between a pair: ``in`` is the one on which the other sends to us, ``out`` the one on which
we send to it. Of a connection that is cut, packets of both directions are dropped: not even an acknowledgement comes
through.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
from collections.abc import Iterable, Iterator

TABLE = "raftkv"
NFTABLES = 10
BEGIN, END = 16, 17
NEW_TABLE, DELETE_TABLE, NEW_CHAIN, NEW_RULE = (NFTABLES << 8 | number for number in (0, 2, 3, 6))
REQUEST, ACKNOWLEDGE, CREATE, APPEND = 0x1, 0x4, 0x400, 0x800
ERROR = 2
FAMILY_NONE, FAMILY_IPV4 = 0, 2
NETFILTER = 12
HOOKS = {"input": 1, "output": 3}
NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
SOURCE, DESTINATION = 12, 16
SOURCE_PORT, DESTINATION_PORT = 0, 2
EQUAL, LESS = 0, 2
REGISTER = 1
# Probabilities are compared as whole numbers below this.
PARTS = 1_000_000

Drop = tuple[str, str, float]


def attribute(number: int, value: bytes) -> bytes:
    """Return a netlink attribute, padded to four bytes."""
    return struct.pack("=HH", 4 + len(value), number) + value + b"\0" * (-len(value) % 4)


def nested(number: int, *attributes: bytes) -> bytes:
    """Return an attribute that consists of attributes."""
    return attribute(number | 0x8000, b"".join(attributes))


def text(number: int, value: str) -> bytes:
    """Return an attribute that is a name."""
    return attribute(number, value.encode() + b"\0")


def number32(number: int, value: int) -> bytes:
    """Return an attribute that is a number."""
    return attribute(number, struct.pack(">i", value))


def expression(name: str, *attributes: bytes) -> bytes:
    """Return one step of a rule."""
    return nested(1, text(1, name), nested(2, *attributes))


def compare(operation: int, value: bytes) -> bytes:
    """Return the step that goes on only if the register is equal to, or less than, this."""
    return expression("cmp", number32(1, REGISTER), number32(2, operation), nested(3, attribute(1, value)))


def has(header: int, offset: int, value: bytes) -> bytes:
    """Return the steps that go on only if the packet has ``value`` there."""
    where = (number32(2, header), number32(3, offset), number32(4, len(value)))
    return expression("payload", number32(1, REGISTER), *where) + compare(EQUAL, value)


def by_chance(probability: float) -> bytes:
    """Return the steps that go on with this probability."""
    draw = expression("numgen", number32(1, REGISTER), number32(2, PARTS), number32(3, 1), number32(4, 0))
    # The number drawn is in the order of bytes of this machine, and is compared byte by byte.
    turn = [number32(1, REGISTER), number32(2, REGISTER), number32(3, 1), number32(4, 4), number32(5, 4)]
    return draw + expression("byteorder", *turn) + compare(LESS, struct.pack(">I", round(probability * PARTS)))


def drop() -> bytes:
    """Return the step that drops the packet."""
    return expression("immediate", number32(1, 0), nested(2, nested(2, number32(1, 0))))


def rule(chain: str, address: bytes, address_at: int, port: bytes, port_at: int, probability: float) -> bytes:
    """Return the rule that drops packets of one connection in one direction."""
    steps = has(NETWORK_HEADER, address_at, address) + has(TRANSPORT_HEADER, port_at, port)
    chance = b"" if probability >= 1 else by_chance(probability)
    return text(1, TABLE) + text(2, chain) + nested(4, steps, chance, drop())


def rules(port: int, drops: Iterable[Drop]) -> Iterator[bytes]:
    """Return all rules: two for each drop, what comes and what goes."""
    port_bytes = struct.pack(">H", port)
    for host, direction, probability in drops:
        address = socket.inet_aton(host)
        # Who opened the connection is where the port that all listen on is the destination.
        coming, going = (DESTINATION_PORT, SOURCE_PORT) if direction == "in" else (SOURCE_PORT, DESTINATION_PORT)
        yield rule("input", address, SOURCE, port_bytes, coming, probability)
        yield rule("output", address, DESTINATION, port_bytes, going, probability)


def messages(port: int, drops: Iterable[Drop]) -> Iterator[tuple[int, int, bytes]]:
    """Return what to tell the kernel, as type, flags and attributes; it does all of it or nothing."""
    # What cannot be deleted because it is not there would spoil everything, so it is made first.
    yield NEW_TABLE, CREATE, text(1, TABLE)
    yield DELETE_TABLE, 0, text(1, TABLE)
    yield NEW_TABLE, CREATE, text(1, TABLE)
    for name, hook in HOOKS.items():
        where = nested(4, number32(1, hook), number32(2, 0))
        yield NEW_CHAIN, CREATE, text(1, TABLE) + text(3, name) + where + text(7, "filter")
    for each in rules(port, drops):
        yield NEW_RULE, CREATE | APPEND, each


def batch(port: int, drops: Iterable[Drop]) -> tuple[bytes, int]:
    """Return the bytes of all messages, and how many of them will be answered."""
    framed = list(messages(port, drops))
    told = [message(BEGIN, REQUEST, 0, FAMILY_NONE, NFTABLES, b"")]
    for sequence, (kind, flags, attributes) in enumerate(framed, 1):
        told.append(message(kind, REQUEST | ACKNOWLEDGE | flags, sequence, FAMILY_IPV4, 0, attributes))
    told.append(message(END, REQUEST, len(framed) + 1, FAMILY_NONE, NFTABLES, b""))
    return b"".join(told), len(framed)


def message(kind: int, flags: int, sequence: int, family: int, resource: int, attributes: bytes) -> bytes:
    """Return a netlink message for the packet filter."""
    body = struct.pack(">BBH", family, 0, resource) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def tell_kernel(data: bytes, answers: int) -> None:
    """Send a batch and raise ``OSError`` unless all of it was done."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER) as kernel:
        kernel.settimeout(10)
        kernel.bind((0, 0))
        kernel.send(data)
        while answers:
            received = kernel.recv(1 << 16)
            while received:
                length, kind = struct.unpack_from("=IH", received)
                if kind == ERROR:
                    number = -struct.unpack_from("=i", received, 16)[0]
                    if number:
                        raise OSError(number, os.strerror(number))
                    answers -= 1
                received = received[(length + 3) & ~3 :]


def main() -> int:
    """Set the rules that the argument describes."""
    asked = json.loads(sys.argv[1])
    try:
        tell_kernel(*batch(asked["port"], [tuple(each) for each in asked["drops"]]))
    except OSError as error:
        sys.stderr.write(f"the kernel does not take the rules: {error.strerror or error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
