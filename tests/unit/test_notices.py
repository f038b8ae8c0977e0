"""Three clouds played on loopback: a notice is told once, anything else never, and nobody is asked where there is no cloud."""

import json
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.run import notices
from bench.run.notices import AZURE_ASSET_TAG, METADATA_URL, Cloud, Notice, Watch, find_cloud, notice_from, watch

FIRMWARE = {
    Cloud.AWS: {"sys_vendor": "Amazon EC2"},
    Cloud.GCP: {"product_name": "Google Compute Engine", "sys_vendor": "Google"},
    Cloud.AZURE: {"sys_vendor": "Microsoft Corporation", "chassis_asset_tag": AZURE_ASSET_TAG},
}
AWS_NOTICE = {"action": "terminate", "time": "2017-09-18T08:22:00Z"}
AZURE_EVENT = {
    "EventId": "A-1", "EventStatus": "Scheduled", "EventType": "Preempt", "ResourceType": "VirtualMachine",
    "Resources": ["vm-3"], "NotBefore": "Mon, 19 Sep 2016 18:29:47 GMT",
}  # fmt: skip
BODIES = {
    Cloud.AWS: json.dumps(AWS_NOTICE).encode(),
    Cloud.GCP: b"TRUE",
    Cloud.AZURE: json.dumps({"DocumentIncarnation": 2, "Events": [AZURE_EVENT]}).encode(),
}
EXPECTED = {
    Cloud.AWS: Notice(Cloud.AWS, "terminate", "2017-09-18T08:22:00Z"),
    Cloud.GCP: Notice(Cloud.GCP, "preempted"),
    Cloud.AZURE: Notice(Cloud.AZURE, "Preempt", "Mon, 19 Sep 2016 18:29:47 GMT"),
}
QUIET = {Cloud.AWS: (404, b""), Cloud.GCP: (200, b"FALSE"), Cloud.AZURE: (200, b'{"DocumentIncarnation": 1, "Events": []}')}


@dataclass
class PlayedCloud:
    """What the server answers, and what it was asked with."""

    cloud: Cloud = Cloud.AWS
    answer: tuple[int, bytes] = (404, b"")
    delay_s: float = 0.0
    token: str = "token-1"
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def reply(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        self.asked.append(f"{method} {path}")
        time.sleep(self.delay_s)
        if path == "/latest/api/token":
            return (200, self.token.encode()) if method == "PUT" and headers.get("x-aws-ec2-metadata-token-ttl-seconds") else (400, b"")
        if self.cloud is Cloud.AWS and headers.get("x-aws-ec2-metadata-token") != self.token:
            return 401, b""
        if self.cloud is Cloud.GCP and headers.get("metadata-flavor") != "Google":
            return 403, b""
        if self.cloud is Cloud.AZURE and headers.get("metadata") != "true":
            return 400, b""
        return (200, b"vm-3") if path.startswith("/metadata/instance/compute/name") else self.answer


@pytest.fixture
def played() -> Iterator[PlayedCloud]:
    cloud = PlayedCloud()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = cloud.reply(self.command, self.path, {k.lower(): v for k, v in self.headers.items()})
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                pass  # who asked has gone

        do_PUT = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    cloud.url = f"http://127.0.0.1:{server.server_port}"
    yield cloud
    server.shutdown()
    server.server_close()
    thread.join(5)


def firmware(folder: Path, files: dict[str, str]) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_text(text + "\n")
    return folder


@pytest.mark.parametrize("cloud", Cloud)
def test_the_firmware_names_the_cloud(cloud: Cloud, tmp_path: Path) -> None:
    assert find_cloud(firmware(tmp_path / "dmi", FIRMWARE[cloud])) is cloud


@pytest.mark.parametrize("files", [{}, {"sys_vendor": "Microsoft Corporation"}, {"sys_vendor": "Dell Inc."}, {"product_name": "KVM"}])
def test_elsewhere_nobody_is_asked(files: dict[str, str], tmp_path: Path) -> None:
    assert watch(lambda _: None, firmware(tmp_path / "dmi", files)) is None


@pytest.mark.parametrize("cloud", Cloud)
def test_a_notice_is_read_and_quiet_is_none(cloud: Cloud) -> None:
    assert notice_from(cloud, 200, BODIES[cloud]) == EXPECTED[cloud]
    assert notice_from(cloud, *QUIET[cloud]) is None
    assert notice_from(cloud, 500, BODIES[cloud]) is None


def test_an_event_of_another_machine_or_of_a_short_pause_is_none() -> None:
    assert notice_from(Cloud.AZURE, 200, BODIES[Cloud.AZURE], machine="vm-3") == EXPECTED[Cloud.AZURE]
    assert notice_from(Cloud.AZURE, 200, BODIES[Cloud.AZURE], machine="vm-4") is None
    paused = json.dumps({"Events": [AZURE_EVENT | {"EventType": "Freeze"}]}).encode()
    assert notice_from(Cloud.AZURE, 200, paused) is None


@pytest.mark.parametrize("cloud", Cloud)
def test_a_notice_that_comes_is_told_once(cloud: Cloud, played: PlayedCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(METADATA_URL, played.url)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # metadata does not go through proxies
    played.cloud, played.answer = cloud, QUIET[cloud]
    told: list[Notice] = []
    came = threading.Event()
    watching = watch(lambda notice: (told.append(notice), came.set()), firmware(tmp_path / "dmi", FIRMWARE[cloud]), poll_s=0.02)
    assert watching is not None
    while watching.n_polls < 3:
        time.sleep(0.01)
    assert told == []
    played.token = "token-2"  # that of AWS expires: the next answer is 401, and another is fetched
    played.answer = (200, BODIES[cloud])
    assert came.wait(5)
    time.sleep(0.1)
    assert told == [EXPECTED[cloud]]


@pytest.mark.parametrize("cloud", Cloud)
@pytest.mark.parametrize("answer", [(500, b""), (200, b"\xff\xfe garbage"), (200, b"{" * 5000), (302, b""), (200, b"x" * 100_000)])
def test_an_answer_that_makes_no_sense_is_no_notice(cloud: Cloud, answer: tuple[int, bytes], played: PlayedCloud) -> None:
    played.cloud, played.answer = cloud, answer
    assert Watch(cloud, lambda _: None, played.url).poll() is None


def test_a_slow_cloud_does_not_hold_the_watch_and_a_dead_one_is_asked_again(played: PlayedCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "TIMEOUT_S", 0.05)
    played.delay_s = 0.5
    told: list[Notice] = []
    slow = Watch(Cloud.AWS, told.append, played.url, poll_s=0.01).start()
    dead = Watch(Cloud.AWS, told.append, "http://127.0.0.1:9", poll_s=0.01).start()
    until = time.monotonic() + 10
    while min(slow.n_polls, dead.n_polls) < 3 and time.monotonic() < until:
        time.sleep(0.01)
    slow.stop()
    dead.stop()
    assert min(slow.n_polls, dead.n_polls) >= 3
    assert slow.last_error
    assert dead.last_error
    assert told == []


@pytest.mark.parametrize("cloud", Cloud)
def test_ten_thousand_broken_answers_are_read_without_an_error(cloud: Cloud) -> None:
    dice = random.Random(f"notices-{cloud}")
    pieces = [
        BODIES[cloud],
        *(body for _, body in QUIET.values()),
        b"null",
        b"[1]",
        b'{"action": 1}',
        b'{"Events": [[], 1, {"EventType": []}]}',
    ]
    n_notices = 0
    for _ in range(10_000):
        body = bytearray(dice.choice(pieces) if dice.random() < 0.7 else dice.randbytes(dice.randrange(200)))
        for _ in range(dice.randrange(4)):
            at = dice.randrange(len(body) + 1)
            body[at : at + dice.randrange(3)] = dice.choice([b"", b'"', b"{", b"[" * 50, b"\x00", b"\xff", b"1e999", b":", b"\\u0000"])
        notice = notice_from(cloud, dice.choice([200, 200, 200, 404, 500]), bytes(body), dice.choice(["", "vm-3"]))
        assert notice is None or "\n" not in str(notice)
        n_notices += notice is not None
    assert n_notices > 100  # some mutations leave the notice whole: the parser is not deaf
