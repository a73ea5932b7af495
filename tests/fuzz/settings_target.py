"""Fuzzing what people write: flags, environment and file, none of which may end in more than one line."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence

from raftkv.config.option import SettingsError
from raftkv.config.settings import OPTIONS, SHARED
from tests.fuzz.target import Target
from tests.support.settings import settings_of_all, settings_of_node

CLUSTER = b"n1=127.0.0.1:5001,n2=127.0.0.1:5002,n3=127.0.0.1:5003"


class Configuration(Target):
    """A TOML file, then variables, then flags, a zero byte between the three and a line for each of the latter."""

    words = (
        *(option.name.encode() for option in OPTIONS),
        *(option.variable.encode() for option in OPTIONS),
        b"127.0.0.1:5001", b"[::1]:1", b"0.0.0.0:0", b"KiB", b"GiB", b"1e400", b"nan", b"inf", b"-1", b"0x", b"true",
        b"1979-05-27T07:32:00Z", b'"""', b"\'\'\'", b"[a.b]", b"[[a]]", b"{a=1}", b"\nid=" + b"[" * 700, b"\xff",
        b"\nid=" + b"9" * 5000, b"\nid=0x" + b"f" * 5000, b'"a\\nb"=1\n', b"\\ud800", b"\\u001b", b"\0", CLUSTER,
        b"/dev/null", b"/", b"/proc/self/mem", b"a.b.c=1\n", b"=", b"=\n",
    )  # fmt: skip

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self._file = os.path.join(self._directory.name, "raftkv.toml")

    def seeds(self) -> Sequence[bytes]:
        """Return settings that are right, in each of the three ways."""
        needed = [b"id=n1", b"cluster=" + CLUSTER, b"data-dir=/nowhere/data"]
        toml = b'id = "n1"\ndata-dir = "/nowhere/data"\n[cluster]\nn1 = "127.0.0.1:5001"\nn2 = "127.0.0.1:5002"\n'
        all_options = b"".join(b'%s = "%s"\n' % (o.name.encode(), (o.default or "x").encode()) for o in OPTIONS)
        return [
            b"\0\0" + b"\n".join(needed),
            b"\0" + b"\n".join(b"RAFTKV_" + line for line in needed).replace(b"-", b"_").upper() + b"\0",
            b'heartbeat-ms = 20.5\nsegment-bytes = "1MiB"\n' + toml + b"\0\0",
            all_options + b"\0RAFTKV_NONSENSE=1\nRAFTKV_ID=n1\0cluster=" + CLUSTER,
            toml + b"\0\0advertise-raft=127.0.0.1:5001\nraft=0.0.0.0:5001\ncluster-secret-file=/dev/null",
        ]

    def check(self, data: bytes) -> str:
        """Read them for one node, and for all."""
        toml, _, rest = data.partition(b"\0")
        variables, _, arguments = rest.partition(b"\0")
        with open(self._file, "wb") as file:
            file.write(toml)
        environ = self._pairs(variables)
        flags: dict[str, str | None] = {
            name: text for name, text in self._pairs(arguments).items() if name in {option.name for option in OPTIONS}
        }
        try:
            settings, warnings = settings_of_node(flags, environ, self._file)
        except SettingsError as error:
            return self._told(str(error))
        assert all(line.isprintable() for line in warnings), warnings
        assert settings.id in dict(settings.cluster)
        assert 0 < 2 * settings.timing.heartbeat_ms <= settings.timing.election_min_ms < settings.timing.election_max_ms
        settings_of_all({option.name: flags.get(option.name) for option in SHARED}, environ)
        return f"{len(warnings)} warnings"

    def _told(self, line: str) -> str:
        assert line.replace(self._file, "").isprintable(), repr(line)
        assert "Traceback" not in line
        return "".join(c for c in line[-24:] if c.isalpha() or c == " ")

    def _pairs(self, lines: bytes) -> dict[str, str]:
        pairs = (os.fsdecode(line).partition("=") for line in lines.split(b"\n") if line)
        return {name: text for name, _, text in pairs if name and name != "RAFTKV_CONFIG"}

    def close(self) -> None:
        """Remove the file."""
        self._directory.cleanup()
