"""The layout of a local cluster, and the files in its directory: layout, secret, and settings of each node."""

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
from typing import Annotated

import msgspec

from raftkv.config.option import PREFIX, SettingsError
from raftkv.config.values import HostPort
from raftkv.raft.entry import NodeId

HOST = "127.0.0.1"
DEFAULT_NODES, DEFAULT_BASE_PORT, DEFAULT_BASE_RAFT_PORT = 3, 4001, 5001


class LocalNode(msgspec.Struct, frozen=True):
    """One node of the cluster; ``directory`` holds its data, settings and log."""

    id: NodeId
    http: HostPort
    raft: HostPort
    directory: Path

    @property
    def config(self) -> Path:
        """The file with the node's settings."""
        return self.directory / "serve.toml"

    @property
    def log(self) -> Path:
        """The node's log file."""
        return self.directory / "node.log"


class LocalLayout(msgspec.Struct, frozen=True, rename="kebab"):
    """Size and first ports of a cluster; kept in its directory, so that the next start finds the same cluster."""

    nodes: Annotated[int, msgspec.Meta(ge=1, le=99)]
    base_port: Annotated[int, msgspec.Meta(ge=1, le=65535)]
    base_raft_port: Annotated[int, msgspec.Meta(ge=1, le=65535)]

    def local_nodes(self, directory: Path) -> tuple[LocalNode, ...]:
        """Return the nodes, with ids n1, n2, …"""
        return tuple(
            LocalNode(
                f"n{number + 1}",
                HostPort(HOST, self.base_port + number),
                HostPort(HOST, self.base_raft_port + number),
                directory / f"n{number + 1}",
            )
            for number in range(self.nodes)
        )


def choose_layout(directory: Path, nodes: int | None, base_port: int | None, base_raft_port: int | None) -> LocalLayout:
    """Return the layout that the flags ask for, or else the one in ``directory``; raises ``SettingsError``.

    Size and Raft ports are part of the cluster's configuration, which its log holds: flags cannot change those.
    """
    kept = _read_layout(directory / "local.json")
    if kept is not None:
        for flag, asked, had in (("nodes", nodes, kept.nodes), ("base-raft-port", base_raft_port, kept.base_raft_port)):
            if asked not in (None, had):
                raise SettingsError(
                    f"--{flag}: {directory} holds a cluster with --{flag} {had}, not {asked}; "
                    f"leave out --{flag}, or start another cluster with another --data-dir"
                )
    before = kept or LocalLayout(DEFAULT_NODES, DEFAULT_BASE_PORT, DEFAULT_BASE_RAFT_PORT)
    layout = LocalLayout(nodes or before.nodes, base_port or before.base_port, base_raft_port or before.base_raft_port)
    for flag, port in (("base-port", layout.base_port), ("base-raft-port", layout.base_raft_port)):
        if port + layout.nodes - 1 > 65535:
            raise SettingsError(f"--{flag}: there are no {layout.nodes} ports from {port} on; give a lower port")
    if abs(layout.base_port - layout.base_raft_port) < layout.nodes:
        raise SettingsError(
            f"--base-port: the ports for clients, from {layout.base_port} on, overlap with the Raft ports, from "
            f"{layout.base_raft_port} on (--base-raft-port); keep the two at least {layout.nodes} apart"
        )
    return layout


def _read_layout(path: Path) -> LocalLayout | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=LocalLayout)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--data-dir: cannot read {path}: {error}") from None


def prepare(directory: Path, layout: LocalLayout, shared: Mapping[str, str]) -> tuple[LocalNode, ...]:
    """Write the files that the nodes need into ``directory``: the layout, a settings file for each, and a secret once.

    Raises ``SettingsError``. The secret is readable by its owner only.
    """
    nodes = layout.local_nodes(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        secret = directory / "secret"
        with contextlib.suppress(FileExistsError), open(secret, "x", opener=_private) as file:
            file.write(secrets.token_hex(32) + "\n")
        for node in nodes:
            node.directory.mkdir(exist_ok=True)
            _replace(node.config, config_text(node, nodes, secret, shared))
        _replace(directory / "local.json", msgspec.json.encode(layout).decode() + "\n")
    except OSError as error:
        raise SettingsError(f"--data-dir: cannot write {error.filename or directory}: {error.strerror}") from None
    return nodes


def config_text(node: LocalNode, nodes: tuple[LocalNode, ...], secret: Path, shared: Mapping[str, str]) -> str:
    """Return the settings file of ``node``; its paths are absolute, so that it works from any directory."""
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
            "# Written by `raftkv local` at every start. To start this node alone:",
            "#   python -m raftkv serve --config FILE",
            *(f"{name} = {_quoted(value)}" for name, value in settings.items()),
            "",
            "[cluster]",
            *(f"{other.id} = {_quoted(str(other.raft))}" for other in nodes),
            "",
        ]
    )


def _quoted(text: str) -> str:
    # JSON strings are TOML strings, except that TOML does not allow a plain DEL.
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _replace(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def busy_port(nodes: tuple[LocalNode, ...]) -> HostPort | None:
    """Return the first address at which another process listens."""
    for endpoint in [node.http for node in nodes] + [node.raft for node in nodes]:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(endpoint)
            except OSError:
                return endpoint
    return None


def restart_command(node: LocalNode, environ: Mapping[str, str]) -> str:
    """Return the command that starts ``node`` alone, for the shell in which ``raftkv local`` runs."""
    # Variables override the file, and the node was started with the file alone.
    unset = [part for name in sorted(environ) if name.startswith(PREFIX) for part in ("-u", name)]
    python = os.path.relpath(sys.executable) if sys.executable.startswith(os.getcwd() + os.sep) else sys.executable
    return shlex.join(
        [*(["env", *unset] if unset else []), python, "-m", "raftkv", "serve", "--config", str(node.config)]
    )
