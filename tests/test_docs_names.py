"""What the documentation calls by name exists: files, classes and their members, messages, functions, flags, codes."""

from __future__ import annotations

import ast
import builtins
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args, get_type_hints

import click
import pytest
import thespian.actors
import tornado.web

from raftkv.actors.messages.requests import Refused
from raftkv.cli import cli
from raftkv.config.settings import OPTIONS
from raftkv.http.errors import ErrorKind
from raftkv.simulation.faults.faults import KINDS

ROOT = Path(__file__).resolve().parent.parent
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
FOLDERS = ("raftkv", "actors", "http", "simulation", "tests", "bench", "deploy", "docs")
FOREIGN = (builtins, thespian.actors, tornado.web)

PATH = re.compile(rf"(?:{'|'.join(FOLDERS)})/[\w./-]*|[\w-]+\.(?:py|md|toml|txt)")
CLASS = re.compile(r"([A-Z][A-Z]*[a-z]\w*)(?:\.(\w+))?(?:\(.*\))?…?")
# With an underscore in it, or called.
NAME = re.compile(r"(?:[a-z]\w*\.)*(?:(_?[a-z][a-z0-9]*(?:_[a-z0-9]+)+)(?:\(.*\))?|([a-z]\w*)\(.*\))")
CONSTANT = re.compile(r"[A-Z][A-Z0-9_]{3,}")
FLAG = re.compile(r"--[a-z][a-z-]*")
SETTING = re.compile(r"[a-z]+(?:-[a-z]+)+")


@cache
def files() -> frozenset[str]:
    """Return all files and folders of the project, from its root; links are not followed, so each is there once."""
    found = {path.name for path in ROOT.iterdir() if path.is_file()}
    for folder in FOLDERS:
        for place, folders, names in os.walk(ROOT / folder):
            found |= {os.path.relpath(os.path.join(place, name), ROOT) for name in [*folders, *names]}
    return frozenset(found | set(FOLDERS))


@cache
def parts() -> tuple[ast.AST, ...]:
    """Return all parts of the project's sources; not of this one, in which wrong names stand on purpose."""
    sources = [ROOT / name for name in files() if name.endswith(".py")]
    return tuple(
        part for path in sources if not path.samefile(__file__) for part in ast.walk(ast.parse(path.read_text()))
    )


@cache
def identifiers() -> frozenset[str]:
    """Return every name in the sources."""
    found: set[str] = set()
    for part in parts():
        match part:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                found.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                found.add(name)
    return frozenset(found)


@cache
def literals() -> frozenset[str]:
    """Return every text in the sources as a whole: names of headers, marks of formats."""
    constants = (part.value for part in parts() if isinstance(part, ast.Constant))
    return frozenset(
        value if isinstance(value, str) else value.decode("latin-1")
        for value in constants
        if isinstance(value, str | bytes)
    )


@cache
def words() -> frozenset[str]:
    """Return every name in the sources, every word in their texts, and the codes of errors."""
    return identifiers().union((kind.code for kind in ErrorKind), *(re.findall(r"\w+", text) for text in literals()))


@cache
def classes() -> dict[str, set[str]]:
    """Return the members of every class, by its name; those of its bases are in it."""
    members: dict[str, set[str]] = {}
    bases: dict[str, set[str]] = {}
    for part in parts():
        if isinstance(part, ast.ClassDef):
            members.setdefault(part.name, set()).update(members_of(part))
            bases.setdefault(part.name, set()).update(base.id for base in part.bases if isinstance(base, ast.Name))
    for _ in range(8):
        for name, above in bases.items():
            members[name].update(*(members.get(base, ()) for base in above))
    return members


def members_of(definition: ast.ClassDef) -> Iterator[str]:
    """Return methods, fields, and what the methods assign to ``self``."""
    for part in ast.walk(definition):
        match part:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                yield name


@cache
def flags() -> frozenset[str]:
    """Return the flags of all commands."""
    return frozenset(
        flag
        for command in cli.commands.values()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for flag in parameter.opts
    ) | {"--help"}


def exists(name: str) -> bool:
    """Whether what looks like a name of ours is one."""
    if PATH.fullmatch(name):
        return name.rstrip("/") in files() or any(path.endswith("/" + name) for path in files())
    if found := CLASS.fullmatch(name):
        if found[1] in classes():
            return found[2] is None or found[2] in classes()[found[1]]
        # A variable that holds a type has no members to look for.
        foreign = any(hasattr(module, found[1]) for module in FOREIGN)
        return foreign or (found[2] is None and found[1] in identifiers() | literals())
    if found := NAME.fullmatch(name):
        return found[1] in words() if found[1] else found[2] in identifiers()
    if CONSTANT.fullmatch(name):
        return name in words()
    if FLAG.fullmatch(name):
        return name in flags()
    if SETTING.fullmatch(name):
        faults = {kind for kinds in KINDS.values() for kind in kinds}
        return name in {option.name for option in OPTIONS} | faults
    return True


def unknown_names(page: str) -> list[str]:
    """Return the names in backticks, and those of classes in diagrams, that nothing of ours has."""
    diagrams = re.findall(r"^```mermaid\n(.+?)^```", page, re.S | re.M)
    prose = re.sub(r"^```.+?^```", "", page, flags=re.S | re.M)
    quoted = re.findall(r"`([^`\n]+)`", prose)
    drawn = [name for text in diagrams for name in re.findall(r"\b(?:[A-Z][a-z]+){2,}(?:\.\w+)?\b", text)]
    drawn += [name for text in diagrams for name in re.findall(r"\b[\w/]+\.py\b", text)]
    return sorted({name for name in quoted + drawn if not exists(name)})


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_exists(page: str) -> None:
    assert unknown_names((ROOT / page).read_text()) == []


def test_what_does_not_exist_is_found() -> None:
    """Or the test above could not fail."""
    page = """
Real are `actors/roles/role.py`, `wal.py`, `Role`, `Role.on_RequestVote`, `Refused("no_room")`, `Leader.save`,
`OSError`, `not_done`, `raftkv.process.server.serve_node()`, `APPLY_BYTES`, `--data-dir`, `held-requests`, and
`anything else`.
Not so `actors/roll.py`, `walk.py`, `Follows`, `Role.on_Vote`, `ask_nobody`, `frobnicate()`, `APPLY_NONE`, `--dta-dir`,
`hold-requests`.

```mermaid
sequenceDiagram
    Follower->>Leader: AppendEntriesReply, and AppendEntry (raftkv/process/server.py, roles.py)
```

```python
no_such_function(`in code that is shown`)
```
"""

    assert set(unknown_names(page)) == {
        *("actors/roll.py", "walk.py", "Follows", "Role.on_Vote", "ask_nobody", "frobnicate()", "APPLY_NONE"),
        *("--dta-dir", "hold-requests", "AppendEntry", "roles.py"),
    }


def test_every_error_code_is_explained() -> None:
    """Those that the front end makes, and those that it passes on."""
    guarantees = (ROOT / "docs" / "guarantees.md").read_text()
    codes = {*(kind.code for kind in ErrorKind), *get_args(get_type_hints(Refused)["code"])}

    assert len(codes) > 25
    assert {code for code in codes if f"`{code}`" not in guarantees} == set()
