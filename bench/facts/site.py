"""Where devices stand: power, cooling, water, and the lines between several such places."""

from enum import StrEnum

from bench.facts.figure import Figure, Parameter, fact, require


class Cooling(StrEnum):
    """What carries the heat from the devices."""

    AIR = "air"
    LIQUID = "liquid"


@fact
class Site:
    """A building with a connection to the grid. Powers are per device where the name does not say otherwise."""

    name: str
    claim: str  # what somebody stated of it, with its place
    compute_fraction: Figure  # of the device's rated power, while it computes
    waiting_fraction: Figure  # while it waits for others or for a checkpoint
    idle_fraction: Figure  # with nothing to do; no power cap reaches below
    node_overhead_w: Parameter  # processors, network cards, fans, supplies, per device
    network_fraction: Parameter  # switches, optics and storage, over the nodes
    pue: Parameter  # facility over computers
    cooling: Cooling
    water_m3_per_j: Parameter  # evaporated and drained, per joule of the facility
    power_cap_w: Figure | None  # of the facility
    electricity_usd_per_j: Parameter

    def __post_init__(self) -> None:
        fractions = (self.idle_fraction.value, self.waiting_fraction.value, self.compute_fraction.value)
        require(
            0 <= fractions[0] <= fractions[1] <= fractions[2] <= 1.2,
            f"idle, waiting and compute fractions {fractions} must ascend from 0 to 1.2 of the rated power",
        )
        require(self.pue.value >= 1, f"pue {self.pue.value:g} must be at least 1")
        cap = self.power_cap_w
        require(cap is None or cap.value > 0, lambda: f"power_cap_w {cap.value if cap else 0:g} must be above 0, or null for none")


class CapAnswer(StrEnum):
    """What a power cap makes of a cluster."""

    NONE = "none"  # below the cap as it is
    CLOCKS = "clocks"
    DEVICES = "devices"


@fact
class Power:
    """What a cluster draws and evaporates while it trains."""

    peak_w: float  # of the facility, all devices computing
    average_w: float
    it_peak_w: float
    swing_w: float  # between computing and waiting, all devices at once
    water_m3_per_day: float
    cap_w: float | None
    cap_answer: CapAnswer
    clock_fraction: float  # of the free clock, under the cap
    n_devices_powered: int
    speed_fraction: float  # of the training speed without the cap
    infeasible: str  # why the cap cannot be kept; empty where it can
