"""How long the operations of a step take on one rank, kept so that a wait can stand for each of them."""

from bench.facts.figure import fact, require

METER_VERSION = 1


@fact
class MeteredOutput:
    """One thing that an operation returns."""

    shape: tuple[int, ...] | None = None  # of a new tensor
    stride: tuple[int, ...] = ()
    dtype: str = ""
    argument: int | None = None  # place among the tensors given, where that is what is returned
    constant: float | int | bool | None = None  # where neither


@fact
class MeteredCall:
    """An operation on tensors of certain shapes."""

    seconds: float  # mean of its calls, scaled so that those of a step add up to what a step takes
    outputs: tuple[MeteredOutput, ...]
    is_sequence: bool  # whether it returns several things, or none

    def __post_init__(self) -> None:
        require(self.seconds >= 0, f"seconds {self.seconds:g} must not be negative")


@fact
class Meter:
    """The operations of a step by name and shapes, as one rank ran them while it had a core to itself."""

    meter_version: int
    model: str
    own_s: float  # of a step, what ranks wait for one another left out
    calls: dict[str, MeteredCall]
