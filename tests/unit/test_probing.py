"""Whose plan a probe or a slice means, and which cases are left out."""

import time
from collections.abc import Callable

import pytest

from bench.config.compose import compose
from bench.errors import UsageError
from bench.facts.hardware import Backend, Precision
from bench.facts.plan import Recompute
from bench.facts.profile import Cache, ProbeKind, WorkUnit
from bench.facts.progress import unheard
from bench.probing import big_plan, plan_work, slice_spec
from bench.run import probe
from bench.run.devices import LocalDevice
from bench.run.probe import Prober, last_level_cache_bytes, loads, probe_precisions
from bench.run.probe_cases import Case
from bench.run.sources import Reading
from tests.unit.test_profile import POLICY

CPU = LocalDevice(Backend.CPU, 0)
CLUSTER = "cluster=memphis_100k_h100"
GIVEN = (
    "slice.tensor_parallel_size=4",
    "slice.expert_parallel_size=2",
    "slice.context_parallel_size=1",
    "slice.micro_batch_size=1",
    "slice.recompute=full",
)


def case(flops: float = 1.0, operand_bytes: float = 1.0, name: str = "", cold: bool = False, make: Callable[[], object] = int) -> Case:
    return Case(
        kind=ProbeKind.MATMUL,
        name=name,
        sizes={},
        work=flops,
        unit=WorkUnit.FLOPS,
        operand_bytes=operand_bytes,
        make=lambda: make,
        cold=cold,
    )


def test_an_open_plan_is_the_one_that_the_search_finds() -> None:
    config = compose([CLUSTER])
    spec = slice_spec(config, Precision.BF16)
    assert (spec.plan, spec.micro_batch_size) == big_plan(config, config.clusters[0])
    assert spec.plan.world_size <= 100_000
    assert spec.cluster == "memphis_100k_h100"


def test_what_is_given_replaces_what_the_search_finds() -> None:
    config = compose([CLUSTER, "slice.expert_parallel_size=4", "slice.recompute=full"])
    plan, _ = big_plan(config, config.clusters[0])
    assert (plan.expert_parallel_size, plan.recompute) == (4, Recompute.FULL)
    assert plan.data_parallel_size % 4 == 0


def test_a_plan_given_in_full_needs_no_cluster() -> None:
    spec = slice_spec(compose(GIVEN), Precision.BF16)
    assert spec.cluster == ""
    assert (spec.plan.tensor_parallel_size, spec.plan.expert_parallel_size, spec.plan.world_size) == (4, 2, 8)


def test_an_open_plan_for_several_clusters_is_refused() -> None:
    with pytest.raises(UsageError, match=r"4 clusters are given .*choose one"):
        slice_spec(compose([]), Precision.BF16)


def test_a_plan_that_does_not_divide_is_refused() -> None:
    with pytest.raises(UsageError, match="tensor_parallel_size 5 does not divide n_heads 48; use 4 or 6"):
        slice_spec(compose([*GIVEN, "slice.tensor_parallel_size=5"]), Precision.BF16)


def test_a_probe_takes_the_products_of_every_cluster_and_says_which_has_none() -> None:
    plans, warnings = plan_work(compose(GIVEN))
    assert [p.name for p in plans] == ["oracle_24k_h100", "memphis_100k_h100", "blackwell_300k_b200", "gpt4_25k_a100"]
    assert warnings == ()
    plans, warnings = plan_work(compose([*GIVEN, "slice.tensor_parallel_size=5"]))
    assert plans == ()
    assert "does not divide" in warnings[0]


def test_what_takes_too_long_or_too_much_memory_is_left_out_and_said() -> None:
    prober = Prober(POLICY, CPU, free_bytes=1000, cache_bytes=100)
    prober.run(case(flops=1e3))
    # some microseconds at most for 1e3 FLOPs: 1e12 take minutes
    prober.run(case(flops=1e12, name="head"))
    prober.run(case(operand_bytes=501))
    assert len(prober.done) == 1
    assert "x probe.repeat.budget_s" in prober.absent[0].reason
    assert "are free" in prober.absent[1].reason


def test_where_operands_lie_is_said() -> None:
    prober = Prober(POLICY, CPU, free_bytes=10_000, cache_bytes=100)
    for one in (case(operand_bytes=399), case(operand_bytes=400), case(cold=True)):
        prober.run(one)
    assert [p.cache for p in prober.done] == [Cache.WARM, Cache.BEYOND, Cache.COLD]


def test_precisions_end_with_fp32_unless_one_is_asked_for() -> None:
    assert probe_precisions(CPU, Precision.BF16) == (Precision.BF16,)
    assert probe_precisions(CPU, None)[-1] is Precision.FP32


def test_the_last_level_cache_has_a_size() -> None:
    assert 2**18 <= last_level_cache_bytes(CPU) <= 2**31


class Meter:
    """A device that always draws 100 W."""

    name = "a meter"
    period_s = None

    def read(self) -> Reading:
        return Reading(power_w=100.0)


def test_a_load_tells_power_and_the_rate_that_was_kept_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "SETTLING_S", 0.01)
    [load] = loads(POLICY, CPU, Meter(), [case(flops=10.0, make=lambda: time.sleep(1e-3))], unheard)
    assert load.telemetry.power_w == 100.0
    assert 10 / 20e-3 < load.rate_per_s < 10 / 1e-3
    assert load.work_unit is WorkUnit.FLOPS
