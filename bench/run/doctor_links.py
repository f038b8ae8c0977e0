"""Checks of what connects devices and machines: network ports, InfiniBand, NVLink, and the interface that ranks meet over."""

import re
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.facts.diagnosis import Finding, fail, ok, warn

SLOW_PORT_BYTES_PER_S = 1.25e9  # 10 Gbit/s: gradients of a small model cross it in about the time of its step
INTERFACE_VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")
TOPOLOGY_TIMEOUT_S = 20


def ports(root: Path = Path("/")) -> Iterator[Finding]:
    """Every network port that is up, with the speed that the kernel tells."""
    for folder in sorted((root / "sys/class/net").glob("*")):
        if folder.name == "lo" or _read(folder / "operstate") != "up":
            continue
        megabits = _read(folder / "speed")
        if not megabits.isdigit():
            yield ok(f"port {folder.name}", "up, speed not told (a virtual port has none)")
            continue
        told, bytes_per_s = f"up, {int(megabits) / 1e3:g} Gbit/s", int(megabits) * 1e6 / 8
        slow = bytes_per_s < SLOW_PORT_BYTES_PER_S
        yield (
            warn(f"port {folder.name}", told, "use one machine, or a faster port between several")
            if slow
            else ok(f"port {folder.name}", told)
        )


def infiniband(root: Path = Path("/")) -> Iterator[Finding]:
    """Every port of an InfiniBand or RoCE adapter."""
    for port in sorted((root / "sys/class/infiniband").glob("*/ports/*")):
        name = f"InfiniBand {port.parent.parent.name}:{port.name}"
        told = f"{_read(port / 'state') or 'state not told'}, {_read(port / 'rate') or 'rate not told'}, {_read(port / 'link_layer')}"
        if "ACTIVE" in told:
            yield ok(name, told)
        else:
            yield warn(name, told, "bring the link up (cable, switch, subnet manager), or leave the port out with NCCL_IB_HCA=^NAME")


def has_infiniband(root: Path = Path("/")) -> bool:
    """Whether an adapter is here that registers locked memory."""
    return any((root / "sys/class/infiniband").glob("*"))


def interface(environment: Mapping[str, str], root: Path = Path("/"), address: str | None = None) -> Iterator[Finding]:
    """The port over which ranks of several machines would meet."""
    here = {folder.name for folder in (root / "sys/class/net").glob("*")}
    for name in INTERFACE_VARIABLES:
        if asked := environment.get(name):
            prefixes = asked.lstrip("^=").split(",")
            missing = [p for p in prefixes if here and not asked.startswith("^") and not any(port.startswith(p) for port in here)]
            if missing:
                yield fail(
                    name, f"names {', '.join(missing)}, which is not here", f"set it to one of {', '.join(sorted(here))}, or unset it"
                )
            else:
                yield ok(name, asked)
    address = _own_address() if address is None else address
    if any(environment.get(name) for name in INTERFACE_VARIABLES):
        return
    if address.startswith("127.") or not address:
        told = f"the host's name leads to {address or 'no address'}"
        yield warn("meeting place of ranks", told, "for several machines set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to their port")
    else:
        yield ok("meeting place of ranks", f"{address}, by the host's name")


def _own_address() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return ""


def topology(text: str | None = None) -> Finding | None:
    """How NVIDIA devices reach one another, as `nvidia-smi topo -m` tells; None where there are fewer than two."""
    told = _topology_text() if text is None else text
    rows = [line.split() for line in _plain(told).splitlines() if re.match(r"GPU\d+\s", line)]
    if len(rows) < 2:
        return None
    links = [cell for i, row in enumerate(rows) for j, cell in enumerate(row[1 : len(rows) + 1]) if i < j]
    kinds = {kind: links.count(kind) for kind in sorted(set(links))}
    shown = ", ".join(f"{n} pairs by {kind}" for kind, n in kinds.items())
    if any(kind in ("SYS", "NODE", "PHB") for kind in kinds) and any(kind.startswith("NV") for kind in kinds):
        return warn("links between devices", shown, "use the devices that NVLink connects (CUDA_VISIBLE_DEVICES)")
    if not any(kind.startswith("NV") for kind in kinds):
        return warn("links between devices", shown, "no NVLink is seen: expect collectives at PCIe speed; bench probe measures them")
    return ok("links between devices", shown)


def _topology_text() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return ""
    try:
        done = subprocess.run([program, "topo", "-m"], capture_output=True, text=True, timeout=TOPOLOGY_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _plain(text: str) -> str:
    """The text without a terminal's colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):  # a port that is down refuses to tell its speed
        return ""
