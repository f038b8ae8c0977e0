"""The doctor before made-up machines."""

import json
import resource
from pathlib import Path

import pytest

from bench.cli import main
from bench.errors import InvalidFact
from bench.facts.diagnosis import Diagnosis, Finding, Level, fail, ok
from bench.facts.hardware import Backend
from bench.facts.units import GIB, MIB
from bench.run import doctor_cloud, doctor_devices, doctor_links, doctor_software, doctor_system
from bench.run.sources import Reading

UNLIMITED = resource.RLIM_INFINITY


def put(root: Path, name: str, text: str = "") -> Path:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return root


def test_a_containers_usual_64_mib_of_shared_memory_are_too_few() -> None:
    small, large = doctor_system.shared_memory(size_bytes=64 * MIB), doctor_system.shared_memory(size_bytes=16 * GIB)
    assert (small.level, large.level) == (Level.WARN, Level.OK)
    assert "--shm-size" in small.fix


def test_no_shared_memory_at_all_is_told(tmp_path: Path) -> None:
    assert doctor_system.shared_memory(tmp_path).level is Level.WARN


@pytest.mark.parametrize(("infiniband", "level"), [(True, Level.FAIL), (False, Level.OK)])
def test_locked_memory_must_be_unlimited_only_where_infiniband_is(infiniband: bool, level: Level) -> None:
    soft = {"nofile": 1024, "memlock": 64 * 1024, "stack": UNLIMITED}
    found = {f.check: f.level for f in doctor_system.limits(infiniband, soft)}
    assert found == {"open files (ulimit -n)": Level.WARN, "locked memory (ulimit -l)": level, "stack (ulimit -s)": Level.OK}


@pytest.mark.parametrize(("free", "level"), [(8 * GIB, Level.OK), (1 * GIB, Level.WARN), (0.1 * GIB, Level.FAIL)])
def test_memory_is_enough_short_or_too_little(free: float, level: Level) -> None:
    assert doctor_system.memory(int(free)).level is level


@pytest.mark.parametrize(("free", "level"), [(8 * GIB, Level.OK), (0.5 * GIB, Level.WARN), (0, Level.FAIL)])
def test_a_full_disk_is_a_failure(tmp_path: Path, free: float, level: Level) -> None:
    assert doctor_system.disk(tmp_path, int(free)).level is level


@pytest.mark.parametrize(("kind", "level"), [("performance", Level.OK), ("powersave", Level.WARN), (None, Level.OK)])
def test_a_governor_that_saves_power_is_told(tmp_path: Path, kind: str | None, level: Level) -> None:
    if kind:
        put(tmp_path, "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", kind + "\n")
    assert doctor_system.governor(tmp_path).level is level


def test_a_control_group_that_pays_for_fewer_cores_is_told(tmp_path: Path) -> None:
    assert doctor_system.cores(put(tmp_path, "sys/fs/cgroup/cpu.max", "150000 100000\n"), n=2).level is Level.WARN
    assert doctor_system.cores(put(tmp_path, "sys/fs/cgroup/cpu.max", "max 100000\n"), n=2).level is Level.OK


def test_a_laptop_on_its_battery_is_told(tmp_path: Path) -> None:
    assert doctor_system.power_supply(tmp_path) is None
    found = doctor_system.power_supply(put(tmp_path, "sys/class/power_supply/AC/online", "0\n"))
    assert found is not None
    assert found.level is Level.WARN


def test_a_busy_neighbour_is_named_and_an_idle_one_is_not() -> None:
    found = doctor_system.busy_processes([("idle", 1, 0.01), ("miner", 2, 0.9)])
    assert found.level is Level.WARN
    assert "miner (2) 90%" in found.found
    assert "idle" not in found.found
    assert doctor_system.busy_processes([("idle", 1, 0.01)]).level is Level.OK


def test_ports_that_are_up_are_told_with_their_speed(tmp_path: Path) -> None:
    for name, state, speed in (
        ("eth0", "up", "100000"),
        ("eth1", "up", "1000"),
        ("eth2", "down", "1000"),
        ("veth", "up", "-1"),
        ("lo", "up", ""),
    ):
        put(tmp_path, f"sys/class/net/{name}/operstate", state)
        put(tmp_path, f"sys/class/net/{name}/speed", speed)
    found = {f.check: (f.level, f.found) for f in doctor_links.ports(tmp_path)}
    assert set(found) == {"port eth0", "port eth1", "port veth"}
    assert found["port eth0"] == (Level.OK, "up, 100 Gbit/s")
    assert found["port eth1"][0] is Level.WARN


def test_an_infiniband_port_that_is_down_is_told(tmp_path: Path) -> None:
    for port, state in (("1", "4: ACTIVE"), ("2", "1: DOWN")):
        put(tmp_path, f"sys/class/infiniband/mlx5_0/ports/{port}/state", state)
        put(tmp_path, f"sys/class/infiniband/mlx5_0/ports/{port}/rate", "400 Gb/sec (4X NDR)")
    assert [f.level for f in doctor_links.infiniband(tmp_path)] == [Level.OK, Level.WARN]
    assert doctor_links.has_infiniband(tmp_path)


def test_an_interface_that_is_not_here_fails(tmp_path: Path) -> None:
    put(tmp_path, "sys/class/net/eth0/operstate", "up")
    wrong = list(doctor_links.interface({"NCCL_SOCKET_IFNAME": "ib0"}, tmp_path, "10.0.0.1"))
    assert [f.level for f in wrong] == [Level.FAIL]
    assert "eth0" in wrong[0].fix
    assert [f.level for f in doctor_links.interface({"GLOO_SOCKET_IFNAME": "eth"}, tmp_path, "10.0.0.1")] == [Level.OK]


@pytest.mark.parametrize(("address", "level"), [("127.0.1.1", Level.WARN), ("10.0.0.7", Level.OK), ("", Level.WARN)])
def test_a_host_name_that_leads_to_itself_lets_no_other_machine_in(tmp_path: Path, address: str, level: Level) -> None:
    assert [f.level for f in doctor_links.interface({}, tmp_path, address)] == [level]


NVLINKED = "\x1b[4m\tGPU0\tGPU1\tCPU Affinity\x1b[0m\nGPU0\t X \tNV18\t0-55\nGPU1\tNV18\t X \t0-55\n"


def test_the_topology_of_devices_is_counted_by_pairs() -> None:
    linked = doctor_links.topology(NVLINKED)
    assert linked is not None
    assert (linked.level, linked.found) == (Level.OK, "1 pairs by NV18")
    over_pcie = doctor_links.topology(NVLINKED.replace("NV18", "PHB"))
    assert over_pcie is not None
    assert over_pcie.level is Level.WARN
    assert doctor_links.topology("") is None


def needs(**all_of: list[str]) -> doctor_software.Needs:
    return lambda name: all_of.get(name.replace("-", "_"), [])


def test_versions_that_do_not_fit_together_fail_with_both_and_the_command() -> None:
    here = {"proxybench": "0.1", "torch": "2.9.0", "accelerate": "1.12", "hydra-core": "1.3.2", "pydantic": "2.9", "omegaconf": "2.4.0"}
    asked = needs(proxybench=["torch<2.14,>=2.11", 'absent; extra == "dev"'], hydra_core=["omegaconf<2.4,>=2.2"])
    found = {f.check: f for f in doctor_software.versions(here.get, asked, "3.12.1")}
    assert found["package proxybench"].level is Level.FAIL
    assert "2.9.0 here" in found["package proxybench"].found
    assert "pip install 'torch<2.14,>=2.11'" in found["package proxybench"].fix
    assert "omegaconf<2.4,>=2.2 is 2.4.0 here" in found["package hydra-core"].found
    assert found["package accelerate"].level is Level.OK


def test_a_missing_package_and_an_old_python_fail() -> None:
    found = {f.check: f.level for f in doctor_software.versions({"proxybench": "0.1"}.get, needs(), "3.10.2")}
    assert found["package torch"] is Level.FAIL
    assert found["Python"] is Level.FAIL


@pytest.mark.parametrize(
    ("built", "known", "level"),
    [("12.8", "13.0", Level.OK), ("12.8", "12.4", Level.WARN), ("13.0", "12.8", Level.FAIL), ("12.10", "12.9", Level.WARN)],
)
def test_torch_built_for_a_newer_cuda_than_the_driver_knows(built: str, known: str, level: Level) -> None:
    found = doctor_software.cuda_fits(built, known)
    assert found is not None
    assert found.level is level
    assert doctor_software.cuda_fits(None, known) is None


def test_an_accelerator_that_torch_does_not_use_fails(tmp_path: Path) -> None:
    put(tmp_path, "proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.1\nGCC\n")
    put(tmp_path, "dev/nvidia0")
    assert doctor_devices.devices(Backend.CPU, ["EPYC"], tmp_path).level is Level.FAIL
    assert doctor_devices.devices(Backend.CUDA, ["H100", "H100"], tmp_path).found.startswith("2 x H100")
    told = doctor_devices.driver(tmp_path)
    assert told is not None
    assert "570.1" in told.found
    assert doctor_devices.driver(tmp_path / "none") is None


def test_devices_that_differ_are_told(tmp_path: Path) -> None:
    assert doctor_devices.devices(Backend.CUDA, ["H100", "A100"], tmp_path).level is Level.WARN


def test_a_device_that_is_held_back_or_shared_is_told() -> None:
    seen = [
        Reading(clock_hz=1.98e9, temperature_c=40.0, throttle_reasons=(), n_foreign_processes=0),
        Reading(clock_hz=1.2e9, temperature_c=88.0, throttle_reasons=("heat, by software",), n_foreign_processes=2),
        None,
    ]
    assert [(f.check, f.level) for f in doctor_devices.states(seen)] == [
        ("device 0", Level.OK),
        ("device 1", Level.WARN),
        ("other programs, device 1", Level.WARN),
    ]


def test_nvidia_devices_without_nvml_are_told() -> None:
    found = doctor_devices.telemetry(Backend.CUDA, has_pynvml=False)
    assert found is not None
    assert ".[nvidia]" in found.fix
    assert doctor_devices.telemetry(Backend.CPU, has_pynvml=False) is None


@pytest.mark.parametrize(
    ("vendor", "answer", "rows"),
    [
        ("Amazon EC2", "spot", [("cloud", Level.OK), ("spot", Level.WARN)]),
        ("Amazon EC2", "on-demand", [("cloud", Level.OK), ("spot", Level.OK)]),
        ("Google", "TRUE", [("cloud", Level.OK), ("spot", Level.WARN)]),
        ("Nobody", "", [("cloud", Level.OK)]),
    ],
)
def test_a_spot_machine_is_told_by_its_metadata(tmp_path: Path, vendor: str, answer: str, rows: list[tuple[str, Level]]) -> None:
    put(tmp_path, "sys/class/dmi/id/sys_vendor", vendor)
    assert [(f.check, f.level) for f in doctor_cloud.cloud(tmp_path, lambda *_: answer)] == rows


def test_a_metadata_service_that_is_silent_is_no_failure(tmp_path: Path) -> None:
    def silent(*_: object) -> str:
        raise TimeoutError

    put(tmp_path, "sys/class/dmi/id/chassis_asset_tag", doctor_cloud.AZURE_TAG)
    assert [f.level for f in doctor_cloud.cloud(tmp_path, silent)] == [Level.OK, Level.OK]


def test_what_started_it_is_named(tmp_path: Path) -> None:
    assert doctor_cloud.scheduler(tmp_path, {"SLURM_JOB_ID": "7"}).found == "Slurm"
    assert doctor_cloud.scheduler(put(tmp_path, ".dockerenv"), {}).found == "a container"


def test_a_finding_that_is_not_well_must_say_what_to_do() -> None:
    with pytest.raises(InvalidFact, match="fix is empty"):
        Finding(check="disk", level=Level.FAIL, found="full")


@pytest.mark.parametrize(("findings", "code"), [((ok("a", "b"),), 0), ((ok("a", "b"), fail("c", "d", "e")), 1)])
def test_the_exit_code_is_1_where_something_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], findings: tuple[Finding, ...], code: int
) -> None:
    monkeypatch.setattr("bench.verbs.measuring.diagnose", lambda _: Diagnosis(host="here", findings=findings))
    assert main(["doctor"]) == code
    assert "here: 1 ok" in capsys.readouterr().out


def test_the_doctor_of_this_machine_speaks_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["doctor", "--json"])
    checks = {f["check"] for f in json.loads(capsys.readouterr().out)["findings"]}
    assert {"devices", "memory", "disk", "shared memory", "processors", "package torch", "cloud", "meeting place of ranks"} <= checks
