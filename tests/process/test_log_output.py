"""Logging: the format of a record, and that no caller ever waits for the output."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator

import pytest

from raftkv.process.log_output import LogOutput, start_logging

WITHIN_S = 10.0


class Pipe:
    """A pipe to log into, and the lines that came out."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self._read = b""

    def lines(self, output: LogOutput) -> list[str]:
        """Return the lines that ``output`` has written, at most as many as fit into the pipe."""
        assert output.flush_within(WITHIN_S)
        return os.read(self.reader, 1 << 20).decode().splitlines()

    def lines_until(self, pattern: str) -> list[str]:
        """Return the lines up to the first that contains ``pattern``."""
        while (end := re.search(pattern.encode() + b"[^\n]*\n", self._read)) is None:
            self._read += os.read(self.reader, 1 << 16)
        text, self._read = self._read[: end.end()], self._read[end.end() :]
        return text.decode().splitlines()

    def close_reader(self) -> None:
        os.close(self.reader)
        self.reader = -1


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    # The reading end is closed first: a thread that still writes then gets an error instead of blocking for ever.
    if pipe.reader >= 0:
        os.close(pipe.reader)
    os.close(pipe.writer)


@pytest.fixture
def loggers() -> Iterator[None]:
    """Restore the loggers afterwards."""
    root, ours = logging.getLogger(), logging.getLogger("raftkv")
    before = root.handlers[:], root.level, ours.level
    yield
    logging.captureWarnings(False)
    root.handlers[:] = before[0]
    root.setLevel(before[1])
    ours.setLevel(before[2])


def record(message: str, *values: object, level: int = logging.INFO, exc_info: object = None) -> logging.LogRecord:
    """Return a record with a fixed time."""
    made = logging.LogRecord("raftkv.test", level, "", 0, message, values, exc_info)  # type: ignore[arg-type]
    made.created, made.msecs = 1_700_000_000.0, 7.0
    return made


def failure() -> object:
    try:
        raise OSError("disk on fire")
    except OSError:
        return sys.exc_info()


def test_a_record_is_a_line_of_text(pipe: Pipe) -> None:
    output = LogOutput(pipe.writer, "text", node_id="n1")

    output.handle(record("%s of %d", "one", 3))
    output.handle(record("careful", level=logging.WARNING))

    assert pipe.lines(output) == [
        "2023-11-14T22:13:20.007Z INFO    n1 raftkv.test: one of 3",
        "2023-11-14T22:13:20.007Z WARNING n1 raftkv.test: careful",
    ]


def test_a_record_is_a_json_object(pipe: Pipe) -> None:
    output = LogOutput(pipe.writer, "json", node_id="n1")

    output.handle(record("a/b <ä>\n\udc80"))

    assert [json.loads(line) for line in pipe.lines(output)] == [
        {
            "time": "2023-11-14T22:13:20.007Z",
            "level": "info",
            "node": "n1",
            "logger": "raftkv.test",
            "message": "a/b <ä>\n\udc80",
        }
    ]


def test_a_message_cannot_forge_a_line_or_move_the_cursor(pipe: Pipe) -> None:
    output = LogOutput(pipe.writer, "text")

    output.handle(record("key %s", "a\n2023 INFO n1: all is well\x1b[2J\udc80 ä"))

    assert pipe.lines(output) == [
        "2023-11-14T22:13:20.007Z INFO    - raftkv.test: key a\\n2023 INFO n1: all is well\\x1b[2J\\udc80 ä"
    ]


def test_a_trace_is_indented_below_its_line(pipe: Pipe) -> None:
    output = LogOutput(pipe.writer, "text")

    output.handle(record("failed", exc_info=failure()))

    lines = pipe.lines(output)
    assert lines[0] == "2023-11-14T22:13:20.007Z INFO    - raftkv.test: failed"
    assert lines[-1] == "    OSError: disk on fire"
    assert all(line.startswith("    ") for line in lines[1:])


def test_a_trace_is_a_field_of_the_json_object(pipe: Pipe) -> None:
    output = LogOutput(pipe.writer, "json")

    output.handle(record("failed", exc_info=failure()))

    (line,) = pipe.lines(output)
    assert json.loads(line)["trace"].endswith("\nOSError: disk on fire")


def test_a_record_that_cannot_be_formatted_is_still_logged(pipe: Pipe) -> None:
    output = LogOutput(pipe.writer, "text")

    output.handle(record("%d", "three"))

    assert pipe.lines(output) == ["INFO raftkv.test: cannot format '%d'"]


def test_logging_never_waits_for_a_pipe_without_a_reader(pipe: Pipe) -> None:
    """A stopped terminal must not stop the node: records that do not fit are dropped and counted."""
    output = LogOutput(pipe.writer, "text", capacity=10)
    total = 1000

    # More than a pipe takes, so that from here on the output is stuck.
    output.line("x" * 500_000)
    for number in range(total):
        output.handle(record("record %d", number))
    assert not output.flush_within(0)

    lines = pipe.lines_until("were dropped")
    output.handle(record("after the gap"))
    lines += pipe.lines_until("after the gap")
    written = [line for line in lines if ": record " in line]
    dropped = [int(found[1]) for line in lines if (found := re.search(r"(\d+) log records were dropped", line))]
    assert lines[0] == "x" * 500_000
    assert len(written) + sum(dropped) == total
    assert 0 < len(written) <= 10


def test_a_descriptor_that_does_not_block_is_waited_for(pipe: Pipe) -> None:
    """A shell may leave a shared terminal in that mode."""
    os.set_blocking(pipe.writer, False)
    output = LogOutput(pipe.writer, "text")
    for _ in range(300):
        output.line("y" * 999)
    output.line("the end")

    assert pipe.lines_until("the end") == ["y" * 999] * 300 + ["the end"]


def test_logging_goes_on_when_the_reader_has_gone(pipe: Pipe) -> None:
    output = LogOutput(pipe.writer, "text")
    pipe.close_reader()

    output.handle(record("unread"))

    assert output.flush_within(WITHIN_S)


def test_libraries_log_from_warnings_on_and_raftkv_from_the_given_level(pipe: Pipe, loggers: None) -> None:
    output = start_logging("debug", "json", node_id="n1", descriptor=pipe.writer)

    logging.getLogger("raftkv.x").debug("ours")
    logging.getLogger("tornado.access").info("not this")
    logging.getLogger("tornado.access").warning("theirs")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("odd", stacklevel=1)

    found = [json.loads(line) for line in pipe.lines(output)]
    assert [(entry["level"], entry["logger"]) for entry in found] == [
        ("debug", "raftkv.x"),
        ("warning", "tornado.access"),
        ("warning", "py.warnings"),
    ]
