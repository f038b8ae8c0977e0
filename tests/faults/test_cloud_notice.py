"""A run on a machine that its cloud takes away."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.faults.conftest import QUICK, Start


class Google(ThreadingHTTPServer):
    """The metadata server of one instance."""

    is_preempted = False


@pytest.fixture
def google() -> Iterator[Google]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert isinstance(self.server, Google)
            body = b"TRUE" if self.server.is_preempted else b"FALSE"
            self.send_response(200 if self.headers.get("Metadata-Flavor") == "Google" else 403)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = Google(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_a_notice_is_as_good_as_a_sigterm(start: Start, google: Google, tmp_path: Path) -> None:
    (tmp_path / "firmware").mkdir()
    (tmp_path / "firmware" / "product_name").write_text("Google Compute Engine\n")
    (tmp_path / "firmware" / "sys_vendor").write_text("Google\n")
    elsewhere = {"BENCH_METADATA_URL": f"http://127.0.0.1:{google.server_port}", "BENCH_FIRMWARE": str(tmp_path / "firmware")}
    running = start("run", *QUICK, "measure.steps=100000", "out=kept", **elsewhere)
    running.wait_for("measuring: ")
    google.is_preempted = True
    assert running.end(30) == 75, running.told
    assert "gcp has announced preempted: stopping" in running.told
    assert (tmp_path / "kept" / "partial.json").exists()
