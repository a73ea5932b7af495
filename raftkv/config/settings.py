"""The one place where configuration is read and validated: what the settings are, and which go together."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Literal

import msgspec

from raftkv.config.option import (
    Endpoint,
    Given,
    Option,
    Values,
    format_size,
    gather,
    parse_choice,
    parse_cluster,
    parse_count,
    parse_endpoint,
    parse_fixed_port,
    parse_name,
    parse_number,
    parse_path,
    parse_reachable,
    parse_size,
    printable,
    unknown_variables,
)
from raftkv.raft.entry import NodeId
from raftkv.store.commands import MAX_KEY_BYTES, MAX_VALUE_BYTES


class Timing(msgspec.Struct, frozen=True):
    """Raft's times, in milliseconds; a follower waits between ``election_min_ms`` and ``election_max_ms``."""

    heartbeat_ms: float = 50.0
    election_min_ms: float = 150.0
    election_max_ms: float = 300.0

    @property
    def disk_stall_ms(self) -> float:
        """How old a leader's oldest save may become before it steps down."""
        return max(1000.0, 3 * self.election_max_ms)


class Limits(msgspec.Struct, frozen=True):
    """What is bounded, in bytes unless the name says otherwise."""

    key_bytes: int = 4096
    value_bytes: int = 1 << 20
    header_bytes: int = 16 << 10
    uncommitted_bytes: int = 64 << 20
    append_bytes: int = 256 << 10
    inflight_bytes: int = 4 << 20
    held_requests: int = 4096
    segment_bytes: int = 16 << 20


LogFormat = Literal["text", "json"]


class Secret(msgspec.Struct, frozen=True):
    """Bytes that the nodes of a cluster share and that no log may show."""

    value: bytes

    def __repr__(self) -> str:
        """Return something without the secret."""
        return "Secret(…)"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All that a node is told when it starts.

    ``cluster`` is the start list: every node's id and Raft address, in the order of ids. Addresses to listen on
    (``http``, ``raft``) are separate from those that others call (``advertise_http``, and our own in ``cluster``).
    """

    id: NodeId
    http: Endpoint
    raft: Endpoint
    advertise_http: Endpoint
    cluster: tuple[tuple[NodeId, Endpoint], ...]
    data_dir: str
    secret: Secret | None = None
    timing: Timing = Timing()
    limits: Limits = Limits()
    log_level: str = "info"
    log_format: LogFormat = "text"


_LIMITS: dict[str, tuple[str, int, int]] = {
    "key_bytes": ("Longest key, in bytes of UTF-8", 1, MAX_KEY_BYTES),
    "value_bytes": ("Largest value", 1, MAX_VALUE_BYTES),
    "header_bytes": ("Largest header of an HTTP request", 1 << 10, 1 << 20),
    "uncommitted_bytes": ("Entries a leader appends before a majority has them", 1 << 20, 1 << 30),
    "append_bytes": ("Entries in one message to a peer", 1 << 10, 1 << 20),
    "inflight_bytes": ("Entries under way to one peer", 1 << 10, 1 << 30),
    "held_requests": ("Batches of requests that wait for a leader at once", 1, 1 << 20),
    "segment_bytes": ("A segment of the journal", 64 << 10, 1 << 30),
}

_MILLISECONDS = parse_number(1, 3_600_000)


def _limit_option(name: str) -> Option:
    help_text, low, high = _LIMITS[name]
    default = getattr(Limits(), name)
    is_size = name.endswith("_bytes")
    return Option(
        name.replace("_", "-"),
        "SIZE" if is_size else "NUMBER",
        help_text,
        parse_size(low, high) if is_size else parse_count(low, high),
        format_size(default) if is_size else str(default),
    )


OPTIONS: tuple[Option, ...] = (
    Option("id", "ID", "This node's id, one of those in --cluster", parse_name, per_node=True),
    Option("http", "HOST:PORT", "Where to serve clients", parse_endpoint, "127.0.0.1:4001", per_node=True),
    Option(
        "raft", "HOST:PORT", "Where to listen for the other nodes", parse_fixed_port, "127.0.0.1:5001", per_node=True
    ),
    Option(
        "cluster",
        "ID=HOST:PORT,…",
        "All nodes of the cluster with their Raft addresses, the same list for each of them",
        parse_cluster,
        per_node=True,
    ),
    Option("data-dir", "DIR", "Where this node keeps its data; made if missing", parse_path, per_node=True),
    Option(
        "advertise-http", "HOST:PORT", "Where clients reach this node, if not at --http", parse_reachable, per_node=True
    ),
    Option(
        "advertise-raft",
        "HOST:PORT",
        "Where the other nodes reach this one, if not at --raft",
        parse_reachable,
        per_node=True,
    ),
    Option(
        "cluster-secret-file",
        "FILE",
        "A file whose content proves to the other nodes that this one belongs to them",
        parse_path,
        per_node=True,
    ),
    Option(
        "timing", "FACTOR", "Multiplies the three times below; more for slow networks", parse_number(0.1, 100), "1.0"
    ),
    Option("heartbeat-ms", "MS", "How often a leader is heard from", _MILLISECONDS, f"{Timing().heartbeat_ms:g}"),
    Option(
        "election-min-ms",
        "MS",
        "Shortest silence after which a node campaigns",
        _MILLISECONDS,
        f"{Timing().election_min_ms:g}",
    ),
    Option(
        "election-max-ms",
        "MS",
        "Longest such silence; each node draws anew in between",
        _MILLISECONDS,
        f"{Timing().election_max_ms:g}",
    ),
    *map(_limit_option, _LIMITS),
    Option(
        "log-level", "LEVEL", "debug, info, warning or error", parse_choice("debug", "info", "warning", "error"), "info"
    ),
    Option("log-format", "FORMAT", "text, or json: one object a line", parse_choice("text", "json"), "text"),
)
CONFIG_VARIABLE = "RAFTKV_CONFIG"


def read_settings(
    flags: Mapping[str, str | None], environ: Mapping[str, str], config: str | None = None
) -> tuple[Settings, list[str]]:
    """Return a node's settings and what its log should warn of; raises ``SettingsError``.

    ``flags`` are texts by option name; ``config`` is the TOML file that a flag named.
    """
    values = gather(OPTIONS, flags, environ, _config_file(config, environ))
    node_id = values.required("id")
    cluster = _cluster(values, node_id)
    http, raft = values["http"], values["raft"]
    if http == raft:
        raise values.wrong("http", f"{http} is taken by {values.origin('raft')}; give each a port of its own")
    secret, secret_warnings = _secret(values)
    settings = Settings(
        id=node_id,
        http=http,
        raft=raft,
        advertise_http=values["advertise-http"] or http,
        cluster=cluster,
        data_dir=_data_dir(values),
        secret=secret,
        timing=read_timing(values),
        limits=read_limits(values),
        log_level=values["log-level"],
        log_format=values["log-format"],
    )
    warnings = unknown_variables(OPTIONS, environ, [CONFIG_VARIABLE]) + secret_warnings
    if secret is None and not raft.is_loopback:
        warnings.append(f"without --cluster-secret-file anyone who reaches {raft} can take part in this cluster")
    return settings, warnings


def _config_file(flag: str | None, environ: Mapping[str, str]) -> Given | None:
    if flag is not None:
        return Given(flag, "--config")
    variable = environ.get(CONFIG_VARIABLE)
    return Given(variable, CONFIG_VARIABLE) if variable else None


def _cluster(values: Values, node_id: NodeId) -> tuple[tuple[NodeId, Endpoint], ...]:
    """Return the start list, which must name this node as the others are to reach it."""
    cluster: tuple[tuple[NodeId, Endpoint], ...] = values.required("cluster")
    listed = dict(cluster).get(node_id)
    if listed is None:
        raise values.wrong("id", f"{node_id} is not in {values.origin('cluster')} ({', '.join(dict(cluster))})")
    advertised: Endpoint | None = values["advertise-raft"]
    raft: Endpoint = values["raft"]
    if advertised is not None and advertised != listed:
        raise values.wrong(
            "advertise-raft",
            f"{advertised} differs from {node_id}={listed} in {values.origin('cluster')}; make them equal",
        )
    if advertised is None and listed != (raft._replace(host=listed.host) if raft.is_wildcard else raft):
        raise values.wrong(
            "raft",
            f"{raft} differs from {node_id}={listed} in {values.origin('cluster')}; "
            f"make them equal, or say --advertise-raft {listed} if the others reach this node there",
        )
    return cluster


def _data_dir(values: Values) -> str:
    path: str = values.required("data-dir")
    if os.path.exists(path) and not os.path.isdir(path):
        raise values.wrong("data-dir", f"{path} is not a directory; give one that is, or that can be made")
    return path


def _secret(values: Values) -> tuple[Secret | None, list[str]]:
    """Return what proves that a peer belongs to us, and a warning if others on this machine can read it."""
    path: str | None = values["cluster-secret-file"]
    if path is None:
        return None, []
    try:
        with open(path, "rb") as file:
            value = file.read(64 << 10).strip()
            mode = os.fstat(file.fileno()).st_mode
    except OSError as error:
        raise values.wrong("cluster-secret-file", f"cannot read {path}: {error.strerror}") from None
    if not value:
        raise values.wrong(
            "cluster-secret-file",
            f"{path} is empty; fill it once, as with `openssl rand -hex 32`, and copy it to all nodes",
        )
    if mode & (stat.S_IRGRP | stat.S_IROTH):
        shown = printable(path)
        return Secret(value), [f"{shown} can be read by others on this machine; `chmod 600 {shown}` keeps it secret"]
    return Secret(value), []


def read_timing(values: Values) -> Timing:
    """Return Raft's times, multiplied; a follower must be able to miss a heartbeat without campaigning."""
    heartbeat, shortest, longest = (values[name] for name in ("heartbeat-ms", "election-min-ms", "election-max-ms"))
    if shortest < 2 * heartbeat:
        raise values.wrong(
            "election-min-ms",
            f"{shortest:g} is less than twice the {heartbeat:g} of {values.origin('heartbeat-ms')}, "
            f"so that one lost message would start an election; give {2 * heartbeat:g} or more",
        )
    if longest <= shortest:
        raise values.wrong(
            "election-max-ms",
            f"{longest:g} is not more than the {shortest:g} of {values.origin('election-min-ms')}, "
            f"so that nodes would campaign at the same time; give {2 * shortest:g} or so",
        )
    factor = values["timing"]
    return Timing(heartbeat * factor, shortest * factor, longest * factor)


def read_limits(values: Values) -> Limits:
    """Return the limits; whatever is accepted must fit wherever it goes.

    A segment has no such bound: what does not fit one gets one of its own.
    """
    limits = Limits(**{name: values[name.replace("_", "-")] for name in _LIMITS})
    largest = limits.key_bytes + limits.value_bytes
    for name, least, why in (
        ("uncommitted-bytes", 2 * largest, "twice the largest key and value"),
        ("inflight-bytes", limits.append_bytes, "append-bytes"),
    ):
        if values[name] < least:
            raise values.wrong(
                name, f"{format_size(values[name])} is less than {why}; give {format_size(least)} or more"
            )
    return limits


def read_shared(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> dict[str, str]:
    """Return, as texts by name, the settings that were given for all nodes alike; raises ``SettingsError``."""
    shared = [option for option in OPTIONS if not option.per_node]
    values = gather(shared, flags, environ, None)
    read_timing(values)
    read_limits(values)
    texts = {option.name: values.text(option.name) for option in shared if values[option.name] is not None}
    return {name: text for name, text in texts.items() if text is not None}
