"""Reading settings as the commands do, in an environment that a test gives."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from raftkv.cli import cli
from raftkv.config.settings import Settings, read_settings, read_shared


def settings_of_node(
    flags: Mapping[str, str | None], environ: Mapping[str, str], config: str | None = None
) -> tuple[Settings, list[str]]:
    """Return what ``raftkv serve`` makes of flags by name, variables and the file of --config, and its warnings."""
    with environment(environ):
        return read_settings(cli.commands["serve"].make_context("serve", _arguments({**flags, "config": config})))


def settings_of_all(flags: Mapping[str, str | None], environ: Mapping[str, str]) -> dict[str, str]:
    """Return what ``raftkv local`` passes on to all of its nodes."""
    with environment(environ):
        return read_shared(cli.commands["local"].make_context("local", _arguments(flags)))


def _arguments(flags: Mapping[str, str | None]) -> list[str]:
    return [f"--{name}={text}" for name, text in flags.items() if text is not None]


@contextmanager
def environment(environ: Mapping[str, str]) -> Iterator[None]:
    """Give this process other environment variables for a while."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
