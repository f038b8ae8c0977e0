"""A cloud's word that this machine will be taken away: asked for every few seconds, and only on that cloud.

Source: AWS EC2 user guide, "Spot Instance interruption notices" and "Use IMDSv2"; Google Compute Engine, "Preemptible VM instances:
preemption process" and "VM metadata: instance/preempted"; Azure, "Scheduled Events for Linux VMs" and "Instance Metadata Service".
"""

import json
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

POLL_S = 5.0  # AWS asks for no less; the shortest notice is 30 s
TIMEOUT_S = 2.0
MAX_BODY_BYTES = 2**16
DMI_ROOT = Path("/sys/class/dmi/id")
METADATA_URL = "BENCH_METADATA_URL"  # variable that names another place to ask, for tests
FIRMWARE = "BENCH_FIRMWARE"  # variable that names another folder than DMI_ROOT, for tests
AZURE_ASSET_TAG = "7783-7084-3265-9085-8269-3286-77"  # of every Azure machine, and of no other Hyper-V


class Cloud(StrEnum):
    """Whose machine this is."""

    AWS = "aws"
    GCP = "gcp"
    AZURE = "azure"


@dataclass(frozen=True)
class Notice:
    """The machine will be taken away."""

    cloud: Cloud
    what: str  # a word of the cloud's: terminate, stop, hibernate, preempted, Preempt ...
    when: str = ""  # as the cloud writes it; empty where it does not say

    def __str__(self) -> str:
        return f"{self.cloud.value} has announced {self.what}{f' at {self.when}' if self.when else ''}"


@dataclass(frozen=True)
class _Endpoint:
    base_url: str
    path: str
    headers: Mapping[str, str]


ENDPOINTS = {
    Cloud.AWS: _Endpoint("http://169.254.169.254", "/latest/meta-data/spot/instance-action", {}),
    Cloud.GCP: _Endpoint("http://metadata.google.internal", "/computeMetadata/v1/instance/preempted", {"Metadata-Flavor": "Google"}),
    Cloud.AZURE: _Endpoint("http://169.254.169.254", "/metadata/scheduledevents?api-version=2020-07-01", {"Metadata": "true"}),
}
AWS_TOKEN = "/latest/api/token"
AZURE_NAME = "/metadata/instance/compute/name?api-version=2021-02-01&format=text"
AWS_ACTIONS = ("terminate", "stop", "hibernate")
AZURE_EVENTS = ("Preempt", "Terminate", "Redeploy", "Reboot")  # Freeze is a pause of seconds
WHEN = re.compile(r"[A-Za-z0-9:., +-]{1,40}")


def find_cloud(root: Path = DMI_ROOT) -> Cloud | None:
    """The cloud that this machine's firmware names; None elsewhere, where nothing is to be asked."""
    told = {name: _firmware(root / name) for name in ("sys_vendor", "bios_vendor", "bios_version", "product_name", "chassis_asset_tag")}
    if told["sys_vendor"] == "Amazon EC2" or told["bios_vendor"] == "Amazon EC2" or told["bios_version"].endswith(".amazon"):
        return Cloud.AWS
    if told["product_name"] == "Google Compute Engine":
        return Cloud.GCP
    return Cloud.AZURE if told["chassis_asset_tag"] == AZURE_ASSET_TAG else None


def notice_from(cloud: Cloud, status: int, body: bytes, machine: str = "") -> Notice | None:
    """The notice in an answer of the cloud; None where it has none, or makes no sense.

    `machine`: the name of this one among those that Azure tells of; empty, and every event counts.
    """
    if status != 200:
        return None
    if cloud is Cloud.GCP:
        return Notice(cloud, "preempted") if body.strip().upper() == b"TRUE" else None
    try:
        plain = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(plain, dict):
        return None
    return _of_aws(plain) if cloud is Cloud.AWS else _of_azure(plain, machine)


def _of_aws(plain: Mapping[str, object]) -> Notice | None:
    action = plain.get("action")
    return Notice(Cloud.AWS, action, _when(plain.get("time"))) if isinstance(action, str) and action in AWS_ACTIONS else None


def _of_azure(plain: Mapping[str, object], machine: str) -> Notice | None:
    events = plain.get("Events")
    for event in events if isinstance(events, list) else ():
        if not isinstance(event, dict) or event.get("EventType") not in AZURE_EVENTS:
            continue
        affected = event.get("Resources")
        if not machine or not isinstance(affected, list) or machine in affected:
            return Notice(Cloud.AZURE, str(event["EventType"]), _when(event.get("NotBefore")))
    return None


def _when(value: object) -> str:
    return value if isinstance(value, str) and WHEN.fullmatch(value) else ""


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


@dataclass
class Watch:
    """A thread that asks the cloud until there is a notice, tells of it once, and ends; nothing that a cloud answers stops it."""

    cloud: Cloud
    on_notice: Callable[[Notice], object]
    base_url: str = ""
    poll_s: float = POLL_S
    last_error: str = ""
    n_polls: int = 0
    _token: str = ""
    _machine: str = ""
    _stopped: threading.Event = field(default_factory=threading.Event)

    def start(self) -> "Watch":
        """Itself, at work."""
        threading.Thread(target=self._run, daemon=True, name="cloud-notices").start()
        return self

    def stop(self) -> None:
        """Nothing; the cloud is not asked again."""
        self._stopped.set()

    def poll(self) -> Notice | None:
        """The notice there is now. Raises OSError or HTTPException where nobody answers."""
        endpoint = ENDPOINTS[self.cloud]
        if self.cloud is Cloud.AWS and not self._token:
            status, body = self._ask("PUT", AWS_TOKEN, {"X-aws-ec2-metadata-token-ttl-seconds": "21600"})
            self._token = _word(body) if status == 200 else ""
        if self.cloud is Cloud.AZURE and not self._machine:
            status, body = self._ask("GET", AZURE_NAME, endpoint.headers)
            self._machine = _word(body) if status == 200 else ""
        token = {"X-aws-ec2-metadata-token": self._token} if self._token else {}
        status, body = self._ask("GET", endpoint.path, {**endpoint.headers, **token})
        if status == 401:
            self._token = ""  # it has expired
        return notice_from(self.cloud, status, body, self._machine)

    def _ask(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        request = Request((self.base_url or ENDPOINTS[self.cloud].base_url) + path, method=method, headers=dict(headers))
        opener = build_opener(ProxyHandler({}), _NoRedirect())  # metadata never goes through a proxy, nor anywhere else
        try:
            with opener.open(request, timeout=TIMEOUT_S) as answer:
                return answer.status, answer.read(MAX_BODY_BYTES)
        except HTTPError as error:
            with error:
                return error.code, b""

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                notice = self.poll()
            except (OSError, HTTPException, ValueError) as error:
                notice, self.last_error = None, f"{type(error).__name__}: {error}"
            self.n_polls += 1
            if notice and not self._stopped.is_set():
                self.on_notice(notice)
                return
            self._stopped.wait(self.poll_s)


def watch(on_notice: Callable[[Notice], object], root: Path | None = None, poll_s: float = POLL_S) -> Watch | None:
    """The watch that calls `on_notice` once, from its own thread, when this machine's cloud takes it away; None on no known cloud.

    In a launcher: `watch(lambda notice: os.kill(os.getpid(), signal.SIGTERM))`, and the ranks are told as by anybody else.
    """
    cloud = find_cloud(root or Path(os.environ.get(FIRMWARE, DMI_ROOT)))
    return Watch(cloud, on_notice, os.environ.get(METADATA_URL, ""), poll_s).start() if cloud else None


def _word(body: bytes) -> str:
    """A token or a name that may stand in a header; empty for anything else."""
    text = body.strip().decode("ascii", errors="replace")
    return text if re.fullmatch(r"[\x21-\x7e]{1,1024}", text) else ""


def _firmware(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
