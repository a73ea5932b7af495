"""Schedules on paper: the plan of a life as a file, to be lived again, with a line that says what it once showed."""

from __future__ import annotations

from pathlib import Path

import msgspec

from raftkv.simulation.life import Plan


class Schedule(Plan, frozen=True, forbid_unknown_fields=True):
    """A plan and its story."""

    story: str = ""
    """What was found with it, in one line."""


def save(path: Path, plan: Plan, story: str = "") -> None:
    """Write a plan to a file: JSON, with a line for each fault."""
    fields = {name: getattr(plan, name) for name in Plan.__struct_fields__}
    faults = fields.pop("faults")
    lines = [f" {_json(name)}: {_json(value)}," for name, value in {"story": story, **fields}.items()]
    inner = ",\n".join(f"  {_json(fault)}" for fault in faults)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["{", *lines, ' "faults": [', inner, " ]", "}", ""]))


def load(path: Path) -> Schedule:
    """Read such a file; raises ``OSError``, or ``ValueError`` for one that is none."""
    return msgspec.json.decode(path.read_bytes(), type=Schedule)


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
