"""Options, and where their values come from: a flag, else RAFTKV_… in the environment, else a TOML file.

A value stays text together with its origin until it is parsed, so that every complaint can say where the wrong value
stands. Nothing here knows what the options of a node are; that is ``raftkv/config/settings.py``.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from raftkv.raft.names import NAME_LENGTH

PREFIX = "RAFTKV_"


class SettingsError(Exception):
    """A setting is wrong or contradicts another: one line that says which, from where, and what would be right."""

    def __init__(self, line: str) -> None:
        super().__init__(printable(line))


class Option(msgspec.Struct, frozen=True):
    """One setting: its ``name`` is the flag without dashes and the key in the file.

    ``parse`` turns text into the value and raises ``ValueError`` with the rest of the sentence for people.
    ``default`` is text as well (None: there is none). ``per_node`` settings differ from node to node.
    """

    name: str
    metavar: str
    help: str
    parse: Callable[[str], Any]
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


class Given(NamedTuple):
    """The text of a setting, and where it stands: a phrase that begins a complaint."""

    text: str
    origin: str


class Values:
    """What was given for a set of options; ``values["name"]`` parses."""

    def __init__(self, options: Iterable[Option], given: Mapping[str, Given]) -> None:
        self._options = {option.name: option for option in options}
        self._given = given

    def __getitem__(self, name: str) -> Any:
        """Return the value of an option, or its default (None where it has none); raises ``SettingsError``."""
        option = self._options[name]
        given = self._given.get(name)
        text = option.default if given is None else given.text
        if text is None:
            return None
        try:
            return option.parse(text)
        except ValueError as error:
            raise self.wrong(name, str(error)) from None

    def required(self, name: str) -> Any:
        """Return the value of an option that must be given."""
        if name not in self._given:
            option = self._options[name]
            raise SettingsError(
                f"--{name} is missing: give --{name} {option.metavar}, or set {option.variable}, "
                f"or write {name} = … into the file of --config"
            )
        return self[name]

    def text(self, name: str) -> str | None:
        """Return the text of an option where one was given."""
        return self._given[name].text if name in self._given else None

    def origin(self, name: str) -> str:
        """Return where the value of an option comes from."""
        return self._given[name].origin if name in self._given else f"--{name} (by default)"

    def wrong(self, name: str, what: str) -> SettingsError:
        """Return the complaint that the value of an option is wrong."""
        return SettingsError(f"{self.origin(name)}: {what}")


def gather(
    options: Iterable[Option], flags: Mapping[str, str | None], environ: Mapping[str, str], file: Given | None
) -> Values:
    """Return what was given, a flag before the environment before ``file`` (its path, and who named it).

    ``flags`` are by option name. An empty variable counts as none at all, as where a shell or compose file passes one
    on that was never set.
    """
    options = tuple(options)
    given = {} if file is None else read_file(options, file)
    for option in options:
        if text := environ.get(option.variable):
            given[option.name] = Given(text, option.variable)
        flag = flags.get(option.name)
        if flag is not None:
            given[option.name] = Given(flag, f"--{option.name}")
    return Values(options, given)


def read_file(options: Iterable[Option], file: Given) -> dict[str, Given]:
    """Return what a TOML file gives; a key that is no option is an error, because it would change nothing."""
    names = [option.name for option in options]
    given = {}
    for name, value in _parse_file(file).items():
        origin = f"{name} in {file.text}"
        if name not in names:
            raise SettingsError(f"{origin}: there is no such setting{did_you_mean(name, names)}")
        given[name] = Given(_as_text(value, origin), origin)
    return given


def _parse_file(file: Given) -> dict[str, Any]:
    try:
        with open(file.text, "rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise SettingsError(f"{file.origin}: cannot read {file.text}: {error.strerror}") from None
    except ValueError as error:
        # What is no TOML or no UTF-8; and a number of thousands of digits, at which Python itself stops.
        raise SettingsError(f"{file.origin}: {file.text} is not TOML: {one_line(str(error))}") from None
    except RecursionError:
        raise SettingsError(f"{file.origin}: {file.text} is nested too deeply") from None


def _as_text(value: object, origin: str) -> str:
    """Return a value from TOML as it would be written in a flag; a table is a list of NAME=VALUE."""
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
        # Python reads hexadecimal numbers of any length, and writes no decimal ones of thousands of digits.
        raise SettingsError(f"{origin}: there is a number in it that is too large") from None
    raise SettingsError(f"{origin}: {shown} is neither text nor a number")


def unknown_variables(options: Iterable[Option], environ: Mapping[str, str], known: Iterable[str] = ()) -> list[str]:
    """Return a warning for each RAFTKV_… variable that is no option (``known`` are further ones that are)."""
    names = {option.variable for option in options} | set(known)
    return [
        f"{printable(name)} in the environment is no setting and changes nothing{did_you_mean(name, names)}"
        for name in sorted(environ)
        if name.startswith(PREFIX) and name not in names
    ]


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return a hint at the nearest of ``names``, if one is near."""
    # What all variables have in common does not make them alike.
    plain = {other.removeprefix(PREFIX): other for other in names}
    near = difflib.get_close_matches(name.removeprefix(PREFIX), list(plain), n=1)
    return f"; did you mean {plain[near[0]]}?" if near else ""


def printable(text: str) -> str:
    """Return ``text`` with an escape sequence for every character that would move a terminal or end the line."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def one_line(text: str) -> str:
    """Return ``text`` without line breaks."""
    return " ".join(text.split())


# --- What values look like. Each raises ValueError with what is wrong and what would be right.


class Endpoint(NamedTuple):
    """Where to listen, or whom to call."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return ``host:port``, with brackets round an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_wildcard(self) -> bool:
        """Whether this means every interface of the machine, and so cannot be called."""
        return self.host in ("0.0.0.0", "::")

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


_ENDPOINT = re.compile(r"(?:\[(?P<six>[0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|(?P<host>[\w.-]+)):(?P<port>[0-9]{1,5})", re.ASCII)


def parse_endpoint(text: str) -> Endpoint:
    """Parse ``host:port``; port 0 lets the system choose one."""
    match = _ENDPOINT.fullmatch(text)
    if match is None or int(match["port"]) > 65535:
        raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:4001 or [::1]:4001")
    return Endpoint(match["six"] or match["host"], int(match["port"]))


def parse_fixed_port(text: str) -> Endpoint:
    """Parse a ``host:port`` to listen on whose port others must know."""
    endpoint = parse_endpoint(text)
    if endpoint.port == 0:
        raise ValueError(f"{text!r} has port 0; the others must know the port, so give one from 1 to 65535")
    return endpoint


def parse_reachable(text: str) -> Endpoint:
    """Parse a ``host:port`` that others call."""
    endpoint = parse_fixed_port(text)
    if endpoint.is_wildcard:
        raise ValueError(f"{text!r} means every interface and cannot be called; give an address that the others reach")
    return endpoint


def parse_name(text: str) -> str:
    """Parse the id of a node."""
    if len(text) > NAME_LENGTH or re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", text) is None:
        raise ValueError(
            f"{text!r} is no id; use up to {NAME_LENGTH} letters, digits, dots, dashes and underscores, such as n1"
        )
    return text


def parse_path(text: str) -> str:
    """Parse a path."""
    if not text or "\0" in text:
        raise ValueError("the path is empty" if not text else "a path has no zero bytes")
    return text


_UNITS = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}


def parse_size(low: int, high: int) -> Callable[[str], int]:
    """Return the parser of a number of bytes from ``low`` to ``high``, with or without a unit."""

    def parse(text: str) -> int:
        match = re.fullmatch(r"([0-9]{1,15}) ?([A-Za-z]*)", text)
        if match is None or match[2].lower() not in _UNITS:
            raise ValueError(f"{text!r} is no size; give bytes, or a whole number of KiB, MiB or GiB, such as 64KiB")
        size = int(match[1]) * _UNITS[match[2].lower()]
        if not low <= size <= high:
            raise ValueError(f"{text!r} is out of range; give {format_size(low)} to {format_size(high)}")
        return size

    return parse


def format_size(size: int) -> str:
    """Return a number of bytes as ``parse_size`` reads it, in the largest unit that divides it."""
    for name, unit in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size and size % unit == 0:
            return f"{size // unit}{name}"
    return str(size)


def parse_count(low: int, high: int) -> Callable[[str], int]:
    """Return the parser of a whole number from ``low`` to ``high``."""

    def parse(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,15}", text) is None or not low <= int(text) <= high:
            raise ValueError(f"{text!r} is not a whole number from {low} to {high}")
        return int(text)

    return parse


def parse_number(low: float, high: float) -> Callable[[str], float]:
    """Return the parser of a number from ``low`` to ``high``."""

    def parse(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise ValueError(f"{text!r} is not a number from {low:g} to {high:g}")
        return number

    return parse


def parse_choice(*choices: str) -> Callable[[str], str]:
    """Return the parser of one of ``choices``."""

    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"{text!r} is not one of {', '.join(choices)}")
        return text.lower()

    return parse


def parse_cluster(text: str) -> tuple[tuple[str, Endpoint], ...]:
    """Parse ``n1=host:port,n2=host:port,…``: the nodes in the order of their ids."""
    nodes: dict[str, Endpoint] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, address = part.partition("=")
        if not equals:
            raise ValueError(
                f"{part!r} is not ID=HOST:PORT; give all nodes, such as n1=127.0.0.1:5001,n2=127.0.0.1:5002"
            )
        endpoint = parse_reachable(address)
        if parse_name(name) in nodes:
            raise ValueError(f"the id {name} is there twice; each node has an id of its own")
        twin = next((other for other, taken in nodes.items() if taken == endpoint), None)
        if twin is not None:
            raise ValueError(f"{twin} and {name} have the same address {endpoint}; each node has one of its own")
        nodes[name] = endpoint
    if not nodes:
        raise ValueError("the list is empty; give all nodes, such as n1=127.0.0.1:5001,n2=127.0.0.1:5002")
    return tuple(sorted(nodes.items()))
