"""What a cluster on this machine consists of, and the files that each of its nodes is started with."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from raftkv.config.option import PREFIX, SettingsError
from raftkv.config.values import Endpoint
from raftkv.raft.entry import NodeId

HOST = "127.0.0.1"
DEFAULT_NODES, DEFAULT_BASE_PORT, DEFAULT_BASE_RAFT_PORT = 3, 4001, 5001


class LocalNode(msgspec.Struct, frozen=True):
    """One node of the cluster; ``directory`` holds its data, settings and log."""

    id: NodeId
    http: Endpoint
    raft: Endpoint
    directory: Path

    @property
    def config(self) -> Path:
        """The file with the node's settings."""
        return self.directory / "serve.toml"

    @property
    def log(self) -> Path:
        """The file with what the node logs."""
        return self.directory / "node.log"


class LocalLayout(msgspec.Struct, frozen=True, rename="kebab"):
    """How large the cluster is and where it listens; kept in the directory, so that it goes on as it began."""

    nodes: int
    base_port: int
    base_raft_port: int

    def local_nodes(self, directory: Path) -> tuple[LocalNode, ...]:
        """Return the nodes, with ids n1, n2, …"""
        return tuple(
            LocalNode(
                f"n{number + 1}",
                Endpoint(HOST, self.base_port + number),
                Endpoint(HOST, self.base_raft_port + number),
                directory / f"n{number + 1}",
            )
            for number in range(self.nodes)
        )


def decide_shape(directory: Path, nodes: int | None, base_port: int | None, base_raft_port: int | None) -> LocalLayout:
    """Return the shape that was asked for, or else the one in ``directory``; raises ``SettingsError``.

    Size and Raft ports are part of the cluster's configuration, which its log holds: flags cannot change those.
    """
    kept = _read_shape(directory / "local.json")
    if kept is not None:
        for flag, asked, had in (("nodes", nodes, kept.nodes), ("base-raft-port", base_raft_port, kept.base_raft_port)):
            if asked not in (None, had):
                raise SettingsError(
                    f"--{flag}: {directory} holds a cluster with --{flag} {had}, not {asked}; "
                    f"leave --{flag} out, or start another cluster with another --data-dir"
                )
    before = kept or LocalLayout(DEFAULT_NODES, DEFAULT_BASE_PORT, DEFAULT_BASE_RAFT_PORT)
    shape = LocalLayout(nodes or before.nodes, base_port or before.base_port, base_raft_port or before.base_raft_port)
    for flag, port in (("base-port", shape.base_port), ("base-raft-port", shape.base_raft_port)):
        if port + shape.nodes - 1 > 65535:
            raise SettingsError(f"--{flag}: from {port} on there are no {shape.nodes} ports; give a lower one")
    if abs(shape.base_port - shape.base_raft_port) < shape.nodes:
        raise SettingsError(
            f"--base-port: the ports from {shape.base_port} on for clients overlap with those from "
            f"{shape.base_raft_port} on among the nodes (--base-raft-port); keep them {shape.nodes} or more apart"
        )
    return shape


def _read_shape(path: Path) -> LocalLayout | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=LocalLayout)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--data-dir: cannot read {path}: {error}") from None


def prepare(directory: Path, shape: LocalLayout, shared: Mapping[str, str]) -> tuple[LocalNode, ...]:
    """Write what the nodes need into ``directory``: the shape, a secret once, and a settings file for each node.

    Raises ``SettingsError``. The secret is readable by its owner only.
    """
    nodes = shape.local_nodes(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        secret = directory / "secret"
        with contextlib.suppress(FileExistsError), open(secret, "x", opener=_private) as file:
            file.write(secrets.token_hex(32) + "\n")
        for node in nodes:
            node.directory.mkdir(exist_ok=True)
            _replace(node.config, config_text(node, nodes, secret, shared))
        _replace(directory / "local.json", msgspec.json.encode(shape).decode() + "\n")
    except OSError as error:
        raise SettingsError(f"--data-dir: cannot write {error.filename or directory}: {error.strerror}") from None
    return nodes


def config_text(node: LocalNode, nodes: tuple[LocalNode, ...], secret: Path, shared: Mapping[str, str]) -> str:
    """Return the settings file of ``node``; its paths are absolute, so that it can be used from anywhere."""
    settings = {
        "id": node.id,
        "http": str(node.http),
        "raft": str(node.raft),
        "data-dir": str((node.directory / "data").absolute()),
        "cluster-secret-file": str(secret.absolute()),
        **shared,
    }
    return "\n".join(
        [
            "# Written by `raftkv local` at each of its starts. It also starts this node alone:",
            "#   python -m raftkv serve --config FILE",
            *(f"{name} = {_quoted(value)}" for name, value in settings.items()),
            "",
            "[cluster]",
            *(f"{other.id} = {_quoted(str(other.raft))}" for other in nodes),
            "",
        ]
    )


def _quoted(text: str) -> str:
    # A JSON string is a TOML string, but for one control character that JSON leaves as it is.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def busy_port(nodes: tuple[LocalNode, ...]) -> Endpoint | None:
    """Return the first address that somebody else listens on."""
    for endpoint in [node.http for node in nodes] + [node.raft for node in nodes]:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(endpoint)
            except OSError:
                return endpoint
    return None


def restart_command(node: LocalNode, environ: Mapping[str, str]) -> str:
    """Return the command that starts ``node`` alone, for the shell in which ``local`` runs."""
    # Variables would go before the file, and the file is what the node had.
    unset = [part for name in sorted(environ) if name.startswith(PREFIX) for part in ("-u", name)]
    python = os.path.relpath(sys.executable) if sys.executable.startswith(os.getcwd() + os.sep) else sys.executable
    return shlex.join(
        [*(["env", *unset] if unset else []), python, "-m", "raftkv", "serve", "--config", str(node.config)]
    )
