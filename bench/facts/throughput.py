"""A kept result as one row of a table of training throughput."""

from bench.facts.figure import fact
from bench.facts.measurement import Measurement


@fact
class ThroughputRow:
    """What published tables of training throughput show of a run; attention counted in full, as they do."""

    folder: str
    date: str
    measurement: Measurement
    n_launches: int
    flops_per_s_per_device: float
    mfu_fraction: float | None  # None where the peak is not known
    hfu_fraction: float | None  # with the FLOPs of computing activations again
