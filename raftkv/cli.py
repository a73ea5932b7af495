"""The command line: `serve` runs a node, `local` a cluster on this machine, `simulate` simulated clusters."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from raftkv import __version__
from raftkv.config.option import SettingsError, ValueType, config_flag
from raftkv.config.settings import OPTIONS, SHARED, read_settings, read_shared
from raftkv.config.values import parse_count, parse_number, parse_path
from raftkv.exit_status import EXIT_UNUSABLE, EXIT_USAGE
from raftkv.local.cluster import LocalCluster
from raftkv.local.files import (
    DEFAULT_BASE_PORT,
    DEFAULT_BASE_RAFT_PORT,
    DEFAULT_NODES,
    busy_port,
    choose_layout,
    prepare,
)
from raftkv.process.log_output import start_logging
from raftkv.process.supervisor import SupervisorPipe

logger = logging.getLogger("raftkv.cli")

NODES = ValueType("N", parse_count(1, 99))
PORT = ValueType("PORT", parse_count(1, 65535))
FILE = ValueType("FILE", parse_path)


def run(arguments: list[str]) -> int:
    """Run the command that ``arguments`` name and return the exit status; every complaint is one line on stderr."""
    try:
        status = cli.main(args=arguments, standalone_mode=False)
    except click.ClickException as error:
        # Some of click's own messages have several lines.
        line = " ".join(error.format_message().split())
        click.echo(f"raftkv: {line}", err=True)
        return EXIT_USAGE
    except click.Abort:
        # Ctrl-C before the command started anything.
        return 128 + signal.SIGINT
    return int(status or 0)


def say(line: str) -> None:
    """Print a line at once; a closed output is ignored."""
    with contextlib.suppress(OSError):
        click.echo(line)


@click.group(invoke_without_command=True, context_settings={"max_content_width": 110})
@click.version_option(__version__, message="raftkv %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """A key-value store replicated by Raft."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@cli.command(params=[*(option.flag() for option in OPTIONS), config_flag(OPTIONS)])
@click.option("--events-fd", type=int, hidden=True)
@click.pass_context
def serve(context: click.Context, /, events_fd: int | None, **_: Any) -> int:
    """Run one node until SIGTERM or Ctrl-C.

    Each setting is a flag (--data-dir), an environment variable (RAFTKV_DATA_DIR) or a line of the TOML file (data-dir
    = "…"). A flag overrides a variable, and a variable overrides the file.

    To create a secret for --cluster-secret-file:

    \b
      (umask 077; head -c 32 /dev/urandom | base64 > secret)
    """
    settings, warnings = read_settings(context)
    # The other commands need nothing of a running node, so only this one pays for the import.
    from raftkv.process.lifecycle import serve_node

    try:
        supervisor = SupervisorPipe(events_fd)
    except OSError as error:
        raise SettingsError(f"--events-fd: {events_fd} is not a socket: {error.strerror}") from None
    output = start_logging(settings.log_level, settings.log_format, node_id=settings.id)
    for warning in warnings:
        logger.warning("%s", warning)
    return serve_node(settings, output, supervisor)


@cli.command(
    params=[
        click.Option(["--nodes"], type=NODES, help=f"Number of nodes.  [default: {DEFAULT_NODES}]"),
        click.Option(
            ["--base-port"],
            type=PORT,
            help=f"n1 serves clients at this port, n2 at the next, and so on.  [default: {DEFAULT_BASE_PORT}]",
        ),
        click.Option(
            ["--base-raft-port"],
            type=PORT,
            help=f"The same for the connections between nodes.  [default: {DEFAULT_BASE_RAFT_PORT}]",
        ),
        click.Option(
            ["--data-dir"], metavar="DIR", default=".raftkv", show_default=True, help="Directory of all nodes' data."
        ),
        *(option.flag() for option in SHARED),
    ]
)
@click.pass_context
def local(
    context: click.Context,
    /,
    nodes: int | None,
    base_port: int | None,
    base_raft_port: int | None,
    data_dir: str,
    **_: Any,
) -> int:
    """Run a cluster on this machine and print what its nodes do.

    A later start with the same --data-dir continues with the same cluster and its data.
    """
    shared = read_shared(context)
    directory = Path(data_dir)
    layout = choose_layout(directory, nodes, base_port, base_raft_port)
    busy = busy_port(layout.local_nodes(directory))
    if busy is not None:
        click.echo(
            f"raftkv: {busy} is in use. Is this cluster already running? If not, choose other ports with "
            "--base-port and --base-raft-port",
            err=True,
        )
        return EXIT_UNUSABLE
    local_nodes = prepare(directory, layout, shared)
    say(f"Starting {len(local_nodes)} nodes; their data is in {directory}.")
    return asyncio.run(LocalCluster(local_nodes, directory, say).run())


@cli.command()
@click.option("--seed", type=ValueType("N", parse_count(0, 10**15 - 1)), help="Run this seed.")
@click.option("--seeds", metavar="FROM-TO", help="Run all of these seeds, on all cores; 2000 is 0-1999.")
@click.option("--schedule", type=FILE, help="Run the schedule in this file.")
@click.option(
    "--minutes", type=ValueType("M", parse_number(0.001, 100_000)), help="Run as many seeds as fit into this time."
)
@click.option("--nodes", type=NODES, help="Number of nodes; by default drawn from the seed.")
@click.option(
    "--events",
    type=ValueType("N", parse_count(1, 10**9)),
    help="Messages to handle before all faults end.  [default: 20000]",
)
@click.option(
    "--faults",
    default="mixed",
    show_default=True,
    metavar="CLASSES",
    help="mixed (the seed chooses); network, partition, crash, pause, clock, disk, damage, with commas; none; "
    "or each: mixed, and each class by itself.",
)
@click.option("--trace", is_flag=True, help="Print every event.")
@click.option("--html", type=FILE, help="Write a timeline of the clients' requests to this file.")
@click.option("--save", type=FILE, help="Write the schedule to this file: the faults that took effect.")
@click.option("--shrink", is_flag=True, help="Make the schedule of a failed run smaller, for up to 120 s.")
@click.option(
    "--jobs", type=ValueType("N", parse_count(1, 999)), help="Worker processes for --seeds.  [default: all cores]"
)
def simulate(**options: Any) -> int:
    """Run whole clusters in virtual time, with faults, and check them.

    The exit status is 0 if every run passed, else 1. A failed run leaves a schedule of its faults and a timeline in
    .raftkv-simulation.
    """
    from raftkv.simulation import command

    return command.simulate(command.SimulateOptions(**options), say)


if find_spec("raftkv.simulation") is None:
    # The image of a node does not contain the simulator.
    del cli.commands["simulate"]
