"""Schedule files: the plan of a run as JSON, to be run again, with a line that says what it once showed."""

from __future__ import annotations

from pathlib import Path

import msgspec

from raftkv.config.settings import Limits
from raftkv.simulation.faults.faults import EVERYWHERE, KINDS, Fault
from raftkv.simulation.run import RunPlan

MOST_NODES = 99
"""As many as the command line accepts."""

LEAST_SEGMENT = 64 << 10
"""In bytes: the least that the settings of a node accept."""

ROLES = ("leader", "follower", "any", "most", "all")
"""Targets that are not names; they are resolved when the fault starts."""

LIKELY = ("loss", "repeat", "replay")
"""Kinds whose value is a probability."""

POSITIVE = ("rate", "flap")
"""Kinds whose value must not be 0: a clock would stop, or a node would change sides without end."""

CHOOSING = ("halves", "ring")
"""Kinds that choose their own targets if none is given."""


class Schedule(RunPlan, frozen=True, forbid_unknown_fields=True):
    """A plan and the violation that it showed."""

    story: str = ""
    """The violation, in one line."""


def save(path: Path, plan: RunPlan, story: str = "") -> None:
    """Write a plan to a file: JSON with one line for each fault."""
    fields = {name: getattr(plan, name) for name in RunPlan.__struct_fields__}
    faults = fields.pop("faults")
    lines = [f" {_json(name)}: {_json(value)}," for name, value in {"story": story, **fields}.items()]
    inner = ",\n".join(f"  {_json(fault)}" for fault in faults)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["{", *lines, ' "faults": [', inner, " ]", "}", ""]))


def load(path: Path) -> Schedule:
    """Read a schedule file; raises ``OSError``, or ``ValueError`` ("is not a schedule: …") if it is invalid."""
    try:
        read = msgspec.json.decode(path.read_bytes(), type=Schedule)
    except msgspec.ValidationError as error:
        raise ValueError(f"is not a schedule: {error}") from None
    except (ValueError, RecursionError):
        raise ValueError("is not a schedule: it is not JSON") from None
    if problem := _plan_error(read):
        raise ValueError(f"is not a schedule: {problem}")
    return read


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


# --- validation


def _plan_error(plan: RunPlan) -> str:
    """Return what is wrong with a plan, or ""."""
    if not 1 <= plan.nodes <= MOST_NODES:
        return f"nodes is {plan.nodes}, must be from 1 to {MOST_NODES}"
    if plan.events < 1:
        return f"events is {plan.events}, must be at least 1"
    if error := _limit_error(plan.limits):
        return error
    names = {f"n{number + 1}" for number in range(plan.nodes)}
    for number, fault in enumerate(plan.faults, 1):
        if error := _kind_error(fault) or _number_error(fault) or _target_error(fault, names):
            return f"fault {number}: {error}"
    return ""


def _limit_error(limits: Limits) -> str:
    for name in Limits.__struct_fields__:
        least, value = LEAST_SEGMENT if name == "segment_bytes" else 1, getattr(limits, name)
        if value < least:
            return f"{name} is {value}, must be at least {least}"
    return ""


def _kind_error(fault: Fault) -> str:
    known = [kind for kinds in KINDS.values() for kind in kinds]
    return "" if fault.kind in known else f"kind {fault.kind!r} is not one of {', '.join(known)}"


def _number_error(fault: Fault) -> str:
    for name in ("at_ms", "for_ms", "value"):
        if getattr(fault, name) < 0:
            return f"{name} is {getattr(fault, name):g}, must not be negative"
    if fault.kind in LIKELY and fault.value > 1:
        return f"value is {fault.value:g}, must be a probability from 0 to 1 for {fault.kind}"
    if fault.kind in POSITIVE and not fault.value:
        return f"value is 0, must be positive for {fault.kind}"
    return ""


def _target_error(fault: Fault, names: set[str]) -> str:
    if fault.target in ROLES or (not fault.target and fault.kind in (*EVERYWHERE, *CHOOSING)):
        return ""
    for name in fault.target.split(","):
        if name not in names:
            return f"target {name!r} is neither one of {', '.join(ROLES)} nor a node from n1 to n{len(names)}"
    return ""
