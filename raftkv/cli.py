"""The command line: `serve` runs one node, `local` a whole cluster on this machine, `simulate` simulated ones."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from raftkv import __version__
from raftkv.config.option import Option, SettingsError, one_line, parse_count, parse_number, parse_path
from raftkv.config.settings import OPTIONS, read_settings, read_shared
from raftkv.exit_status import EXIT_UNUSABLE, EXIT_USAGE
from raftkv.local.cluster import LocalCluster
from raftkv.local.files import (
    DEFAULT_BASE_PORT,
    DEFAULT_BASE_RAFT_PORT,
    DEFAULT_NODES,
    busy_port,
    decide_shape,
    prepare,
)
from raftkv.process.log_output import start_logging
from raftkv.process.supervisor import SupervisorPipe

logger = logging.getLogger("raftkv.cli")


def run(arguments: list[str]) -> int:
    """Run the command that ``arguments`` name and return the exit status; every complaint is one line on stderr."""
    try:
        status = cli.main(args=arguments, standalone_mode=False)
    except (click.ClickException, SettingsError) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"raftkv: {one_line(message)}", err=True)
        return EXIT_USAGE
    except click.Abort:
        # Ctrl-C before anything had begun.
        return 128 + signal.SIGINT
    return int(status or 0)


@click.group(invoke_without_command=True, context_settings={"max_content_width": 110})
@click.version_option(__version__, message="raftkv %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """A key-value store replicated by Raft."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def checked(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """Return a callback that reads a flag's value with one of our own parsers, for its complaint."""

    def callback(context: click.Context, parameter: click.Parameter, text: str | None) -> Any:
        try:
            return None if text is None else parse(text)
        except ValueError as error:
            raise click.BadParameter(str(error), context, parameter) from None

    return callback


def settings_flags(options: tuple[Option, ...]) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command a flag for each of ``options``; their values stay text, which `settings.py` reads."""

    def decorate(command: Callable[..., int]) -> Callable[..., int]:
        for option in reversed(options):
            default = "" if option.default is None else f"  [default: {option.default}]"
            command = click.option(
                f"--{option.name}", option.field, metavar=option.metavar, help=f"{option.help}.{default}"
            )(command)
        return command

    return decorate


def _by_name(flags: dict[str, Any]) -> dict[str, str | None]:
    return {field.replace("_", "-"): value for field, value in flags.items()}


@cli.command()
@settings_flags(OPTIONS)
@click.option("--config", metavar="FILE", help="A TOML file with any of these settings, by the same names.")
@click.option("--events-fd", type=int, hidden=True)
def serve(config: str | None, events_fd: int | None, **flags: Any) -> int:
    """Run one node until SIGTERM or Ctrl-C.

    Each setting is a flag, a variable (--data-dir is RAFTKV_DATA_DIR) or a line of the file; a flag goes before a
    variable, and a variable before the file.
    """
    settings, warnings = read_settings(_by_name(flags), os.environ, config)
    # Only now: the other commands need nothing of what a node consists of.
    from raftkv.process.server import serve_node

    try:
        supervisor = SupervisorPipe(events_fd)
    except OSError as error:
        raise SettingsError(f"--events-fd: {events_fd} is not a socket: {error.strerror}") from None
    output = start_logging(settings.log_level, settings.log_format, node_id=settings.id)
    for warning in warnings:
        logger.warning("%s", warning)
    return serve_node(settings, output, supervisor)


@cli.command()
@click.option(
    "--nodes", callback=checked(parse_count(1, 99)), metavar="N", help=f"How many.  [default: {DEFAULT_NODES}]"
)
@click.option(
    "--base-port",
    callback=checked(parse_count(1, 65535)),
    metavar="PORT",
    help=f"n1 serves clients here, n2 at the next port, and so on.  [default: {DEFAULT_BASE_PORT}]",
)
@click.option(
    "--base-raft-port",
    callback=checked(parse_count(1, 65535)),
    metavar="PORT",
    help=f"Likewise, for the nodes among themselves.  [default: {DEFAULT_BASE_RAFT_PORT}]",
)
@click.option(
    "--data-dir", metavar="DIR", default=".raftkv", show_default=True, help="Where all nodes keep their data."
)
@settings_flags(tuple(option for option in OPTIONS if not option.per_node))
def local(nodes: int | None, base_port: int | None, base_raft_port: int | None, data_dir: str, **flags: Any) -> int:
    """Run a whole cluster on this machine, and tell what its nodes do.

    Started again with the same --data-dir, it goes on with what it had.
    """
    shared = read_shared(_by_name(flags), os.environ)
    directory = Path(data_dir)
    shape = decide_shape(directory, nodes, base_port, base_raft_port)
    busy = busy_port(shape.local_nodes(directory))
    if busy is not None:
        click.echo(
            f"raftkv: {busy} is in use: does this cluster run already? Else choose other ports with "
            "--base-port and --base-raft-port",
            err=True,
        )
        return EXIT_UNUSABLE
    local_nodes = prepare(directory, shape, shared)
    say(f"Starting {len(local_nodes)} nodes; their data is in {directory}.")
    return asyncio.run(LocalCluster(local_nodes, directory, say).run())


@cli.command()
@click.option("--seed", callback=checked(parse_count(0, 10**15 - 1)), metavar="N", help="Run this seed.")
@click.option("--seeds", metavar="FROM-TO", help="Run all of these seeds, on all cores; 2000 is 0-1999.")
@click.option("--schedule", callback=checked(parse_path), metavar="FILE", help="Run the schedule in this file.")
@click.option(
    "--minutes",
    callback=checked(parse_number(0.001, 100_000)),
    metavar="M",
    help="Run as many seeds as fit into this time.",
)
@click.option(
    "--nodes",
    callback=checked(parse_count(1, 99)),
    metavar="N",
    help="Number of nodes; by default drawn from the seed.",
)
@click.option(
    "--events",
    callback=checked(parse_count(1, 10**9)),
    metavar="N",
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
@click.option(
    "--html",
    callback=checked(parse_path),
    metavar="FILE",
    help="Write a timeline of the clients' requests to this file.",
)
@click.option(
    "--save",
    callback=checked(parse_path),
    metavar="FILE",
    help="Write the schedule to this file: the faults that took effect.",
)
@click.option("--shrink", is_flag=True, help="Make the schedule of a failed run smaller, for up to 120 s.")
@click.option(
    "--jobs",
    callback=checked(parse_count(1, 999)),
    metavar="N",
    help="Worker processes for --seeds.  [default: all cores]",
)
def simulate(**options: Any) -> int:
    """Run whole clusters in virtual time, with faults, and check them.

    The exit status is 0 if every run passed, else 1. A failed run leaves a schedule of its faults and a timeline in
    .raftkv-simulation.
    """
    try:
        from raftkv.simulation import command
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("raftkv.simulation"):
            raise
        raise click.ClickException("the simulator is not installed here: run this in a checkout of raftkv") from None
    return command.simulate(command.SimulateOptions(**options), say)


def say(line: str) -> None:
    """Print a line at once, as long as there is somebody to read it."""
    with contextlib.suppress(OSError):
        click.echo(line)
