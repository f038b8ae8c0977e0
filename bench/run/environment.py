"""The machine and the software of a run, with secrets masked."""

import os
import platform
import re
import sys
from datetime import UTC, datetime
from importlib import metadata

import psutil
import torch

import bench
from bench.facts.hardware import Backend
from bench.facts.measurement import Environment
from bench.masking import masked_variables
from bench.run.devices import LocalDevice, cpu_name, n_cores
from bench.run.sources import nvidia_driver

PACKAGES = ("torch", "accelerate", "hydra-core", "numpy", "pydantic", "triton", "nvidia-nccl-cu12", "nvidia-nccl-cu13")
SPEED_VARIABLES = re.compile(
    r"^(OMP|MKL|KMP|GOMP|DNNL|ONEDNN|ATEN|TORCH|PYTORCH|TORCHINDUCTOR|NCCL|RCCL|GLOO|UCX|FI|CUDA|HIP|ROCR|HSA|XLA|ACCELERATE|SLURM|LD_PRELOAD|MALLOC)"
)


def capture_environment(device: LocalDevice, world_size: int) -> Environment:
    """The environment of this process as it is now."""
    return Environment(
        host=platform.node(),
        platform=platform.platform(),
        python=sys.version.split()[0],
        packages=_packages(),
        cpu=cpu_name(),
        n_cores=n_cores(),
        memory_bytes=psutil.virtual_memory().total,
        devices=(device.name(),) * world_size,
        driver=_driver(device.backend),
        variables=masked(dict(os.environ)),
        started_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def masked(variables: dict[str, str]) -> dict[str, str]:
    """The variables that may change speed, anything that looks like a secret masked."""
    return {name: value for name, value in sorted(masked_variables(variables).items()) if SPEED_VARIABLES.match(name)}


def _packages() -> dict[str, str]:
    found = {"proxybench": bench.__version__}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _driver(backend: Backend) -> str | None:
    if backend is Backend.CUDA:
        return ", ".join(filter(None, (nvidia_driver(), f"CUDA {torch.version.cuda}")))
    return f"HIP {torch.version.hip}" if backend is Backend.ROCM else None
