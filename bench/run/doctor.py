"""Everything that is looked at on this machine, in the order of a table."""

import os
import platform
from collections.abc import Iterator
from pathlib import Path

import torch

from bench.facts.diagnosis import Diagnosis, Finding
from bench.run import doctor_cloud, doctor_devices, doctor_links, doctor_software, doctor_system


def diagnose(folder: Path = Path()) -> Diagnosis:
    """The findings about this machine; `folder` is where results would go."""
    return Diagnosis(host=platform.node(), findings=tuple(f for f in _findings(folder.resolve()) if f is not None))


def _findings(folder: Path) -> Iterator[Finding | None]:
    backend, n_devices, names = doctor_devices.here()
    yield doctor_devices.devices(backend, names)
    yield doctor_devices.driver()
    yield doctor_software.cuda_fits(torch.version.cuda, doctor_devices.driver_cuda())
    yield doctor_devices.telemetry(backend)
    yield from doctor_devices.states(doctor_devices.readings(backend, n_devices))
    yield doctor_links.topology()
    yield from doctor_links.infiniband()
    yield from doctor_links.ports()
    yield from doctor_links.interface(os.environ)
    yield doctor_system.cores()
    yield doctor_system.governor()
    yield doctor_system.power_supply()
    yield doctor_system.memory()
    yield doctor_system.disk(folder)
    yield doctor_system.shared_memory()
    yield from doctor_system.limits(doctor_links.has_infiniband())
    yield doctor_system.busy_processes()
    yield from doctor_software.versions()
    yield from doctor_cloud.cloud()
    yield doctor_cloud.scheduler()
