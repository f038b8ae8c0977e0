"""A real S3 server on loopback (moto's), well and ill: every copy ends in time, the local files stay, a later copy completes."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.errors import StoreUnavailable
from bench.facts.mirror import CopyOutcome
from bench.store import objects
from bench.store.mirror import Mirror
from bench.store.remote import points, pull, push
from tests.conftest import Bench
from tests.faults.conftest import QUICK
from tests.unit.test_remote import content, make_point

moto_server = pytest.importorskip("moto.server", reason="moto[server] is not installed: no S3 server on loopback")
werkzeug = pytest.importorskip("werkzeug.serving")
pytest.importorskip("s3fs", reason="s3fs is not installed")
# boto's and moto's own use of what Python 3.12 and later deprecates is not ours to mend
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

URI = "s3://results/sweep/point-1"
Start = Callable[..., list[bytes]]


@dataclass
class IllServer:
    """moto's S3 behind a layer that fails from the `after`-th request on: `how` is well, refuse, hang or cut."""

    app: Any
    how: str = "well"
    after: int = 0
    n_requests: int = 0
    freed: threading.Event = field(default_factory=threading.Event)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        self.n_requests += 1
        ill = self.n_requests > self.after
        if ill and self.how == "hang":
            self.freed.wait(60)
        if ill and self.how in ("refuse", "hang"):
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("500 Internal Server Error", [("Content-Length", "0")])
            return []
        if ill and self.how == "cut" and environ["REQUEST_METHOD"] == "GET":
            start_response("200 OK", [("Content-Length", "1000000")])
            return [b"half of it"]
        return self.app(environ, start_response)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[IllServer, str]]:
    ill = IllServer(moto_server.DomainDispatcherApplication(moto_server.create_backend_app))
    http = werkzeug.make_server("127.0.0.1", 0, ill, threaded=True)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    yield ill, f"http://127.0.0.1:{http.server_port}"
    ill.freed.set()
    http.shutdown()
    thread.join(10)


@pytest.fixture
def s3(server: tuple[IllServer, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[IllServer]:
    """The server, well and with an empty bucket, as the environment names it."""
    ill, address = server
    ill.how, ill.n_requests, ill.after = "well", 0, 0
    for name, value in {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(objects, "PAUSE_S", 0.05)
    monkeypatch.setattr(objects, "READ_TIMEOUT_S", 1)
    monkeypatch.setattr(objects, "CONNECT_TIMEOUT_S", 1)
    store, _ = objects.open_store(URI)
    if store.exists("results"):
        store.rm("results", recursive=True)  # type: ignore[attr-defined]
    store.makedirs("results", exist_ok=True)  # type: ignore[attr-defined]
    ill.n_requests = 0
    yield ill
    ill.freed.set()
    ill.freed = threading.Event()


def timed_push(run_dir: Path, deadline_s: float) -> tuple[CopyOutcome, float]:
    start_s = time.monotonic()
    outcome = push(run_dir, URI, deadline_s)
    return outcome, time.monotonic() - start_s


def assert_well_again(s3: IllServer, run_dir: Path, before: dict[str, bytes], tmp_path: Path) -> None:
    """The local copy is as it was, and the next push completes what a machine with nothing else then fetches."""
    assert content(run_dir) == before
    s3.freed.set()
    s3.how = "well"
    assert push(run_dir, URI).is_whole
    assert pull(URI, tmp_path / "elsewhere").is_whole
    assert content(tmp_path / "elsewhere") == before


def test_a_point_goes_to_s3_once_and_comes_back_whole(s3: IllServer, tmp_path: Path) -> None:
    run_dir = make_point(tmp_path / "run")
    assert push(run_dir, URI).n_copied == 2
    n_first = s3.n_requests
    assert push(run_dir, URI) == CopyOutcome(uri=URI, n_present=2)
    assert s3.n_requests - n_first <= 4  # the manifest alone is looked at
    assert points("s3://results/sweep") == ("point-1",)
    assert pull(URI, tmp_path / "again").is_whole
    assert content(tmp_path / "again") == content(run_dir)


@pytest.mark.usefixtures("s3")
def test_a_file_of_several_parts_comes_back_whole(tmp_path: Path) -> None:
    run_dir = make_point(tmp_path / "run")
    (run_dir / "trace-rank0.json").write_bytes(bytes(range(256)) * 2**18)  # 64 MiB: more than one part of an upload
    assert push(run_dir, URI).is_whole
    assert pull(URI, tmp_path / "again").is_whole
    assert content(tmp_path / "again") == content(run_dir)


def test_a_refused_connection_is_told_in_time(s3: IllServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run_dir = make_point(tmp_path / "run")
    before = content(run_dir)
    with monkeypatch.context() as nobody_listens:
        nobody_listens.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        outcome, spent_s = timed_push(run_dir, 20)
        assert spent_s < 20
        assert "127.0.0.1:9" in (outcome.error or "")
        with pytest.raises(StoreUnavailable, match="cannot be listed"):
            points("s3://results/sweep", deadline_s=20)
    assert_well_again(s3, run_dir, before, tmp_path)


def test_a_store_that_hangs_costs_no_more_than_the_deadline(s3: IllServer, tmp_path: Path) -> None:
    run_dir = make_point(tmp_path / "run")
    before = content(run_dir)
    s3.how = "hang"
    outcome, spent_s = timed_push(run_dir, 3)
    assert spent_s < 5
    assert outcome.error
    assert_well_again(s3, run_dir, before, tmp_path)


@pytest.mark.parametrize("after", [pytest.param(n, marks=pytest.mark.slow) if n in (1, 2, 5) else n for n in (0, 1, 2, 4, 5)])
def test_a_store_that_fails_half_way_shows_no_half_point(s3: IllServer, after: int, tmp_path: Path) -> None:
    run_dir = make_point(tmp_path / "run")
    before = content(run_dir)
    s3.how, s3.after = "refuse", after
    outcome, spent_s = timed_push(run_dir, 20)
    assert spent_s < 20
    assert outcome.error
    s3.how = "well"
    assert points("s3://results/sweep") == ()
    assert_well_again(s3, run_dir, before, tmp_path)


def test_a_body_that_is_cut_is_not_taken_for_a_file(s3: IllServer, tmp_path: Path) -> None:
    run_dir = make_point(tmp_path / "run")
    assert push(run_dir, URI).is_whole
    s3.how, s3.after, s3.n_requests = "cut", 1, 0
    assert pull(URI, tmp_path / "again", deadline_s=20).error
    assert not (tmp_path / "again").exists()
    s3.how = "well"
    assert pull(URI, tmp_path / "again").is_whole


def test_a_bucket_that_is_not_there_is_told_at_once(s3: IllServer, tmp_path: Path) -> None:
    outcome = push(make_point(tmp_path / "run"), "s3://no-such-bucket/point-1", deadline_s=20)
    assert "bucket" in (outcome.error or "").lower()
    assert s3.n_requests <= 6


def test_a_mirror_does_not_hold_up_who_measures(s3: IllServer, tmp_path: Path) -> None:
    s3.how = "hang"
    mirror = Mirror("s3://results/sweep", point_deadline_s=2)
    start_s = time.monotonic()
    mirror.push_later(make_point(tmp_path / "a"), "a")
    mirror.push_later(make_point(tmp_path / "b"), "b")
    assert time.monotonic() - start_s < 0.5
    outcomes = mirror.drain(8)
    assert [outcome.is_whole for outcome in outcomes] == [False, False]
    assert time.monotonic() - start_s < 9


@pytest.mark.usefixtures("s3")
@pytest.mark.slow
def test_a_sweep_goes_on_from_the_store_alone(bench: Bench, tmp_path: Path) -> None:
    """The machine and its disk are gone after the sweep; the next one measures nothing again."""
    sweep = ("sweep", *QUICK, "device.n_devices=1", "measure.steps=4", "train.seed=0,1", "results_uri=s3://results/swept", "out=swept")
    first = bench(*sweep)
    assert first.returncode == 0, first.stderr
    assert points("s3://results/swept") == ("000-0", "001-1")
    before = (tmp_path / "swept" / "001-1" / "result.json").read_bytes()
    shutil.rmtree(tmp_path / "swept")
    again = bench(*sweep)
    assert again.returncode == 0, again.stderr
    assert "001-1: fetched from s3://results/swept/001-1" in again.stderr
    assert "round 1" not in again.stderr
    assert (tmp_path / "swept" / "001-1" / "result.json").read_bytes() == before


@pytest.mark.slow
def test_a_store_that_refuses_delays_a_run_and_does_not_stop_it(s3: IllServer, bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    s3.how = "refuse"
    run = ("run", *QUICK, "device.n_devices=1", "measure.steps=4", "results_uri=s3://results", "out=kept")
    done = bench(*run)
    assert done.returncode == 0, done.stderr
    assert "going on with what is in ." in done.stderr
    assert "the same command copies them again" in done.stderr
    s3.how = "well"
    assert bench(*run).returncode == 0  # the result is there; it is copied now
    assert points("s3://results") == ("kept",)
