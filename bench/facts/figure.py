"""A figure with where it comes from, an interval, and the decorator every fact wears."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar, dataclass_transform

from bench.errors import InvalidFact

T = TypeVar("T")

# Read by the decoder (bench.config): no unknown field, no silent conversion, no infinity.
STRICT = {"extra": "forbid", "strict": True, "allow_inf_nan": False}


@dataclass_transform(frozen_default=True, kw_only_default=True)
def fact(cls: type[T]) -> type[T]:
    """A frozen, keyword-only dataclass that the decoder reads strictly."""
    cls.__pydantic_config__ = STRICT  # type: ignore[attr-defined]
    return dataclass(frozen=True, kw_only=True)(cls)


def require(holds: bool, text: str | Callable[[], str]) -> None:
    """Nothing where the rule holds; InvalidFact with `text` where it does not."""
    if not holds:
        raise InvalidFact(text if isinstance(text, str) else text())


class Provenance(StrEnum):
    """How a number came to be known, strongest first."""

    MEASURED = "measured"
    FITTED = "fitted"
    PUBLISHED = "published"
    DATASHEET = "datasheet"
    ASSUMED = "assumed"


def weakest(*provenances: Provenance) -> Provenance:
    """The weakest provenance among those that a computed number rests on."""
    order = list(Provenance)
    return max(provenances, key=order.index)


@fact
class Figure:
    """One number of the outside world; its unit is in the name of the field that holds it."""

    value: float
    provenance: Provenance
    source: str

    def __post_init__(self) -> None:
        require(bool(self.source.strip()), f"source of the figure {self.value:g} is empty; name where it comes from")


@fact
class Parameter:
    """An uncertain figure of the cost model: log-normal, `log_sd` its standard deviation in natural logarithms."""

    value: float
    log_sd: float
    provenance: Provenance
    source: str

    def __post_init__(self) -> None:
        require(self.value > 0, f"value {self.value:g} must be above 0")
        require(self.log_sd >= 0, f"log_sd {self.log_sd:g} must not be negative")
        require(bool(self.source.strip()), f"source of the parameter {self.value:g} is empty; name where it comes from")


@fact
class Interval:
    """10th, 50th and 90th percentile of a predicted quantity."""

    p10: float
    p50: float
    p90: float

    def __post_init__(self) -> None:
        require(self.p10 <= self.p50 <= self.p90, lambda: f"percentiles {self.p10:g}, {self.p50:g}, {self.p90:g} are not in order")
