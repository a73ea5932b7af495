"""Schedules on paper: the plan of a life as a file, to be lived again, with a line that says what it once showed."""

from __future__ import annotations

from pathlib import Path

import msgspec

from raftkv.config.settings import Limits
from raftkv.simulation.faults.faults import EVERYWHERE, KINDS, Fault
from raftkv.simulation.run import RunPlan

MOST_NODES = 99
"""As many as the command line takes."""

LEAST_SEGMENT = 64 << 10
"""Bytes: as little as a real node can be told to use."""

ROLES = ("leader", "follower", "any", "most", "all")
"""Targets that are no names: who that is, is seen when the fault begins."""

LIKELY = ("loss", "repeat", "replay")
"""Kinds with a probability for a value."""

POSITIVE = ("rate", "flap")
"""Kinds with a value that can't be 0: time would stand still, or the turns of a node would never end."""

CHOOSING = ("halves", "ring")
"""Kinds that choose for themselves whom they befall where no target is given."""


class Schedule(RunPlan, frozen=True, forbid_unknown_fields=True):
    """A plan and its story."""

    story: str = ""
    """What was found with it, in one line."""


def save(path: Path, plan: RunPlan, story: str = "") -> None:
    """Write a plan to a file: JSON, with a line for each fault."""
    fields = {name: getattr(plan, name) for name in RunPlan.__struct_fields__}
    faults = fields.pop("faults")
    lines = [f" {_json(name)}: {_json(value)}," for name, value in {"story": story, **fields}.items()]
    inner = ",\n".join(f"  {_json(fault)}" for fault in faults)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["{", *lines, ' "faults": [', inner, " ]", "}", ""]))


def load(path: Path) -> Schedule:
    """Read such a file; raises ``OSError``, or ``ValueError`` ("is no schedule: …") for one that is none."""
    try:
        read = msgspec.json.decode(path.read_bytes(), type=Schedule)
    except msgspec.ValidationError as error:
        raise ValueError(f"is no schedule: {error}") from None
    except (ValueError, RecursionError):
        raise ValueError("is no schedule: it is not JSON") from None
    wrong = _wrong(read)
    if wrong:
        raise ValueError(f"is no schedule: {wrong}")
    return read


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


# --- what no life can be made from


def _wrong(plan: RunPlan) -> str:
    """Return what is wrong with a plan, or nothing."""
    if not 1 <= plan.nodes <= MOST_NODES:
        return f"nodes is {plan.nodes}, not from 1 to {MOST_NODES}"
    if plan.events < 1:
        return f"events is {plan.events}, not at least 1"
    if wrong := _wrong_limit(plan.limits):
        return wrong
    names = {f"n{number + 1}" for number in range(plan.nodes)}
    for number, fault in enumerate(plan.faults, 1):
        if wrong := _wrong_kind(fault) or _wrong_numbers(fault) or _wrong_target(fault, names):
            return f"fault {number}: {wrong}"
    return ""


def _wrong_limit(limits: Limits) -> str:
    for name in Limits.__struct_fields__:
        least, value = LEAST_SEGMENT if name == "segment_bytes" else 1, getattr(limits, name)
        if value < least:
            return f"{name} is {value}, not at least {least}"
    return ""


def _wrong_kind(fault: Fault) -> str:
    known = [kind for kinds in KINDS.values() for kind in kinds]
    return "" if fault.kind in known else f"kind {fault.kind!r} is none of {', '.join(known)}"


def _wrong_numbers(fault: Fault) -> str:
    for name in ("at_ms", "for_ms", "value"):
        if getattr(fault, name) < 0:
            return f"{name} is {getattr(fault, name):g}, which is negative"
    if fault.kind in LIKELY and fault.value > 1:
        return f"value is {fault.value:g}, and how likely {fault.kind} is goes from 0 to 1"
    if fault.kind in POSITIVE and not fault.value:
        return f"value is 0, and {fault.kind} needs more"
    return ""


def _wrong_target(fault: Fault, names: set[str]) -> str:
    if fault.target in ROLES or (not fault.target and fault.kind in (*EVERYWHERE, *CHOOSING)):
        return ""
    for name in fault.target.split(","):
        if name not in names:
            return f"target {name!r} is none of {', '.join(ROLES)}, and no node from n1 to n{len(names)}"
    return ""
