"""How click reads a setting: from a flag, else a RAFTKV_… variable, else the TOML file, else its default.

Click looks a value up and remembers where it found it. A complaint begins with that place, so that a reader knows which
flag, variable or line of which file to change. The settings themselves are in ``raftkv/config/settings.py``.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click
import msgspec
from click.core import ParameterSource

from raftkv.exit_status import EXIT_USAGE

PREFIX = "RAFTKV_"
CONFIG, CONFIG_VARIABLE = "config", PREFIX + "CONFIG"


class SettingsError(click.ClickException):
    """A setting is wrong or contradicts another: one line that says which, from where, and what would be right."""

    exit_code = EXIT_USAGE

    def __init__(self, line: str) -> None:
        super().__init__(printable(line))


class ValueType(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic in newer versions of click
    """The type of a flag: ``parse`` turns text into a value, or raises ``ValueError`` with what would be right."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        """Take how the value is called in ``--help``, such as HOST:PORT, and its parser."""
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the value of ``value``; raises ``SettingsError``."""
        assert ctx is not None
        assert param is not None
        try:
            return self._parse(value)
        except ValueError as error:
            raise wrong(ctx, param.opts[0].lstrip("-"), str(error)) from None


class Option(msgspec.Struct, frozen=True):
    """One setting: its ``name`` is the flag without dashes and the key in the file.

    ``default`` is text (None: there is none). ``per_node`` settings differ from node to node.
    """

    name: str
    type: ValueType
    help: str
    default: str | None = None
    per_node: bool = False

    @property
    def field(self) -> str:
        """The option's name in Python."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """The option's name in the environment."""
        return PREFIX + self.field.upper()

    def flag(self, *, from_environment: bool = True) -> click.Option:
        """Return the flag, as click declares it."""
        return click.Option(
            [f"--{self.name}"],
            type=self.type,
            default=self.default,
            show_default=True,
            help=f"{self.help}.",
            envvar=self.variable if from_environment else None,
        )


def config_flag(options: Iterable[Option]) -> click.Option:
    """Return ``--config``, which makes the values in a TOML file the defaults of ``options``."""

    def read(context: click.Context, _: click.Parameter, path: str | None) -> str | None:
        if path is not None:
            context.default_map = _read_file(options, path, origin(context, CONFIG))
        return path

    return click.Option(
        [f"--{CONFIG}"],
        metavar="FILE",
        envvar=CONFIG_VARIABLE,
        is_eager=True,
        callback=read,
        help="TOML file with any of these settings, under the same names.",
    )


def origin(context: click.Context, name: str) -> str:
    """Return where the value of a setting comes from, as a phrase that begins a complaint."""
    field = name.replace("-", "_")
    match context.get_parameter_source(field):
        case ParameterSource.ENVIRONMENT:
            return PREFIX + field.upper()
        case ParameterSource.DEFAULT_MAP:
            return f"{name} in {context.params[CONFIG]}"
        case ParameterSource.DEFAULT:
            return f"--{name} (by default)"
        case _:
            return f"--{name}"


def wrong(context: click.Context, name: str, what: str) -> SettingsError:
    """Return the complaint that the value of a setting is wrong."""
    return SettingsError(f"{origin(context, name)}: {what}")


def _read_file(options: Iterable[Option], path: str, named_by: str) -> dict[str, str]:
    """Return the values in a TOML file as texts; an unknown key is an error, because it would have no effect."""
    try:
        with open(path, "rb") as stream:
            values = tomllib.load(stream)
    except OSError as error:
        raise SettingsError(f"{named_by}: cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        # Not TOML or not UTF-8; or a number of thousands of digits, which Python itself refuses.
        raise SettingsError(f"{named_by}: {path} is not TOML: {error}") from None
    except RecursionError:
        raise SettingsError(f"{named_by}: {path} is nested too deeply") from None
    fields = {option.name: option.field for option in options}
    unknown = next((name for name in values if name not in fields), None)
    if unknown is not None:
        raise SettingsError(f"{unknown} in {path}: unknown setting{_did_you_mean(unknown, fields)}")
    return {fields[name]: _as_text(value, f"{name} in {path}") for name, value in values.items()}


def _as_text(value: object, place: str) -> str:
    """Return a value from TOML as it would be written in a flag; a table becomes a list of NAME=VALUE."""
    try:
        match value:
            case str():
                return value
            case int() | float() if not isinstance(value, bool):
                return str(value)
            case dict() if all(isinstance(part, str) for part in value.values()):
                return ",".join(f"{name}={part}" for name, part in value.items())
        shown = repr(value)
    except ValueError:
        # Python reads hexadecimal numbers of any length, but refuses to write thousands of decimal digits.
        raise SettingsError(f"{place}: contains a number that is too large") from None
    except RecursionError:
        raise SettingsError(f"{place}: is nested too deeply") from None
    raise SettingsError(f"{place}: {shown} is neither text nor a number")


def unknown_variables(options: Iterable[Option], environ: Mapping[str, str]) -> list[str]:
    """Return a warning for each RAFTKV_… variable that is not a setting."""
    known = {option.variable for option in options} | {CONFIG_VARIABLE}
    return [
        f"{printable(name)} in the environment is not a setting and has no effect{_did_you_mean(name, known)}"
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in known
    ]


def _did_you_mean(name: str, names: Iterable[str]) -> str:
    # The prefix that all variables share does not make them alike.
    plain = {other.removeprefix(PREFIX): other for other in names}
    near = difflib.get_close_matches(name.removeprefix(PREFIX), list(plain), n=1)
    return f"; did you mean {plain[near[0]]}?" if near else ""


def printable(text: str) -> str:
    """Return ``text`` with an escape sequence for every character that would move a terminal or end the line."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
