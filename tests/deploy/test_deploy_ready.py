"""The health check of a container: only the status 200 counts as ready."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from deploy.ready import address
from tests.support.processes import ROOT, environment, free_ports


def check(listen: str) -> tuple[int, str]:
    """Run the health check as a container does; return its exit status and its output."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "deploy/ready.py"],
        cwd=ROOT,
        env=environment() | {"RAFTKV_HTTP": listen},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.parametrize(("status", "exit_status"), [(200, 0), (503, 1), (404, 1)])
def test_only_200_is_ready(status: int, exit_status: int) -> None:
    asked: list[str] = []

    class Node(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"the body")

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Node) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        result = (1, "no answer: timed out\n")
        # The check has a short timeout, and this machine may be busy.
        while result == (1, "no answer: timed out\n"):
            result = check(f"0.0.0.0:{server.server_port}")
        server.shutdown()
        thread.join()

    assert (result, set(asked)) == ((exit_status, "the body\n"), {"/readyz?verbose"})


def test_a_node_that_does_not_answer_is_not_ready() -> None:
    status, said = check(f"127.0.0.1:{free_ports()}")

    assert (status, said.startswith("no answer: ")) == (1, True)


def test_the_request_goes_to_the_address_on_which_the_node_listens() -> None:
    assert [address(text) for text in ("0.0.0.0:1", "[::]:2", "10.0.0.1:3", "[::1]:4")] == [
        *(("127.0.0.1", 1), ("::1", 2), ("10.0.0.1", 3), ("::1", 4))
    ]
