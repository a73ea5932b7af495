"""Drop packets between this network namespace and others, by rules in the kernel's nf_tables.

Runs in the network namespace of a node, as ``python -c SOURCE '{"port": 5001, "drops": [["172.18.0.3", "in", 1.0]]}'``.
The image has Python but no tool that sets such rules, so this sends the netlink messages itself. It needs the standard
library and CAP_NET_ADMIN, and replaces all its earlier rules in one transaction.

A drop is (address, direction, probability). Nodes send on connections that they opened, so a direction is one of the
two connections between a pair: on ``in`` the peer sends to us, on ``out`` we send to the peer. Packets of a connection
are dropped in both directions: not even an acknowledgement passes.
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
    """Return an attribute that contains attributes."""
    return attribute(number | 0x8000, b"".join(attributes))


def text(number: int, value: str) -> bytes:
    """Return an attribute with a string."""
    return attribute(number, value.encode() + b"\0")


def number32(number: int, value: int) -> bytes:
    """Return an attribute with a 32-bit number."""
    return attribute(number, struct.pack(">i", value))


def expression(name: str, *attributes: bytes) -> bytes:
    """Return one step of a rule."""
    return nested(1, text(1, name), nested(2, *attributes))


def compare(operation: int, value: bytes) -> bytes:
    """Return the step that continues only if the register is equal to, or less than, ``value``."""
    return expression("cmp", number32(1, REGISTER), number32(2, operation), nested(3, attribute(1, value)))


def has(header: int, offset: int, value: bytes) -> bytes:
    """Return the steps that continue only if the packet has ``value`` at ``offset`` of this header."""
    where = (number32(2, header), number32(3, offset), number32(4, len(value)))
    return expression("payload", number32(1, REGISTER), *where) + compare(EQUAL, value)


def by_chance(probability: float) -> bytes:
    """Return the steps that continue with this probability."""
    draw = expression("numgen", number32(1, REGISTER), number32(2, PARTS), number32(3, 1), number32(4, 0))
    # The random number has the byte order of this machine, but the comparison is byte by byte, so swap it.
    turn = [number32(1, REGISTER), number32(2, REGISTER), number32(3, 1), number32(4, 4), number32(5, 4)]
    return draw + expression("byteorder", *turn) + compare(LESS, struct.pack(">I", round(probability * PARTS)))


def drop() -> bytes:
    """Return the step that drops the packet."""
    return expression("immediate", number32(1, 0), nested(2, nested(2, number32(1, 0))))


def rule(chain: str, address: bytes, address_at: int, port: bytes, port_at: int, probability: float) -> bytes:
    """Return the rule that drops the packets of one connection in one direction."""
    steps = has(NETWORK_HEADER, address_at, address) + has(TRANSPORT_HEADER, port_at, port)
    chance = b"" if probability >= 1 else by_chance(probability)
    return text(1, TABLE) + text(2, chain) + nested(4, steps, chance, drop())


def rules(port: int, drops: Iterable[Drop]) -> Iterator[bytes]:
    """Return all rules: two for each drop, for incoming and for outgoing packets."""
    port_bytes = struct.pack(">H", port)
    for host, direction, probability in drops:
        address = socket.inet_aton(host)
        # All nodes listen on the same port: the side that opened a connection sends to that port.
        incoming, outgoing = (DESTINATION_PORT, SOURCE_PORT) if direction == "in" else (SOURCE_PORT, DESTINATION_PORT)
        yield rule("input", address, SOURCE, port_bytes, incoming, probability)
        yield rule("output", address, DESTINATION, port_bytes, outgoing, probability)


def messages(port: int, drops: Iterable[Drop]) -> Iterator[tuple[int, int, bytes]]:
    """Return the messages of one transaction, as type, flags and attributes."""
    # Deleting a table that does not exist would fail the transaction, so it is created first.
    yield NEW_TABLE, CREATE, text(1, TABLE)
    yield DELETE_TABLE, 0, text(1, TABLE)
    yield NEW_TABLE, CREATE, text(1, TABLE)
    for name, hook in HOOKS.items():
        where = nested(4, number32(1, hook), number32(2, 0))
        yield NEW_CHAIN, CREATE, text(1, TABLE) + text(3, name) + where + text(7, "filter")
    for each in rules(port, drops):
        yield NEW_RULE, CREATE | APPEND, each


def batch(port: int, drops: Iterable[Drop]) -> tuple[bytes, int]:
    """Return the bytes of the whole batch, and how many answers the kernel will send."""
    changes = list(messages(port, drops))
    framed = [message(BEGIN, REQUEST, 0, FAMILY_NONE, NFTABLES, b"")]
    for sequence, (kind, flags, attributes) in enumerate(changes, 1):
        framed.append(message(kind, REQUEST | ACKNOWLEDGE | flags, sequence, FAMILY_IPV4, 0, attributes))
    framed.append(message(END, REQUEST, len(changes) + 1, FAMILY_NONE, NFTABLES, b""))
    return b"".join(framed), len(changes)


def message(kind: int, flags: int, sequence: int, family: int, resource: int, attributes: bytes) -> bytes:
    """Return a netlink message for the packet filter."""
    body = struct.pack(">BBH", family, 0, resource) + attributes
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def send_to_kernel(data: bytes, answers: int) -> None:
    """Send a batch; raises ``OSError`` unless the kernel accepts all of it."""
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
    wanted = json.loads(sys.argv[1])
    try:
        send_to_kernel(*batch(wanted["port"], [tuple(each) for each in wanted["drops"]]))
    except OSError as error:
        sys.stderr.write(f"the kernel rejects the rules: {error.strerror or error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
