"""Every uncertain or stated figure that an option rests on, by the path that overrides it."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from bench.cost.draws import interval_of_log_normal
from bench.facts.decision import Assumption
from bench.facts.figure import Figure, Parameter
from bench.facts.scenario import Option, Range

LEFT_OUT = ("device",)  # its datasheet is the predictor's affair


def assumptions_of(option: Option) -> tuple[Assumption, ...]:
    """The figures of an option, those of the datasheets of its devices left out."""
    return tuple(_found(option, f"scenario.options.{option.name}"))


def _found(node: Any, path: str) -> Iterator[Assumption]:
    if isinstance(node, Figure):
        yield Assumption(path=path, low=node.value, middle=node.value, high=node.value, provenance=node.provenance, source=node.source)
    elif isinstance(node, Parameter):
        spread = interval_of_log_normal(node)
        yield Assumption(path=path, low=spread.p10, middle=node.value, high=spread.p90, provenance=node.provenance, source=node.source)
    elif isinstance(node, Range):
        yield Assumption(path=path, low=node.p10, middle=node.p50, high=node.p90, provenance=node.provenance, source=node.source)
    elif isinstance(node, dict):
        for key, child in node.items():
            yield from _found(child, f"{path}.{key}")
    elif is_dataclass(node):
        for field in fields(node):
            if field.name not in LEFT_OUT:
                yield from _found(getattr(node, field.name), f"{path}.{field.name}")
