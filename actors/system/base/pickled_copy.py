"""The debug mode that copies every message by pickling it, to find actors that share state through messages."""

from __future__ import annotations

import copyreg
import io
import pickle
from types import BuiltinFunctionType, FunctionType, MappingProxyType, MethodType
from typing import Any

_BY_REFERENCE = FunctionType | MethodType | BuiltinFunctionType


def pickled_copy(message: Any) -> Any:
    """Return a copy of ``message`` made by pickling; raises what ``pickle`` raises if it can't be pickled.

    Functions and methods are passed by reference: a message that carries one means it to be called, and calling the
    method of a copy would have no effect. The bytes never leave this module.
    """
    file = io.BytesIO()
    try:
        _PlainPickler(file, pickle.HIGHEST_PROTOCOL).dump(message)
    except (pickle.PicklingError, AttributeError, TypeError):
        return _copy_around_functions(message)
    return pickle.loads(file.getbuffer())


def _copy_around_functions(message: Any) -> Any:
    left_out: list[Any] = []
    file = io.BytesIO()
    _PicklerAroundFunctions(file, left_out).dump(message)
    file.seek(0)
    return _UnpicklerAroundFunctions(file, left_out).load()


def _refuse(function: Any) -> Any:
    raise pickle.PicklingError(f"{function} is to be left out")


class _PlainPickler(pickle.Pickler):
    """The fast way, for messages without methods (functions of modules are pickled as their names)."""

    dispatch_table = MappingProxyType(copyreg.dispatch_table | {MethodType: _refuse, BuiltinFunctionType: _refuse})


class _PicklerAroundFunctions(pickle.Pickler):
    """Ten times slower, because ``persistent_id`` is called for every object."""

    def __init__(self, file: io.BytesIO, left_out: list[Any]) -> None:
        super().__init__(file, pickle.HIGHEST_PROTOCOL)
        self._left_out = left_out

    def persistent_id(self, obj: Any) -> int | None:
        """Return the index of a function among those left out; None for other objects."""
        if not isinstance(obj, _BY_REFERENCE):
            return None
        self._left_out.append(obj)
        return len(self._left_out) - 1


class _UnpicklerAroundFunctions(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, left_out: list[Any]) -> None:
        super().__init__(file)
        self._left_out = left_out

    def persistent_load(self, pid: Any) -> Any:
        """Return a function that was left out."""
        return self._left_out[pid]
