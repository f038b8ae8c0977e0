"""What others stated or observed of whole systems, and the product's own figure beside it."""

from bench.facts.figure import Interval, fact, require


@fact
class Claim:
    """A quantitative statement of the documents that the project started from."""

    id: str
    claim: str
    quantity: str
    value_low: float
    value_high: float
    unit: str
    system: str
    source: str
    note: str

    def __post_init__(self) -> None:
        require(self.value_low <= self.value_high, f"claim {self.id}: {self.value_low:g} above {self.value_high:g}")


@fact
class ClaimCheck:
    """A claim with the product's own figure."""

    claim: Claim
    own: Interval
    agrees: bool  # the claimed range and the product's interval meet
    how: str


@fact
class ReliabilityRow:
    """A published run that failed and went on; None where the source does not say."""

    id: str
    source: str
    locator: str
    leave_out: tuple[str, ...]  # published rates that come from this very source
    n_devices: int
    devices_per_node: int
    device: str
    days: float | None
    count: tuple[float, float] | None
    hardware_only: bool
    mtbf_h: tuple[float, float] | None
    effective: tuple[float, float] | None
    recovery: str
    n_parameters: float | None
    not_used: str  # why a row gives too little to be predicted; empty where it does not
    note: str


@fact
class Compared:
    """A predicted quantity beside what was observed."""

    what: str
    predicted: Interval
    observed_low: float
    observed_high: float

    @property
    def error_fraction(self) -> float:
        """Median over the nearest end of the observed range, less 1; 0 within it."""
        if self.observed_low <= self.predicted.p50 <= self.observed_high:
            return 0.0
        nearest = self.observed_low if self.predicted.p50 < self.observed_low else self.observed_high
        return self.predicted.p50 / nearest - 1

    @property
    def holds(self) -> bool:
        """Whether the interval and the observed range meet."""
        return self.predicted.p10 <= self.observed_high and self.predicted.p90 >= self.observed_low


@fact
class RowCheck:
    """Everything of a row that could be predicted, its own source left out of the rates."""

    row: ReliabilityRow
    compared: tuple[Compared, ...]
    exact_fraction: float | None
    first_order_fraction: float | None
    simulated_fraction: float | None  # mean of the simulated runs


@fact
class EnergyRow:
    """A published power of devices in training."""

    id: str
    source: str
    locator: str
    device: str
    n_devices: int | None
    device_hours: float | None
    energy_j: float | None
    measured_w: float | None
    with_host: bool
    flops_per_s: float | None  # of one device
    load_note: str
    is_metered: bool  # so its source says
    not_used: str


@fact
class EnergyCheck:
    """A published power beside the product's."""

    row: EnergyRow
    predicted_w: float
    how: str

    @property
    def error_fraction(self) -> float:
        """Predicted over measured, less 1."""
        assert self.row.measured_w is not None
        return self.predicted_w / self.row.measured_w - 1
