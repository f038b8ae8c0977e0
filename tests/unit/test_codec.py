"""The one door refuses what is wrong, with its path, and gives back what it took."""

import pytest

from bench.codec import decode, encode
from bench.errors import UsageError
from bench.facts.engine import SlurmEngine
from bench.facts.figure import Figure, Interval, Provenance
from bench.facts.hardware import Link

FIGURE = {"value": 5.0, "provenance": "assumed", "source": "a test"}


def test_a_fact_survives_the_way_out_and_in() -> None:
    link = Link(
        bytes_per_s=Figure(value=1e9, provenance=Provenance.DATASHEET, source="x"),
        latency_s=Figure(value=0, provenance=Provenance.ASSUMED, source="y"),
    )
    assert decode(Link, encode(link)) == link


@pytest.mark.parametrize(
    ("plain", "sentence"),
    [
        ({"bytes_per_s": FIGURE, "latency_s": FIGURE | {"value": "5"}}, 'latency_s.value: "5" given; input should be a valid number'),
        ({"bytes_per_s": FIGURE, "latency": FIGURE}, "latency_s: is missing"),
        ({"bytes_per_s": FIGURE, "latency_s": FIGURE, "latencys": 1}, "latencys: unknown key"),
        ({"bytes_per_s": FIGURE, "latency_s": FIGURE | {"provenance": "guess"}}, "latency_s.provenance: "),
        ({"bytes_per_s": FIGURE, "latency_s": FIGURE | {"source": " "}}, "latency_s: source of the figure 5 is empty"),
        ({"bytes_per_s": FIGURE | {"value": 0}, "latency_s": FIGURE}, "bytes_per_s 0 must be above 0"),
    ],
)
def test_a_wrong_mapping_is_refused_in_one_line(plain: dict[str, object], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        decode(Link, plain)
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_an_interval_out_of_order_is_refused() -> None:
    with pytest.raises(UsageError, match="not in order"):
        decode(Interval, {"p10": 2.0, "p50": 1.0, "p90": 3.0})


def test_infinity_is_no_number() -> None:
    with pytest.raises(UsageError, match="finite"):
        decode(Interval, {"p10": 1.0, "p50": 1.0, "p90": float("inf")})


def test_what_was_given_does_not_break_the_line() -> None:
    slurm = {"name": "slurm", "verb": "run", "partition": None, "n_nodes": 1, "time_limit_s": 600.0, "account": None, "gres": None}
    slurm |= {"constraint": None, "cpus_per_node": None, "signal": "a\nb", "signal_lead_s": 60.0, "requeue": True}
    with pytest.raises(UsageError, match=r"^signal 'a\\nb' must be one of TERM, USR1, USR2$"):
        decode(SlurmEngine, slurm)
