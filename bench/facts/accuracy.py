"""How far predictions were from published runs."""

from bench.facts.figure import fact
from bench.facts.published import Protocol


@fact
class Score:
    """Relative errors, of tokens per second of one device where nothing else is said."""

    n: int
    median: float
    p90: float


@fact
class ProtocolAccuracy:
    """One protocol, every source left out of the fit that predicts it."""

    protocol: Protocol
    predicted: Score
    naive: Score
    by_stack: Score  # every stack's median error counted once
    beyond_16x: Score | None  # on more than sixteen times the measured devices
    beyond_16x_naive: Score | None
    coverage_of_80: float
    coverage_by_class: dict[str, float]
    plan_regret: Score | None  # of the plan ranked first, where five or more compete


@fact
class UnseenAccuracy:
    """Runs that came after the fit, in one number format: by the shipped prior alone, and after one run of the same stack."""

    precision: str
    n_rows: int
    cold: Score
    cold_bias: float  # median of predicted over published, less one
    cold_coverage_of_80: float
    told: Score | None  # a stack's cheapest model is measured, its others are predicted; None where no stack has others
    told_coverage_of_80: float | None


@fact
class WorstRow:
    """A row that was missed by much."""

    id: str
    source: str
    what: str
    predicted_over_observed: float
    sds: float  # of the predicted distribution


@fact
class MemoryAccuracy:
    """The memory model on the open sweep of plans, to which five of its constants are fitted."""

    n_runs: int
    n_failures: int  # that ran out of memory
    balanced: float  # mean of the shares of runs and of failures that are told right
    n_near_limit: int  # of both, where the need predicted lies between 50 and 110 GiB
    balanced_near_limit: float
    reserved: Score  # of the memory that the first stage of a run reserved


@fact
class ComposedRow:
    """A published run, predicted from what parts of its chip were timed to take; tokens per second of one device."""

    id: str
    source: str
    what: str
    published: float
    composed: float
    composed_p10: float
    composed_p90: float
    cold: float  # by the same prior without what was timed
    is_sliced: bool  # whether its own layer, split as it splits it, is among what was timed


@fact
class Composed:
    """Published runs on the chip of a profile or of slices, each source left out of the fit behind its rows."""

    told: tuple[str, ...]  # what the parts say of each device, by the prior fitted to all sources
    rows: tuple[ComposedRow, ...]
    composed: Score
    cold: Score
    sliced: Score | None  # of the rows whose own layer was timed; None where there is none
    sliced_cold: Score | None  # of the same without what was timed
    naive: Score | None  # the usual MFU of the device; of the rows whose shape is told, None where none is
    coverage_of_80: float


@fact
class Accuracy:
    """The whole back-test."""

    n_rows: int
    n_stacks: int
    n_sources: int
    protocols: tuple[ProtocolAccuracy, ...]
    worst: tuple[WorstRow, ...]
    unseen: tuple[UnseenAccuracy, ...]
    memory: MemoryAccuracy
