"""`bench probe` and `bench slice` through the command line."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from bench.cli import main
from bench.codec import decode_text
from bench.config.compose import compose
from bench.config.profiles import find_profile
from bench.facts.hardware import Precision
from bench.facts.profile import Cache, Collective, DeviceProfile, GroupAxis, ProbeKind
from bench.forecast import projections
from bench.store.forecasts import Forecast
from bench.store.profiles import read_profile, read_slice, write_profile
from tests.conftest import Bench, run_bench

# a target of a few thousand parameters, and a plan that divides it
TARGET = (
    "target.model.n_layers=2",
    "target.model.d_model=64",
    "target.model.n_heads=4",
    "target.model.n_kv_heads=2",
    "target.model.d_ff_expert=128",
    "target.model.vocab_size=256",
    "target.model.seq_len=128",
)
PLAN = (
    "slice.tensor_parallel_size=2",
    "slice.expert_parallel_size=4",
    "slice.context_parallel_size=2",
    "slice.micro_batch_size=2",
    "slice.recompute=none",
)
SHORT = (
    "probe=quick",
    "probe.repeat.budget_s=0.02",
    "probe.matmul_sizes=[32,64]",
    "probe.attention_seq_lens=[16]",
    "probe.memory_sizes_bytes=[65536]",
    "probe.optimizer_parameters=[1000]",
    "probe.collective_max_bytes=16384",
    "train.precision=fp32",
)
Done = tuple[subprocess.CompletedProcess[str], DeviceProfile, Path]


@pytest.fixture(scope="module")
def probed(tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A finished probe on two ranks."""
    cwd = tmp_path_factory.mktemp("probe")
    done = run_bench("probe", *SHORT, "device=cpu", *TARGET, *PLAN, "out=kept", cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done, read_profile(cwd / "kept"), cwd / "kept"


def test_a_complete_set_is_a_device_profile(probed: Done) -> None:
    profile = probed[1]
    assert {p.kind for p in profile.probes} == set(ProbeKind)
    assert {c.collective for c in profile.collectives} == set(Collective)
    assert {(c.axis, c.n_ranks) for c in profile.collectives} == {(GroupAxis.WITHIN_NODE, 2)}
    assert profile.communication == "gloo"
    assert not profile.absent


def test_a_profile_of_a_cpu_does_not_move_an_h100_and_says_why(probed: Done, tmp_path: Path) -> None:
    at = ("cluster=oracle_24k_h100", "target=llama3_70b")
    done = run_bench("predict", f"profile={probed[2]}", *at, "out=with", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"the profile is of {probed[1].device_name}" in " ".join(done.stdout.split())
    assert run_bench("predict", *at, "out=without", cwd=tmp_path).returncode == 0
    [told], [cold] = (decode_text(Forecast, (tmp_path / name / "prediction.json").read_bytes()).projections for name in ("with", "without"))
    assert told.step_s == cold.step_s


def test_a_profile_of_the_clusters_device_counts(probed: Done, tmp_path: Path) -> None:
    """The real profile under an H100's name, with one product slower than its best."""
    config = compose(["cluster=oracle_24k_h100", "target=llama3_70b"])
    [cluster] = config.clusters
    product = next(p for p in probed[1].probes if p.kind is ProbeKind.MATMUL)
    best = cluster.device.matmul_flops_per_s[Precision.BF16].value
    seconds = 1.3 * 2 * 4096**3 / best  # 224 us where 173 + 38 for its bytes are expected: 0.94
    timing = replace(product.timing, samples_s=(seconds,), median_s=seconds, low_s=seconds, high_s=seconds)
    large = replace(product, name="", sizes={"m": 4096, "k": 4096, "n": 4096}, precision=Precision.BF16, work=2 * 4096.0**3, timing=timing)
    profile = replace(probed[1], device_name=cluster.device.torch_names[0], probes=(large,), collectives=())
    write_profile(tmp_path, profile)
    [told], _ = projections(replace(config, profile=str(tmp_path)), None)
    [cold], _ = projections(config, None)
    assert any(sentence.startswith("H100-SXM alone (profile of ") and "1 matrix products 0.94" in sentence for sentence in told.told)
    assert told.step_s.p50 != cold.step_s.p50
    assert find_profile(cluster.device.torch_names[0], tmp_path) == profile


@pytest.mark.parametrize("key", ["profile=nowhere", "slices=[nowhere]", "slices=nowhere"])
def test_what_is_no_evidence_is_refused_in_one_line(key: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", key, f"out={tmp_path / 'out'}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_every_point_keeps_its_samples_and_its_rate(probed: Done) -> None:
    for p in probed[1].probes:
        assert len(p.timing.samples_s) >= 5
        assert p.rate_per_s == pytest.approx(p.work / p.timing.median_s)
        assert p.rate_low_per_s <= p.rate_per_s <= p.rate_high_per_s
    for c in probed[1].collectives:
        assert c.correct
        assert c.algorithm_bytes_per_s == pytest.approx(c.size_bytes / c.timing.median_s)


def test_the_plans_products_are_probed_cold_and_warm_beside_the_surface(probed: Done) -> None:
    products = [p for p in probed[1].probes if p.kind is ProbeKind.MATMUL]
    # 8 points of the surface
    assert sum(not p.name for p in products) == 8
    # 4 experts of 128 / 2 units on 4 devices; 2 x 128 tokens x 2 of 4 chosen of 8: 2 * 64 slots on a device, tp * ep = 8 of 16 each
    up = [p for p in products if p.name == "expert up"]
    assert {p.cache for p in up} == {Cache.WARM, Cache.COLD}


def test_files_and_tables_are_there(probed: Done) -> None:
    done, _, run_dir = probed
    assert {path.name for path in run_dir.iterdir()} == {"config.yaml", "profile.json", "report.md", "log"}
    for words in ("Products of plans for grok1_314b", "all_reduce", "The payload was right everywhere"):
        assert words in done.stdout
        assert words in (run_dir / "report.md").read_text()


def test_a_slice_is_timed_phase_by_phase(bench: Bench, tmp_path: Path) -> None:
    done = bench("slice", "device=cpu", *TARGET, *PLAN, "slice.repeat.budget_s=0.1", "train.precision=fp32", "out=kept")
    assert done.returncode == 0, done.stderr
    measured = read_slice(tmp_path / "kept")
    assert measured.local.n_heads == 2
    assert (measured.n_experts_held, measured.local.d_ff_expert, measured.local.seq_len) == (2, 64, 64)
    for words in ("forward", "backward", "optimizer", "recompute none", "as given"):
        assert words in done.stdout
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"config.yaml", "slice.json", "report.md", "log"}


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("slice",), 2, ["the plan is open", "choose one: cluster=NAME"]),
        (("slice", *PLAN, "slice.n_layers=64", "slice.tensor_parallel_size=1", "slice.expert_parallel_size=1"), 4, ["GiB are usable here"]),
        (("probe", "probe.collective_max_bytes=4"), 2, ["collective_max_bytes 4 is below"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(bench: Bench, arguments: tuple[str, ...], code: int, words: list[str]) -> None:
    done = bench(*arguments, "device=cpu")
    assert done.returncode == code, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    for word in words:
        assert word in last
    assert "Traceback" not in done.stderr
