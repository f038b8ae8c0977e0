"""Where the time, the memory and the energy of a step go. What could not be measured is None, with its reason: never zero."""

from enum import StrEnum

from bench.facts.figure import fact


class Phase(StrEnum):
    """A part of one rank's step that ends at a boundary of its own."""

    DATA = "data"
    FORWARD = "forward"
    BACKWARD = "backward"  # with whatever communication it does not hide
    OPTIMIZER = "optimizer"
    BUBBLE = "bubble"  # between the passes of a pipeline rank's own stages: waiting for the others, sends and receives


@fact
class RankPhases:
    """Medians over the steps of the breakdown on one rank."""

    rank: int
    host: str
    phase_s: dict[Phase, float]
    own_s: float | None  # data, forward and backward while no rank waits for another; None where ranks cannot be uncoupled
    exposed_s: float | None  # what coupling adds to them: communication, and waiting for slower ranks


@fact
class Straggler:
    """The slowest rank by its own work: in synchronous training every rank's step is as long as that of the slowest."""

    rank: int
    host: str
    own_s: float
    median_own_s: float  # over all ranks

    @property
    def ratio(self) -> float:
        """Its own work over that of the median rank."""
        return self.own_s / self.median_own_s


@fact
class StepBreakdown:
    """A few steps after the timed ones, cut at the boundaries of their phases. No headline number rests on them."""

    n_steps: int
    step_s: float | None = None  # median over these steps, mean over ranks: close to the timed one where the cuts cost nothing
    ranks: tuple[RankPhases, ...] = ()
    exposed_communication_s: float | None = None  # on the rank that waits least, so without the wait for slower ranks
    exposed_by: str  # how that was found, or why not
    bubble_s: float | None = None  # mean over ranks, what the busy times of their stages leave; None without a pipeline
    straggler: Straggler | None = None  # None where the ranks' own work is alike, or cannot be compared

    @property
    def own_s_by_host(self) -> dict[str, list[float]]:
        """Own work of the ranks, by host; empty where it is not known."""
        found: dict[str, list[float]] = {}
        for r in self.ranks:
            if r.own_s is not None:
                found.setdefault(r.host, []).append(r.own_s)
        return found


@fact
class MemoryUse:
    """Bytes of one rank's device. Where torch counts nothing (CPU), only what is summed tensor by tensor is known."""

    rank: int
    parameters_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int | None  # peak allocated less all of the above
    peak_allocated_bytes: int | None
    peak_reserved_bytes: int | None
    n_retries: int | None  # allocations that succeeded only after the cache was emptied
    n_out_of_memory: int | None

    @property
    def static_bytes(self) -> int:
        """What stays between steps, and gradients."""
        return self.parameters_bytes + self.gradients_bytes + self.optimizer_bytes


@fact
class DeviceTelemetry:
    """What one device, or one machine's processors, told about itself during the timed windows."""

    rank: int
    host: str
    source: str
    n_samples: int
    power_w: float | None  # mean
    peak_power_w: float | None
    energy_j: float | None  # over the timed windows
    clock_hz: float | None  # mean
    lowest_clock_hz: float | None
    peak_temperature_c: float | None
    throttled_fraction: float | None  # of the samples
    throttle_reasons: tuple[str, ...]
    n_foreign_processes: int | None  # most that were seen at once


@fact
class Telemetry:
    """Sums over all sources; None where one of them did not tell."""

    devices: tuple[DeviceTelemetry, ...]
    power_w: float | None
    energy_j: float | None
    energy_j_per_token: float | None
