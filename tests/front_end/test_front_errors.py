"""The table of errors is complete, and the documentation has the same one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from raftkv.actors.messages.requests import Refused
from raftkv.http.errors import REASON_PHRASES, ErrorKind, HttpError, refusal

ROOT = Path(__file__).resolve().parents[2]
GUARANTEES = (ROOT / "docs" / "guarantees.md").read_text()


def documented() -> list[tuple[str, int]]:
    """Return each code in the table of errors with its status."""
    rows = GUARANTEES[GUARANTEES.index("\n| status | code |") :].split("\n\n")[0].splitlines()[3:]
    found = []
    for row in rows:
        statuses, codes = (cell.strip() for cell in row.split("|")[1:3])
        if codes != "–":
            found += [(code, int(statuses)) for code in re.findall(r"`(\w+)`", codes)]
    return found


def test_the_documentation_has_each_code_once_with_its_status() -> None:
    found = documented()

    assert len(found) == len(set(found))
    assert dict(found) == {kind.code: kind.status for kind in ErrorKind}


def test_the_documentation_says_where_the_outcome_is_unknown() -> None:
    rows = [row for row in GUARANTEES.splitlines() if row.startswith("| ") and "**unknown**" in row]

    codes = {code for row in rows for code in re.findall(r"`(\w+)`", row.split("|")[2])}
    # An internal error leaves the outcome unknown only after the request was passed on.
    assert codes == {kind.code for kind in ErrorKind if kind.outcome == "unknown"} | {"internal"}


def test_every_kind_is_used() -> None:
    """By name where it is raised, or by the code of a refusal."""
    sources = "".join(path.read_text() for path in (ROOT / "http").glob("*.py"))
    raised = set(re.findall(r"ErrorKind\.([A-Z_]+)", sources))
    refused = {code.upper() for code in get_args(get_type_hints(Refused)["code"])}

    assert raised | refused == {kind.name for kind in ErrorKind}


@pytest.mark.parametrize("kind", ErrorKind, ids=lambda kind: kind.code)
def test_an_error_follows_from_its_kind(kind: ErrorKind) -> None:
    error = HttpError(kind, "the detail", headers=(("X", "y"),), members={"limit_bytes": 7})
    answer = error.answer()

    assert (answer.status, REASON_PHRASES[kind.status] != "") == (kind.status, True)
    assert json.loads(answer.body) == {
        "error": {
            "code": kind.code,
            "message": f"{kind.message}: the detail",
            "outcome": kind.outcome,
            "limit_bytes": 7,
        }
    }
    assert dict(answer.headers).get("Retry-After") == ("1" if kind.status in (429, 503) else None)
    assert dict(answer.headers)["X"] == "y"
    assert HttpError(kind).message == kind.message


@pytest.mark.parametrize("code", get_args(get_type_hints(Refused)["code"]))
@pytest.mark.parametrize("writes", [True, False])
def test_every_refusal_is_an_error(code: str, writes: bool) -> None:
    error = refusal(Refused(code, "why"), writes=writes)  # type: ignore[arg-type]

    assert error.code == ("no_answer" if code == "unknown" and not writes else code)
    assert error.message.endswith(": why")
