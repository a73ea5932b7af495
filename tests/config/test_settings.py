"""Configuration: where a setting comes from, which values it may have, and the complaint about a wrong one."""

from __future__ import annotations

import ast
from pathlib import Path

import msgspec
import pytest

from raftkv.config.option import SettingsError
from raftkv.config.settings import OPTIONS, Limits, Secret, Settings, Timing
from raftkv.config.values import HostPort, format_size, parse_cluster, parse_host_port, parse_size
from tests.support.settings import settings_of_all, settings_of_node

CLUSTER = "n1=127.0.0.1:5001,n2=127.0.0.1:5002,n3=127.0.0.1:5003"
PEERS = tuple((f"n{number}", HostPort("127.0.0.1", 5000 + number)) for number in (1, 2, 3))


def flags(**changes: str | None) -> dict[str, str | None]:
    """Return the flags of a valid node, with changes; None leaves one out."""
    given = {"id": "n1", "cluster": CLUSTER, "data_dir": "data"} | changes
    return {name.replace("_", "-"): value for name, value in given.items() if value is not None}


def settings(**changes: str | None) -> Settings:
    return settings_of_node(flags(**changes), {})[0]


def complaint(changes: dict[str, str | None], environ: dict[str, str] | None = None, config: Path | None = None) -> str:
    """Return the complaint about wrong settings, which is always one line."""
    with pytest.raises(SettingsError) as raised:
        settings_of_node(flags(**changes), environ or {}, None if config is None else str(config))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def toml(directory: Path, text: str) -> Path:
    path = directory / "node.toml"
    path.write_text(text)
    return path


def test_a_setting_that_is_not_given_has_its_default() -> None:
    assert settings_of_node(flags(), {}) == (
        Settings(
            id="n1",
            http=HostPort("127.0.0.1", 4001),
            raft=HostPort("127.0.0.1", 5001),
            advertise_http=HostPort("127.0.0.1", 4001),
            cluster=PEERS,
            data_dir="data",
            secret=None,
            timing=Timing(),
            limits=Limits(),
            log_level="info",
            log_format="text",
        ),
        [],
    )


def test_every_setting_can_be_given_as_a_flag_a_variable_and_in_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    secret.chmod(0o600)
    given = {
        "id": "n2",
        "http": "127.0.0.1:4102",
        "raft": "0.0.0.0:5002",
        "cluster": CLUSTER,
        "data-dir": "elsewhere",
        "advertise-http": "kv.example:80",
        "advertise-raft": "127.0.0.1:5002",
        "cluster-secret-file": str(secret),
        "timing": "2",
        "heartbeat-ms": "10",
        "election-min-ms": "40",
        "election-max-ms": "90",
        "key-bytes": "100",
        "value-bytes": "2KiB",
        "header-bytes": "4KiB",
        "uncommitted-bytes": "1MiB",
        "append-bytes": "64KiB",
        "inflight-bytes": "128KiB",
        "held-requests": "7",
        "segment-bytes": "64KiB",
        "log-level": "debug",
        "log-format": "json",
    }
    expected = Settings(
        id="n2",
        http=HostPort("127.0.0.1", 4102),
        raft=HostPort("0.0.0.0", 5002),
        advertise_http=HostPort("kv.example", 80),
        cluster=PEERS,
        data_dir="elsewhere",
        secret=Secret(b"s3cret"),
        timing=Timing(20, 80, 180),
        limits=Limits(100, 2048, 4096, 1 << 20, 64 << 10, 128 << 10, 7, 64 << 10),
        log_level="debug",
        log_format="json",
    )
    variables = {"RAFTKV_" + name.upper().replace("-", "_"): text for name, text in given.items()}
    file = toml(tmp_path, "".join(f'{name} = "{text}"\n' for name, text in given.items()))

    assert list(given) == [option.name for option in OPTIONS]
    assert settings_of_node(given, {}) == (expected, [])
    assert settings_of_node({}, variables) == (expected, [])
    assert settings_of_node({}, {}, str(file)) == (expected, [])
    assert settings_of_node({}, {"RAFTKV_CONFIG": str(file)}) == (expected, [])


def test_a_flag_overrides_a_variable_and_a_variable_overrides_the_file(tmp_path: Path) -> None:
    file = str(toml(tmp_path, 'http = "127.0.0.1:1"\nlog-level = "error"\ntiming = 3'))
    environ = {"RAFTKV_HTTP": "127.0.0.1:2", "RAFTKV_LOG_LEVEL": "warning"}

    found, _ = settings_of_node(flags(http="127.0.0.1:3"), environ, file)

    assert (found.http.port, found.log_level, found.timing.heartbeat_ms) == (3, "warning", 150.0)


def test_an_empty_variable_counts_as_not_set() -> None:
    assert settings_of_node(flags(), {"RAFTKV_HTTP": "", "RAFTKV_CONFIG": ""}) == settings_of_node(flags(), {})


def test_a_file_may_contain_numbers_and_the_cluster_as_a_table(tmp_path: Path) -> None:
    file = toml(tmp_path, 'timing = 2\nvalue-bytes = 1000\n[cluster]\nn2 = "b:2"\nn1 = "127.0.0.1:5001"')

    found, _ = settings_of_node(flags(cluster=None), {}, str(file))

    assert found.cluster == (("n1", HostPort("127.0.0.1", 5001)), ("n2", HostPort("b", 2)))
    assert (found.timing, found.limits.value_bytes) == (Timing(100, 300, 600), 1000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bogus = 1", "bogus in {file}: unknown setting"),
        ("heartbeat = 1", "heartbeat in {file}: unknown setting; did you mean heartbeat-ms?"),
        ("data_dir = 'x'", "data_dir in {file}: unknown setting; did you mean data-dir?"),
        ("timing = true", "timing in {file}: True is neither text nor a number"),
        ("cluster = ['n1']", "cluster in {file}: ['n1'] is neither text nor a number"),
        ("id." + "a." * 5000 + "a = 1", "id in {file}: is nested too deeply"),
        ("timing = 'fast'", "timing in {file}: 'fast' is not a number from 0.1 to 100"),
        ("id =", "--config: {file} is not TOML: Invalid value (at end of document)"),
    ],
    ids=lambda value: value[:30],
)
def test_a_complaint_about_a_file_names_key_and_file(tmp_path: Path, text: str, message: str) -> None:
    file = toml(tmp_path, text)

    assert complaint({}, config=file) == message.format(file=file)


def test_a_complaint_about_an_unreadable_file_says_where_it_was_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"

    assert complaint({}, config=missing) == f"--config: cannot read {missing}: No such file or directory"
    assert complaint({}, {"RAFTKV_CONFIG": str(missing)}) == (
        f"RAFTKV_CONFIG: cannot read {missing}: No such file or directory"
    )


def test_a_complaint_says_where_the_value_was_given(tmp_path: Path) -> None:
    message = "'nowhere' is not HOST:PORT, such as 127.0.0.1:4001 or [::1]:4001"
    file = toml(tmp_path, 'http = "nowhere"')

    assert complaint({"http": "nowhere"}) == f"--http: {message}"
    assert complaint({}, {"RAFTKV_HTTP": "nowhere"}) == f"RAFTKV_HTTP: {message}"
    assert complaint({}, config=file) == f"http in {file}: {message}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"id": None},
            "--id is missing: give --id ID, set RAFTKV_ID, or write id = … in the file that --config names",
        ),
        (
            {"id": "n 1"},
            "--id: 'n 1' is not a node id; use up to 64 letters, digits, dots, dashes and underscores, such as n1",
        ),
        ({"id": "n9"}, "--id: n9 is not in --cluster (n1, n2, n3)"),
        (
            {"cluster": None},
            "--cluster is missing: give --cluster ID=HOST:PORT,…, set RAFTKV_CLUSTER, "
            "or write cluster = … in the file that --config names",
        ),
        (
            {"cluster": " , "},
            "--cluster: the list is empty; give all nodes, such as n1=127.0.0.1:5001,n2=127.0.0.1:5002",
        ),
        (
            {"cluster": "n1"},
            "--cluster: 'n1' is not ID=HOST:PORT; give all nodes, such as n1=127.0.0.1:5001,n2=127.0.0.1:5002",
        ),
        ({"cluster": "n1=a:1,n1=b:1"}, "--cluster: n1 is listed twice; each node needs its own id"),
        (
            {"cluster": "n1=a:1,n2=a:1"},
            "--cluster: n1 and n2 have the same address a:1; each node needs its own",
        ),
        (
            {"cluster": "n1=a:0"},
            "--cluster: 'a:0' has port 0, but the other nodes must know the port; give one from 1 to 65535",
        ),
        (
            {"cluster": "n1=0.0.0.0:5001"},
            "--cluster: '0.0.0.0:5001' means every interface; give an address that others can connect to",
        ),
        (
            {"raft": "127.0.0.1:0"},
            "--raft: '127.0.0.1:0' has port 0, but the other nodes must know the port; give one from 1 to 65535",
        ),
        (
            {"raft": "127.0.0.1:5009"},
            "--raft: 127.0.0.1:5009 differs from n1=127.0.0.1:5001 in --cluster; make them equal, "
            "or give --advertise-raft 127.0.0.1:5001 if peers reach this node there",
        ),
        (
            {"raft": "0.0.0.0:5009"},
            "--raft: 0.0.0.0:5009 differs from n1=127.0.0.1:5001 in --cluster; make them equal, "
            "or give --advertise-raft 127.0.0.1:5001 if peers reach this node there",
        ),
        (
            {"advertise_raft": "kv1:5001"},
            "--advertise-raft: kv1:5001 differs from n1=127.0.0.1:5001 in --cluster; make them equal",
        ),
        (
            {"http": "127.0.0.1:5001"},
            "--http: 127.0.0.1:5001 is the address of --raft (by default) too; give each a port of its own",
        ),
        ({"data_dir": ""}, "--data-dir: the path is empty"),
        (
            {"data_dir": __file__},
            f"--data-dir: {__file__} is not a directory; give a directory, or a path to create one at",
        ),
        (
            {"cluster_secret_file": "/nowhere"},
            "--cluster-secret-file: cannot read /nowhere: No such file or directory",
        ),
        (
            {"cluster_secret_file": "/dev/null"},
            "--cluster-secret-file: /dev/null is empty; write a secret to it once, such as the output of "
            "`head -c 32 /dev/urandom | base64`, and copy it to all nodes",
        ),
        ({"timing": "0"}, "--timing: '0' is not a number from 0.1 to 100"),
        ({"timing": "nan"}, "--timing: 'nan' is not a number from 0.1 to 100"),
        (
            {"heartbeat_ms": "100"},
            "--election-min-ms (by default): 150 is less than twice the 100 of --heartbeat-ms, "
            "so one lost message would start an election; give 200 or more",
        ),
        (
            {"election_max_ms": "150"},
            "--election-max-ms: 150 is not more than the 150 of --election-min-ms (by default), "
            "so nodes would campaign at the same time; give about 300",
        ),
        (
            {"value_bytes": "1MB"},
            "--value-bytes: '1MB' is not a size; give a whole number of bytes, KiB, MiB or GiB, such as 64KiB",
        ),
        ({"value_bytes": "1GiB"}, "--value-bytes: '1GiB' is out of range; give 1 to 16MiB"),
        (
            {"uncommitted_bytes": "2MiB"},
            "--uncommitted-bytes: 2MiB is less than twice the largest key and value; give 2056KiB or more",
        ),
        (
            {"inflight_bytes": "1KiB"},
            "--inflight-bytes: 1KiB is less than append-bytes; give 256KiB or more",
        ),
        ({"held_requests": "many"}, "--held-requests: 'many' is not a whole number from 1 to 1048576"),
        ({"log_level": "loud"}, "--log-level: 'loud' is not one of debug, info, warning, error"),
    ],
)
def test_a_complaint_is_one_line_and_says_what_would_be_right(changes: dict[str, str | None], message: str) -> None:
    assert complaint(changes) == message


def test_a_contradiction_names_the_origin_of_both_values() -> None:
    assert complaint({"id": None, "cluster": None}, {"RAFTKV_ID": "n9", "RAFTKV_CLUSTER": "n1=a:1"}) == (
        "RAFTKV_ID: n9 is not in RAFTKV_CLUSTER (n1)"
    )


def test_a_node_that_listens_on_every_interface_is_reached_at_its_listed_address() -> None:
    found = settings(raft="0.0.0.0:5001", cluster="n1=kv1:5001", http="0.0.0.0:4001")

    assert (found.raft, found.cluster) == (HostPort("0.0.0.0", 5001), (("n1", HostPort("kv1", 5001)),))


def test_a_node_may_listen_at_another_address_than_it_advertises() -> None:
    found = settings(raft="0.0.0.0:6000", cluster="n1=kv1:5001", advertise_raft="kv1:5001")

    assert (found.raft, found.cluster) == (HostPort("0.0.0.0", 6000), (("n1", HostPort("kv1", 5001)),))


def test_the_order_of_the_list_does_not_matter() -> None:
    assert settings(cluster="n3=127.0.0.1:5003, n1=127.0.0.1:5001,n2=127.0.0.1:5002") == settings()


def test_an_unknown_variable_causes_a_warning() -> None:
    environ = {"RAFTKV_CLUSTR": "x", "RAFTKV_ZZZ": "x", "OTHER": "x"}

    assert settings_of_node(flags(), environ) == (
        settings(),
        [
            "RAFTKV_CLUSTR in the environment is not a setting and has no effect; did you mean RAFTKV_CLUSTER?",
            "RAFTKV_ZZZ in the environment is not a setting and has no effect",
        ],
    )


def test_a_secret_that_others_can_read_causes_a_warning_and_is_never_shown(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("  hush\n")
    secret.chmod(0o640)

    found, warnings = settings_of_node(flags(cluster_secret_file=str(secret)), {})

    assert found.secret == Secret(b"hush")
    assert "hush" not in repr(found)
    assert warnings == [f"{secret} can be read by other users of this machine; `chmod 600 {secret}` prevents that"]


def test_a_raft_port_open_to_the_network_without_a_secret_causes_a_warning() -> None:
    _, warnings = settings_of_node(flags(raft="0.0.0.0:5001"), {})

    assert warnings == ["--cluster-secret-file is not set: anyone who can reach 0.0.0.0:5001 can pose as a peer"]


def test_the_defaults_of_the_command_line_are_those_of_the_types() -> None:
    found = settings()

    assert (found.timing, found.limits) == (Timing(), Limits())
    options = {option.name for option in OPTIONS}
    assert {name.replace("_", "-") for name in Limits.__struct_fields__ + Timing.__struct_fields__} <= options


NOT_FIELDS = {"timing": "a factor of the times", "advertise-raft": "checked against --cluster",
              "cluster-secret-file": "read into `secret`"}  # fmt: skip


def test_every_setting_reaches_a_field_that_something_reads() -> None:
    """A setting that is declared and has no effect would be accepted in silence."""
    root = Path(__file__).resolve().parents[2]
    users = [path for folder in ("raftkv/process", "actors", "http") for path in (root / folder).rglob("*.py")]
    users.append(root / "raftkv" / "cli.py")
    read = {
        node.attr for path in users for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)
    }
    fields = {*Settings.__struct_fields__, *Limits.__struct_fields__, *Timing.__struct_fields__}
    for option in OPTIONS:
        if option.name not in NOT_FIELDS:
            assert option.field in fields, f"--{option.name} reaches no field of Settings, Timing or Limits"
            assert option.field in read, f"nothing reads {option.field}"


def test_settings_shared_by_all_nodes_are_checked_and_kept_as_texts() -> None:
    assert settings_of_all({"timing": "2", "log-level": None}, {"RAFTKV_VALUE_BYTES": "1KiB"}) == {
        "timing": "2.0",
        "value-bytes": "1KiB",
    }
    with pytest.raises(SettingsError, match="--log-level: 'loud'"):
        settings_of_all({"log-level": "loud"}, {})


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("127.0.0.1:0", HostPort("127.0.0.1", 0)),
        ("node-1.example:65535", HostPort("node-1.example", 65535)),
        ("[::1]:80", HostPort("::1", 80)),
        ("[fe80::1%eth0]:80", HostPort("fe80::1%eth0", 80)),
    ],
)
def test_an_endpoint_is_a_host_and_a_port(text: str, endpoint: HostPort) -> None:
    assert (parse_host_port(text), str(endpoint)) == (endpoint, text)


@pytest.mark.parametrize(
    "text", ["", ":80", "a", "a:", "a:x", "a:65536", "::1:80", "a b:1", "http://a:1", "a:1/", "ä:1"]
)
def test_any_other_text_is_not_an_endpoint(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        parse_host_port(text)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("1b", 1), ("64KiB", 65536), ("3 mib", 3 << 20), ("2GiB", 2 << 30)]
)
def test_a_size_has_a_unit_or_none(text: str, size: int) -> None:
    assert parse_size(0, 1 << 40)(text) == size
    assert parse_size(0, 1 << 40)(format_size(size)) == size


def test_a_list_of_nodes_is_sorted_by_id() -> None:
    assert parse_cluster("b=h:2, a=h:1,") == (("a", HostPort("h", 1)), ("b", HostPort("h", 2)))


def test_settings_are_immutable() -> None:
    with pytest.raises(AttributeError):
        settings().id = "n2"  # type: ignore[misc]
    assert msgspec.structs.replace(settings(), id="n2").id == "n2"
