"""Copies in a store: what a URI may say, what counts as finished, what a reader may see, and that nothing leads outside."""

import json
import random
import threading
from importlib import util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.codec import decode_text
from bench.errors import ExitCode, InvalidFact, StoreUnavailable, UsageError
from bench.facts.mirror import CopyOutcome, Manifest, check_name
from bench.store import objects
from bench.store.mirror import Mirror
from bench.store.remote import check_uri, finished_files, point_uri, points, pull, push


def make_point(run_dir: Path, text: str = '{"tokens_per_s": 1}') -> Path:
    (run_dir / "log").mkdir(parents=True)
    (run_dir / "result.json").write_text(text)
    (run_dir / "log" / "rank0.log").write_text("step 1\n")
    return run_dir


def content(run_dir: Path) -> dict[str, bytes]:
    return {path.relative_to(run_dir).as_posix(): path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}


@pytest.mark.parametrize("uri", ["s3://bucket/sweep-1", "file:///tmp/a.b/c", "memory://x/y=1,z"])
def test_a_plain_uri_is_taken_without_its_last_slash(uri: str) -> None:
    assert check_uri(uri) == check_uri(uri + "/") == uri


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("http://host/x", "none of s3://"),
        ("s4://bucket/x", "none of s3://"),
        ("bucket/x", "none of s3://"),
        ("s3://AKIAABCDEFGHIJKLMNOP:planted-secret@bucket/x", "carries credentials"),
        ("s3://bucket/x?X-Amz-Signature=planted-secret", "has a query"),
        ("file://host/x", "is not absolute"),
        ("s3://UPPER/x", "3 to 63"),
        ("s3:///x", "3 to 63"),
        ("s3://bucket/../other", "'..' or unusual"),
        ("s3://bucket/a//b", "'..' or unusual"),
        ("s3://bucket/a b", "'..' or unusual"),
        ("file:///tmp/../etc", "'..' or unusual"),
        ("memory://", "empty"),
    ],
)
def test_a_doubtful_uri_is_refused_in_one_line_without_its_secret(uri: str, why: str) -> None:
    with pytest.raises(UsageError) as refused:
        check_uri(uri)
    text = str(refused.value)
    assert why in text
    assert text.startswith("results_uri: ")
    assert "\n" not in text
    assert "planted" not in text


def test_a_scheme_without_its_library_names_the_extra() -> None:
    if util.find_spec("gcsfs"):
        pytest.skip("gcsfs is installed here")
    with pytest.raises(UsageError, match=r"pip install 'proxybench\[gs\]'"):
        check_uri("gs://bucket/x")


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", "a//b", "", ".", "..", "a\\b", "a\nb", "~", "c:x", "x" * 300])
def test_a_name_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(InvalidFact, match="is no relative path"):
        check_name(name)
    with pytest.raises(InvalidFact):
        point_uri("memory://here", name)


@given(st.text(max_size=40))
def test_a_name_that_is_taken_stays_below_its_folder(name: str) -> None:
    try:
        check_name(name)
    except InvalidFact:
        return
    assert (Path("/out") / name).resolve().is_relative_to("/out")
    assert (Path("/out") / name).resolve() != Path("/out")


def test_links_hidden_and_passing_files_are_not_finished(tmp_path: Path) -> None:
    run_dir = make_point(tmp_path / "run")
    (tmp_path / "secret").write_text("outside")
    (run_dir / "link").symlink_to(tmp_path / "secret")
    (run_dir / ".result.json.1.tmp").write_text("half")
    (run_dir / "step-3.tmp").mkdir()
    (run_dir / "step-3.tmp" / "shard").write_text("half")
    (run_dir / "bench.lock").write_text("")
    assert set(finished_files(run_dir)) == {"result.json", "log/rank0.log"}


@pytest.fixture(params=["file", "memory"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"file://{tmp_path}/remote/p" if request.param == "file" else f"memory://{tmp_path.name}/p"


def test_what_was_pushed_comes_back_byte_for_byte_and_is_sent_once(uri: str, tmp_path: Path) -> None:
    run_dir = make_point(tmp_path / "run")
    n_bytes = len('{"tokens_per_s": 1}') + len("step 1\n")
    assert push(run_dir, uri) == CopyOutcome(uri=uri, n_copied=2, copied_bytes=n_bytes)
    assert push(run_dir, uri) == CopyOutcome(uri=uri, n_present=2)
    assert pull(uri, tmp_path / "again") == CopyOutcome(uri=uri, n_copied=2, copied_bytes=n_bytes)
    assert content(tmp_path / "again") == content(run_dir)
    assert pull(uri, tmp_path / "again").n_copied == 0  # local first
    assert points(uri.rpartition("/")[0]) == ("p",)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.endswith(".tmp")) == []


def test_a_changed_file_is_sent_alone_and_the_reader_sees_the_new_point(uri: str, tmp_path: Path) -> None:
    run_dir = make_point(tmp_path / "run", '{"status": "partial"}')
    push(run_dir, uri)
    (run_dir / "result.json").write_text('{"status": "complete"}')
    outcome = push(run_dir, uri)
    assert (outcome.n_copied, outcome.n_present) == (1, 1)
    pull(uri, tmp_path / "again")
    assert (tmp_path / "again" / "result.json").read_text() == '{"status": "complete"}'


def test_a_point_without_a_manifest_is_not_there(tmp_path: Path) -> None:
    assert points(f"file://{tmp_path}/none") == ()
    (tmp_path / "remote" / "p").mkdir(parents=True)
    assert points(f"file://{tmp_path}/remote") == ()
    outcome = pull(f"file://{tmp_path}/remote/p", tmp_path / "again")
    assert "not copied to its end" in (outcome.error or "")
    assert not (tmp_path / "again").exists()


def test_a_flipped_or_missing_byte_is_refused_and_nothing_is_put_in_place(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/remote/p"
    push(make_point(tmp_path / "run"), uri)
    stored = next((tmp_path / "remote" / "p").glob("*/result.json"))
    whole = stored.read_bytes()
    for broken, why in ((b"X" + whole[1:], "another checksum"), (whole[:-1], "bytes and not")):
        stored.write_bytes(broken)
        assert why in (pull(uri, tmp_path / "again").error or "")
        assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/../../outside"])
def test_a_manifest_that_names_a_file_outside_is_refused(name: str, tmp_path: Path) -> None:
    remote = tmp_path / "remote" / "p"
    push(make_point(tmp_path / "run"), f"file://{remote}")
    manifest = json.loads((remote / "manifest.json").read_text())
    manifest["files"][name] = manifest["files"]["result.json"]
    (remote / "manifest.json").write_text(json.dumps(manifest))
    before = content(tmp_path)
    assert "is no relative path" in (pull(f"file://{remote}", tmp_path / "deep" / "again").error or "")
    assert content(tmp_path) == before


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 2, "files": {}}', '{"files": {"a": 1}}', "\x00" * 50])
def test_a_torn_manifest_is_told_in_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "manifest.json").write_text(text)
    error = pull(f"file://{tmp_path}/p", tmp_path / "again").error
    assert error
    assert "\n" not in error


def test_ten_thousand_broken_manifests_are_refused_without_another_error() -> None:
    dice = random.Random("manifests")
    whole = json.dumps({"schema_version": 1, "files": {"log/rank0.log": {"sha256": "0" * 64, "size_bytes": 7}}}).encode()
    n_whole = 0
    for _ in range(10_000):
        body = bytearray(whole if dice.random() < 0.8 else dice.randbytes(dice.randrange(100)))
        for _ in range(dice.randrange(3)):
            at = dice.randrange(len(body) + 1)
            body[at : at + dice.randrange(3)] = dice.choice([b"", b'"', b"{", b"[" * 300, b"\xff", b"../", b"1e999", b"-", b"\\u0000"])
        try:
            manifest = decode_text(Manifest, bytes(body))
        except UsageError:
            continue
        assert all(check_name(name) for name in manifest.files)
        n_whole += 1
    assert n_whole > 100


def test_a_folder_that_cannot_be_written_is_an_outcome_and_no_exception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "PAUSE_S", 0.01)
    (tmp_path / "file").write_text("in the way")
    outcome = push(make_point(tmp_path / "run"), f"file://{tmp_path}/file/p", deadline_s=20)
    assert outcome.error
    assert not outcome.is_whole
    with pytest.raises(StoreUnavailable) as told:
        points(f"file://{tmp_path}/file/p")
    assert told.value.exit_code is ExitCode.PREEMPTED


def test_a_mirror_copies_in_the_background_and_tells_what_came_late(tmp_path: Path) -> None:
    gate = threading.Event()

    def slow(run_dir: Path, uri: str, deadline_s: float) -> CopyOutcome:
        gate.wait(30)
        return push(run_dir, uri, deadline_s)

    mirror = Mirror(f"memory://{tmp_path.name}-mirror", copy=slow)
    for name in ("a", "b"):
        mirror.push_later(make_point(tmp_path / name), name)
    assert [outcome.error for outcome in mirror.drain(0.05)] == ["not copied within 0.05 s"] * 2
    gate.set()
    assert all(outcome.is_whole for outcome in mirror.drain(30))
    assert points(f"memory://{tmp_path.name}-mirror") == ("a", "b")
    mirror.push_later(tmp_path / "a", "c")  # after its thread has ended, it starts another
    assert len(mirror.drain(30)) == 3


def test_a_mirror_refuses_a_name_that_leads_elsewhere_at_once(tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        Mirror("memory://x").push_later(tmp_path, "../y")
