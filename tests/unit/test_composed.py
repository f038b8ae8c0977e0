"""Published runs predicted from parts of their chip that were timed alone."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from bench.accuracy import composed
from bench.backtest import device_names, hold_composed, published_rows
from bench.config.compose import conf_dir, load_prior
from bench.config.profiles import find_profile
from bench.cost.calibrate import usual_site
from bench.cost.observation import Observation, Observed
from bench.cost.probed import from_profile
from bench.cost.sliced import is_slice_of
from bench.errors import UsageError
from bench.facts.accuracy import Composed, ComposedRow, Score
from bench.facts.hardware import Backend, Device, Precision
from bench.facts.prediction import Prior
from bench.facts.profile import Cache, ProbeKind, WorkUnit
from bench.forecast import profiles_of
from bench.report.accuracy_tables import composed_page
from bench.store.profiles import read_slice
from tests.golden.test_h200 import KEPT
from tests.property.test_evidence_laws import sample
from tests.unit.test_profile import profile

PRIOR = load_prior(conf_dir() / "prior" / "published.yaml")
H200 = device_names()["h200"]
SIDE = 8192


def told(slower: float) -> Callable[[Prior, Device], tuple[Observation, ...]]:
    """An H200 whose large products take `slower` times what its best published rate gives."""
    flops, moved = 2 * SIDE**3, 3 * 2 * SIDE**2
    seconds = flops / H200.matmul_flops_per_s[Precision.BF16].value + moved / (0.8 * H200.memory_bytes_per_s.value)
    probe = sample(ProbeKind.MATMUL, slower * seconds, flops, WorkUnit.FLOPS, Cache.BEYOND, m=SIDE, k=SIDE, n=SIDE)
    of_h200 = profile(probes=(probe,), collectives=(), backend=Backend.CUDA, device_name=H200.torch_names[0])
    return lambda prior, device: from_profile(prior, of_h200, H200, usual_site(device, 8)).observations


def test_rows_of_the_chip_and_no_others_are_predicted() -> None:
    seen = hold_composed(published_rows(), lambda _: PRIOR, told(1.0))
    devices = {one.row.setup.gpu for one in seen}
    assert {"h100-sxm", "h200"} <= devices
    assert not any(gpu.startswith(("a100", "b200", "mi")) for gpu in devices)
    assert len(seen) >= 20
    assert not any(one.row.setup.kind == "sweep" for one in seen)


def test_what_the_prior_expects_moves_nothing_and_slower_products_slow_every_row() -> None:
    as_expected = hold_composed(published_rows(), lambda _: PRIOR, told(1.0))
    slower = hold_composed(published_rows(), lambda _: PRIOR, told(1.15))
    for one, other in zip(as_expected, slower, strict=True):
        assert one.log_s == pytest.approx(one.cold_log_s, abs=1e-9)
        assert other.cold_log_s < other.log_s < other.cold_log_s + np.log(1.15)


def test_each_row_is_predicted_by_a_prior_that_has_not_seen_its_source() -> None:
    asked: list[str] = []

    def prior_without(source: str) -> Prior:
        asked.append(source)
        return replace(PRIOR, row_log_sd=replace(PRIOR.row_log_sd, value=PRIOR.row_log_sd.value * (1 + 0.01 * len(asked))))

    seen = hold_composed(published_rows(), prior_without, told(1.0))
    assert sorted(set(asked)) == sorted({one.row.setup.source for one in seen})


def test_without_anything_timed_it_says_what_to_give() -> None:
    with pytest.raises(UsageError, match=r"protocol: slices given; no published run .* give profile=RUN or slices=\[RUN\]"):
        composed(lambda *_: Observed(), PRIOR)


def test_the_page_tells_the_errors_with_and_without_the_parts() -> None:
    row = ComposedRow(
        id="r1", source="s", what="a model", published=100, composed=90, composed_p10=80, composed_p90=110, cold=150, is_sliced=True
    )
    score = Score(n=1, median=0.1, p90=0.1)
    page = composed_page(
        Composed(told=("slower",), rows=(row,), composed=score, cold=score, sliced=score, sliced_cold=score, naive=None, coverage_of_80=1.0)
    )
    assert "-10" in page
    assert "80 to 110" in page
    assert "usual MFU" not in page


def test_a_profile_of_another_chip_does_not_hide_the_kept_one() -> None:
    h100, kept = device_names()["h100-sxm"], find_profile(H200.torch_names[0])
    assert kept is not None
    of_cpu = profile(backend=Backend.CPU, device_name="a processor")
    assert profiles_of(h100, None) == (kept,)
    assert profiles_of(h100, of_cpu) == (of_cpu, kept)
    own = replace(kept, date="2030-01-01")
    assert profiles_of(h100, own) == (own,)
    assert profiles_of(device_names()["a100-80"], None) == ()


def test_a_slice_is_of_the_runs_with_its_widths_split_alike() -> None:
    spec = read_slice(KEPT / "slice_llama3_405b.json").spec
    own = [row.setup for row in published_rows() if is_slice_of(spec, row.setup)]
    assert len(own) >= 10
    assert all(setup.d_model == 16384 and (setup.tp, setup.cp) == (8, 2) for setup in own)
    assert not is_slice_of(spec, replace(own[0], cp=1.0))
    assert not is_slice_of(spec, replace(own[0], micro_batch=2.0))
    assert is_slice_of(spec, replace(own[0], micro_batch=None))
