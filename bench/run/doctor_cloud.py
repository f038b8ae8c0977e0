"""Whose machine this is, and whether it may be taken back."""

import os
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.facts.diagnosis import Finding, ok, warn

TIMEOUT_S = 0.5
ADDRESS = "http://169.254.169.254"
AZURE_TAG = "7783-7084-3265-9085-8269-3286-77"  # of every Azure chassis
# what starts jobs here, by a variable that it sets
SCHEDULERS = {"SLURM_JOB_ID": "Slurm", "KUBERNETES_SERVICE_HOST": "Kubernetes", "SKYPILOT_TASK_ID": "SkyPilot", "PBS_JOBID": "PBS"}
Fetch = Callable[[str, Mapping[str, str], str], str]


@dataclass(frozen=True)
class Cloud:
    """A provider, how its machines name themselves, and where each says whether it may be taken back.

    Source: the providers' documentation of their metadata services (EC2 instance-life-cycle, Compute Engine scheduling/preemptible,
    Azure instance/compute/priority).
    """

    name: str
    marks: tuple[str, ...]
    spot_path: str
    headers: tuple[tuple[str, str], ...]
    spot_words: tuple[str, ...]


CLOUDS = (
    Cloud("AWS", ("Amazon EC2",), "/latest/meta-data/instance-life-cycle", (), ("spot",)),
    Cloud("Google Cloud", ("Google",), "/computeMetadata/v1/instance/scheduling/preemptible", (("Metadata-Flavor", "Google"),), ("TRUE",)),
    Cloud(
        "Azure",
        (AZURE_TAG,),
        "/metadata/instance/compute/priority?api-version=2021-02-01&format=text",
        (("Metadata", "true"),),
        ("Spot", "Low"),
    ),
    Cloud("Oracle Cloud", ("OracleCloud.com",), "", (), ()),
)


def cloud(root: Path = Path("/"), fetch: Fetch | None = None) -> Iterator[Finding]:
    """The provider by what the firmware tells, and whether the machine is a spot one."""
    told = _firmware(root)
    found = next((c for c in CLOUDS if any(mark in told for mark in c.marks)), None)
    if found is None:
        yield ok("cloud", "none that the firmware names")
        return
    yield ok("cloud", found.name)
    if not found.spot_path:
        return
    answer = _spot_answer(found, fetch or _fetch)
    if answer is None:
        yield ok("spot", "the metadata service does not answer")
    elif answer.strip() in found.spot_words:
        yield warn(
            "spot", f"a spot machine of {found.name}: it may be taken back", "give out= or results_uri= that outlive it (docs/survive.md)"
        )
    else:
        yield ok("spot", "no: the machine stays")


def _spot_answer(found: Cloud, fetch: Fetch) -> str | None:
    headers = dict(found.headers)
    try:
        if found.name == "AWS":
            token = fetch(ADDRESS + "/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": "60"}, "PUT")
            headers["X-aws-ec2-metadata-token"] = token
        return fetch(ADDRESS + found.spot_path, headers, "GET")
    except (OSError, urllib.error.URLError):
        return None


def _fetch(url: str, headers: Mapping[str, str], method: str) -> str:
    request = urllib.request.Request(url, headers=dict(headers), method=method)
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the address is of this machine alone
    with direct.open(request, timeout=TIMEOUT_S) as answer:
        return str(answer.read(200).decode("ascii", "replace"))


def _firmware(root: Path) -> str:
    folder = root / "sys/class/dmi/id"
    names = ("sys_vendor", "product_name", "bios_vendor", "chassis_asset_tag", "board_vendor")
    return " ".join(_read(folder / name) for name in names)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def scheduler(root: Path = Path("/"), environment: Mapping[str, str] | None = None) -> Finding:
    """What started this process: a scheduler, a container, or a person."""
    variables = os.environ if environment is None else environment
    known = [name for variable, name in SCHEDULERS.items() if variables.get(variable)]
    known += ["a container"] if (root / ".dockerenv").exists() or (root / "run/.containerenv").exists() else []
    return ok("started by", ", ".join(known) or "no scheduler that is known here")
