"""The table of settings, and the checks of those that depend on each other.

``OPTIONS`` is the one table: the flags of ``serve`` and ``local``, the RAFTKV_… variables, the keys of the TOML file
and ``docs/configuration.md`` follow it. A setting that is a bound or a time is a field of ``Limits`` or ``Timing``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal, NamedTuple, get_type_hints

import click
import msgspec
from click.core import ParameterSource

from raftkv.config.option import (
    CONFIG,
    Option,
    SettingsError,
    ValueType,
    origin,
    printable,
    unknown_variables,
    wrong,
)
from raftkv.config.values import (
    HostPort,
    format_size,
    parse_choice,
    parse_cluster,
    parse_count,
    parse_fixed_port,
    parse_host_port,
    parse_name,
    parse_number,
    parse_path,
    parse_reachable,
    parse_size,
)
from raftkv.raft.entry import NodeId
from raftkv.store.commands import MAX_KEY_BYTES, MAX_VALUE_BYTES


class Range(NamedTuple):
    """What a field of ``Timing`` or ``Limits`` means, and the lowest and highest value that it may have."""

    help: str
    low: int
    high: int


class Timing(msgspec.Struct, frozen=True):
    """Raft's times, in milliseconds; an election timeout is between ``election_min_ms`` and ``election_max_ms``."""

    heartbeat_ms: Annotated[float, Range("Interval between a leader's heartbeats", 1, 3_600_000)] = 50.0
    election_min_ms: Annotated[float, Range("Shortest election timeout", 1, 3_600_000)] = 150.0
    election_max_ms: Annotated[
        float, Range("Longest election timeout; each node draws a random one in between", 1, 3_600_000)
    ] = 300.0

    @property
    def disk_stall_ms(self) -> float:
        """Age of a leader's oldest unfinished save at which the leader steps down."""
        return max(1000.0, 3 * self.election_max_ms)


class Limits(msgspec.Struct, frozen=True):
    """Bounds, in bytes unless the name says otherwise."""

    key_bytes: Annotated[int, Range("Longest key, in bytes of UTF-8", 1, MAX_KEY_BYTES)] = 4096
    value_bytes: Annotated[int, Range("Largest value", 1, MAX_VALUE_BYTES)] = 1 << 20
    header_bytes: Annotated[int, Range("Largest header of an HTTP request", 1 << 10, 1 << 20)] = 16 << 10
    uncommitted_bytes: Annotated[
        int, Range("Entries that a leader appends before a majority has them", 1 << 20, 1 << 30)
    ] = 64 << 20
    append_bytes: Annotated[int, Range("Entries in one message to a peer", 1 << 10, 1 << 20)] = 256 << 10
    inflight_bytes: Annotated[
        int, Range("Entries sent to one peer and not yet acknowledged by it", 1 << 10, 1 << 30)
    ] = 4 << 20
    held_requests: Annotated[int, Range("Batches of requests that wait for a leader at once", 1, 1 << 20)] = 4096
    segment_bytes: Annotated[int, Range("Size of a journal segment", 64 << 10, 1 << 30)] = 16 << 20


LogFormat = Literal["text", "json"]


class Secret(msgspec.Struct, frozen=True):
    """Bytes that the nodes of a cluster share and that no log may show."""

    value: bytes

    def __repr__(self) -> str:
        """Return a placeholder."""
        return "Secret(…)"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The validated settings of one node.

    ``cluster`` is every node's id and Raft address, in the order of ids. Addresses to listen at (``http``, ``raft``)
    are separate from those that others connect to (``advertise_http``, and this node's own in ``cluster``).
    """

    id: NodeId
    http: HostPort
    raft: HostPort
    advertise_http: HostPort
    cluster: tuple[tuple[NodeId, HostPort], ...]
    data_dir: str
    secret: Secret | None = None
    timing: Timing = Timing()
    limits: Limits = Limits()
    log_level: str = "info"
    log_format: LogFormat = "text"


def _options_of(struct: type[Timing] | type[Limits]) -> Iterator[Option]:
    """Yield a setting for each field; the end of the field's name says its notation."""
    for field, hint in get_type_hints(struct, include_extras=True).items():
        (bounds,) = hint.__metadata__
        default = getattr(struct(), field)
        if field.endswith("_ms"):
            kind, text = ValueType("MS", parse_number(bounds.low, bounds.high)), f"{default:g}"
        elif field.endswith("_bytes"):
            kind, text = ValueType("SIZE", parse_size(bounds.low, bounds.high)), format_size(default)
        else:
            kind, text = ValueType("NUMBER", parse_count(bounds.low, bounds.high)), str(default)
        yield Option(field.replace("_", "-"), kind, bounds.help, text)


_ID = ValueType("ID", parse_name)
_DIRECTORY, _FILE = ValueType("DIR", parse_path), ValueType("FILE", parse_path)
_LISTEN = ValueType("HOST:PORT", parse_host_port)
_LISTEN_FOR_PEERS = ValueType("HOST:PORT", parse_fixed_port)
_REACHABLE = ValueType("HOST:PORT", parse_reachable)
_CLUSTER = ValueType("ID=HOST:PORT,…", parse_cluster)
_LEVEL = ValueType("LEVEL", parse_choice("debug", "info", "warning", "error"))
_FORMAT = ValueType("FORMAT", parse_choice("text", "json"))
_FACTOR = ValueType("FACTOR", parse_number(0.1, 100))

OPTIONS: tuple[Option, ...] = (
    Option("id", _ID, "This node's id, one of those in --cluster", per_node=True),
    Option("http", _LISTEN, "Address at which this node serves clients", "127.0.0.1:4001", per_node=True),
    Option("raft", _LISTEN_FOR_PEERS, "Address at which it listens for peers", "127.0.0.1:5001", per_node=True),
    Option("cluster", _CLUSTER, "Ids and Raft addresses of all nodes, the same list on each of them", per_node=True),
    Option("data-dir", _DIRECTORY, "Directory of this node's data; created if missing", per_node=True),
    Option("advertise-http", _REACHABLE, "Address to which clients connect, if it is not --http", per_node=True),
    Option("advertise-raft", _REACHABLE, "Address to which peers connect, if it is not --raft", per_node=True),
    Option(
        "cluster-secret-file",
        _FILE,
        "File with a secret that all nodes share; peers without it are refused",
        per_node=True,
    ),
    Option("timing", _FACTOR, "Factor for the three times below; raise it for slow networks", "1.0"),
    *_options_of(Timing),
    *_options_of(Limits),
    Option("log-level", _LEVEL, "Least severe records that are logged: debug, info, warning or error", "info"),
    Option("log-format", _FORMAT, "text, or json: one object a line", "text"),
)
SHARED = tuple(option for option in OPTIONS if not option.per_node)


def read_settings(context: click.Context, environ: Mapping[str, str] = os.environ) -> tuple[Settings, list[str]]:
    """Return a node's settings and the warnings that its log should contain; raises ``SettingsError``.

    ``context`` is that of a command with the flags of ``OPTIONS``, which has read them; ``environ`` is looked through
    for misspelt variables.
    """
    values = context.params
    for option in OPTIONS:
        if option.name in ("id", "cluster", "data-dir") and values[option.field] is None:
            raise SettingsError(
                f"--{option.name} is missing: give --{option.name} {option.type.name}, set {option.variable}, "
                f"or write {option.name} = … in the file that --{CONFIG} names"
            )
    _check_addresses(context)
    path = values["data_dir"]
    if os.path.exists(path) and not os.path.isdir(path):
        raise wrong(context, "data-dir", f"{path} is not a directory; give a directory, or a path to create one at")
    secret, warnings = _secret(context)
    settings = Settings(
        secret=secret,
        timing=_timing(context),
        limits=_limits(context),
        advertise_http=values["advertise_http"] or values["http"],
        **{field: values[field] for field in ("id", "http", "raft", "cluster", "data_dir", "log_level", "log_format")},
    )
    if secret is None and not settings.raft.is_loopback:
        warnings.append(f"--cluster-secret-file is not set: anyone who can reach {settings.raft} can pose as a peer")
    return settings, unknown_variables(OPTIONS, environ) + warnings


def read_shared(context: click.Context) -> dict[str, str]:
    """Return, as texts by name, the values given for ``SHARED``; raises ``SettingsError``."""
    _timing(context)
    _limits(context)
    given = [option for option in SHARED if context.get_parameter_source(option.field) != ParameterSource.DEFAULT]
    values = {option.name: context.params[option.field] for option in given}
    return {name: format_size(value) if name.endswith("-bytes") else str(value) for name, value in values.items()}


def check_shared(texts: Mapping[str, str]) -> None:
    """Raise ``SettingsError`` unless all nodes may have these settings, by name; ignores the environment."""
    command = click.Command("check", params=[option.flag(from_environment=False) for option in SHARED])
    read_shared(command.make_context("check", [f"--{name}={text}" for name, text in texts.items()]))


def _check_addresses(context: click.Context) -> None:
    """Check that the cluster contains this node, at the address where it listens or that it advertises."""
    node_id: NodeId = context.params["id"]
    http: HostPort = context.params["http"]
    raft: HostPort = context.params["raft"]
    advertised: HostPort | None = context.params["advertise_raft"]
    cluster: dict[NodeId, HostPort] = dict(context.params["cluster"])
    if http == raft:
        taken_by = origin(context, "raft")
        raise wrong(context, "http", f"{http} is the address of {taken_by} too; give each a port of its own")
    listed_in = origin(context, "cluster")
    if node_id not in cluster:
        raise wrong(context, "id", f"{node_id} is not in {listed_in} ({', '.join(cluster)})")
    listed = cluster[node_id]
    difference = f"differs from {node_id}={listed} in {listed_in}; make them equal"
    if advertised is not None and advertised != listed:
        raise wrong(context, "advertise-raft", f"{advertised} {difference}")
    if advertised is None and listed != (raft._replace(host=listed.host) if raft.is_wildcard else raft):
        raise wrong(
            context, "raft", f"{raft} {difference}, or give --advertise-raft {listed} if peers reach this node there"
        )


def _secret(context: click.Context) -> tuple[Secret | None, list[str]]:
    """Return the secret, if there is one, and a warning if other users of this machine can read it."""
    path: str | None = context.params["cluster_secret_file"]
    if path is None:
        return None, []
    try:
        with open(path, "rb") as file:
            value = file.read(64 << 10).strip()
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise wrong(context, "cluster-secret-file", f"cannot read {path}: {error.strerror}") from None
    if not value:
        raise wrong(
            context,
            "cluster-secret-file",
            f"{path} is empty; write a secret to it once, such as the output of `head -c 32 /dev/urandom | base64`, "
            "and copy it to all nodes",
        )
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        shown = printable(path)
        return Secret(value), [f"{shown} can be read by other users of this machine; `chmod 600 {shown}` prevents that"]
    return Secret(value), []


def _timing(context: click.Context) -> Timing:
    """Return Raft's times, multiplied by the factor; a follower must be able to miss a heartbeat."""
    factor, heartbeat, shortest, longest = (
        context.params[name] for name in ("timing", "heartbeat_ms", "election_min_ms", "election_max_ms")
    )
    if shortest < 2 * heartbeat:
        raise wrong(
            context,
            "election-min-ms",
            f"{shortest:g} is less than twice the {heartbeat:g} of {origin(context, 'heartbeat-ms')}, "
            f"so one lost message would start an election; give {2 * heartbeat:g} or more",
        )
    if longest <= shortest:
        raise wrong(
            context,
            "election-max-ms",
            f"{longest:g} is not more than the {shortest:g} of {origin(context, 'election-min-ms')}, "
            f"so nodes would campaign at the same time; give about {2 * shortest:g}",
        )
    return Timing(heartbeat * factor, shortest * factor, longest * factor)


def _limits(context: click.Context) -> Limits:
    """Return the limits; an entry that is accepted must fit into everything that it passes through.

    A segment has no such bound: an entry that is larger than a segment gets one of its own.
    """
    limits = Limits(**{field: context.params[field] for field in Limits.__struct_fields__})
    pair = limits.key_bytes + limits.value_bytes
    for name, size, least, why in (
        ("uncommitted-bytes", limits.uncommitted_bytes, 2 * pair, "twice the largest key and value"),
        ("inflight-bytes", limits.inflight_bytes, limits.append_bytes, "append-bytes"),
    ):
        if size < least:
            raise wrong(context, name, f"{format_size(size)} is less than {why}; give {format_size(least)} or more")
    return limits
