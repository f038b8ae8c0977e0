"""Devices, the links between them, and clusters made of both."""

from enum import StrEnum

from bench.facts.figure import Figure, fact, require


class Backend(StrEnum):
    """What torch drives a local device through."""

    CUDA = "cuda"
    ROCM = "rocm"
    XPU = "xpu"
    MPS = "mps"
    CPU = "cpu"


class Precision(StrEnum):
    """Number format of the matrix products in a training step."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    FP8 = "fp8"
    FP4 = "fp4"  # predicted, never run here


HALF = (Precision.BF16, Precision.FP16)
NARROW = (Precision.FP8, Precision.FP4)  # linear layers alone run in them, everything else in bf16


class Architecture(StrEnum):
    """Generations of devices whose matrix units behave alike."""

    VOLTA = "volta"
    AMPERE = "ampere"
    ADA = "ada"
    HOPPER = "hopper"
    BLACKWELL = "blackwell"
    CDNA = "cdna"
    TPU = "tpu"


@fact
class Device:
    """One accelerator. Peaks are dense; a precision that is absent is not supported or not published."""

    name: str
    architecture: Architecture
    torch_names: tuple[str, ...]  # what torch reports as this device's name, in full
    aliases: tuple[str, ...]  # what tables of published runs call it
    peak_flops_per_s: dict[Precision, Figure]
    matmul_flops_per_s: dict[Precision, Figure]  # best rate that anyone measured for one matrix product
    memory_bytes: Figure
    memory_bytes_per_s: Figure
    power_w: Figure
    scale_up_domain: int  # devices of its usual node that reach one another over the scale-up link
    scale_up_bytes_per_s: Figure
    scale_out_bytes_per_s: Figure  # of its own network port

    def __post_init__(self) -> None:
        require(bool(self.peak_flops_per_s), f"device {self.name} has no peak_flops_per_s; give at least one precision")
        for precision, rate in self.matmul_flops_per_s.items():
            peak = self.peak_flops_per_s.get(precision)
            require(
                peak is None or rate.value <= peak.value,
                f"matmul_flops_per_s.{precision} {rate.value:g} is above the peak; check for a sparse figure",
            )

    def has_chip_of(self, other: "Device") -> bool:
        """Whether both compute with the same chip: one architecture, the same peaks; memory may differ, as between H100 and H200."""
        peaks = [{precision: rate.value for precision, rate in device.peak_flops_per_s.items()} for device in (self, other)]
        return self.architecture is other.architecture and peaks[0] == peaks[1]


@fact
class Link:
    """A connection as one device sees it: payload bytes per second in one direction, and the time of an empty message."""

    bytes_per_s: Figure
    latency_s: Figure

    def __post_init__(self) -> None:
        require(self.bytes_per_s.value > 0, f"bytes_per_s {self.bytes_per_s.value:g} must be above 0")
        require(self.latency_s.value >= 0, f"latency_s {self.latency_s.value:g} must not be negative")


@fact
class Cluster:
    """Equal nodes of equal devices: a scale-up link inside a domain, a scale-out link beyond it."""

    name: str
    claim: str  # the statement the size comes from, with its place
    n_nodes: int
    devices_per_node: int
    device: Device
    scale_up_domain: int  # devices that reach one another over the scale-up link
    scale_up: Link
    scale_out: Link
    oversubscription: Figure  # downlink over uplink bandwidth at the narrowest tier; 1 is non-blocking
    reduces_in_network: bool = False  # switches add up what an all-reduce sends (SHARP)

    def __post_init__(self) -> None:
        require(self.n_nodes >= 1, f"n_nodes {self.n_nodes} must be at least 1")
        require(self.devices_per_node >= 1, f"devices_per_node {self.devices_per_node} must be at least 1")
        require(self.scale_up_domain >= 1, f"scale_up_domain {self.scale_up_domain} must be at least 1")
        require(self.oversubscription.value >= 1, f"oversubscription {self.oversubscription.value:g} must be at least 1")

    @property
    def n_devices(self) -> int:
        """Number of devices."""
        return self.n_nodes * self.devices_per_node
