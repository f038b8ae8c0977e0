"""Odd inputs at every door: configuration, tables of rows, results, saved states."""

import csv
import io
import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from bench.backtest import predict_rows
from bench.cli import main
from bench.codec import encode_text
from bench.config.compose import compose, compose_plain, groups, load
from bench.cost.utilization import utilization
from bench.errors import BenchError
from bench.facts.hardware import Backend
from bench.facts.measurement import Survey
from bench.facts.result import SCHEMA_VERSION, Result
from bench.forecast import projections
from bench.run import checkpoint
from bench.run.manifest import MANIFEST, METADATA, Torn, checksum, read_manifest, read_metadata
from bench.run.train import Trainer
from bench.store.published import predictions_text, read_rows, shipped_rows
from bench.store.results import RESULT, read_result
from tests.faults.test_checkpoint import CPU, spec_of, trained
from tests.fuzz.conftest import Door
from tests.fuzz.mutations import ODD, odd_bytes, odd_mapping, places
from tests.round_numbers import measurement
from tests.unit.test_profile import profile

QUICK_AND_FULL = [300, pytest.param(10_000, marks=(pytest.mark.slow, pytest.mark.timeout(3000)))]
ROWS_OF_A_TABLE = 25


@pytest.mark.parametrize("n_inputs", QUICK_AND_FULL)
def test_a_configuration_is_read_or_refused_in_one_line(n_inputs: int, door: Door) -> None:
    plain = compose_plain([])
    known = list(places(plain))
    let_in = sum(door(lambda odd=odd: load(odd), f"seed {seed}") for seed, odd in odd_plains(n_inputs, plain, known))
    assert 0 < let_in < n_inputs


def odd_plains(n: int, plain: Any, known: list[tuple[Any, ...]]) -> Any:
    return ((seed, odd_mapping(random.Random(seed), plain, known)) for seed in range(n))


KEYS = ("train.seed", "measure.steps", "plan.tensor_parallel_size", "cluster.n_nodes", "out", "rows", "profile", "slices", "result", "name")


def odd_override(rng: random.Random, keys: list[str]) -> str:
    """A key of the configuration, or a group, or neither, and any value."""
    key = rng.choice((rng.choice(keys), rng.choice(KEYS), rng.choice(list(groups())), "unknown", "+new", "~name", "hydra.run.dir", "a b"))
    value = rng.choice((rng.choice([str(odd)[:200] for odd in ODD]), "[1,2]", "{a:1}", "1,2", "${name}", "${unknown}", "'", "a=b", "???"))
    return f"{key}{rng.choice(('=', '=', '=', '', '=='))}{value}"


# a tenth of a second of one core each, most of it Hydra's: 10,000 in pieces, so that several cores can share them
COMMAND_LINES = [
    range(25),
    *(pytest.param(range(i, i + 1_000), marks=(pytest.mark.slow, pytest.mark.timeout(3000))) for i in range(0, 10_000, 1_000)),
]


@pytest.mark.parametrize("seeds", COMMAND_LINES, ids=str)
def test_a_command_line_ends_with_a_code_and_one_line(seeds: range, door: Door, capsys: pytest.CaptureFixture[str]) -> None:
    keys = [".".join(map(str, path)) for path in places(compose_plain([])) if all(isinstance(part, str) for part in path)]
    for seed in seeds:
        rng = random.Random(seed)
        overrides = [odd_override(rng, keys) for _ in range(rng.choice((1, 1, 2, 3)))]
        codes: list[int] = []
        door(lambda given=overrides, codes=codes: codes.append(main(["run", "--cfg", *given])), f"seed {seed}: {overrides}")
        told = capsys.readouterr().err
        assert codes[0] in (0, 2, 4), (seed, overrides, told)
        assert len(told.splitlines()) == (codes[0] != 0), (seed, overrides, told)


@pytest.mark.parametrize("n_inputs", QUICK_AND_FULL)
def test_a_table_of_rows_is_predicted_or_told_why_not(n_inputs: int, door: Door, tmp_path: Path) -> None:
    prior = compose([]).prior
    shipped = shipped_rows()
    file = tmp_path / "rows.csv"
    for seed in range(n_inputs // ROWS_OF_A_TABLE):
        rng = random.Random(seed)
        rows = [odd_row(rng, rng.choice(shipped)) for _ in range(ROWS_OF_A_TABLE)]
        file.write_bytes(table(rows))
        door(lambda: predict_file(file, prior), f"seed {seed}")
        file.write_bytes(odd_bytes(rng, table([rng.choice(shipped)])))
        door(lambda: predict_file(file, prior), f"torn, seed {seed}")


def predict_file(file: Path, prior: Any) -> None:
    rows = read_rows(file)
    predicted = predict_rows(rows, rows[:3], prior)
    assert len(predicted) == len(rows)
    assert all("\n" not in one.error for one in predicted)
    for one in predicted:
        low, middle, high = one.tokens_per_s_per_device_p10, one.tokens_per_s_per_device, one.tokens_per_s_per_device_p90
        assert one.error or 0 < (low or 0) <= (middle or 0) <= (high or 0) < float("inf"), one
    predictions_text(predicted)


def odd_row(rng: random.Random, row: dict[str, str]) -> dict[str, str]:
    changed = {"group": "g", **row}
    names = list(changed)
    for _ in range(rng.choice((1, 1, 2, 5))):
        act, name = rng.randrange(4), rng.choice(names)
        number = changed[name].replace(".", "", 1).isdigit()
        if act == 0:
            changed[name] = ""
        elif act == 1 and number:
            changed[name] = str(float(changed[name]) * rng.choice((-1, 0, 0.5, 2, 3, 1000, 1e-9, 1e12)))
        elif act == 2:
            changed[name] = changed[rng.choice(names)]
        else:
            changed[name] = str(rng.choice(ODD))[:200]
    return changed


def table(rows: list[dict[str, str]]) -> bytes:
    out = io.StringIO()
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(out, names, restval="")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def result_text() -> bytes:
    """A result of made-up times and a real projection."""
    config = compose(["cluster=nvidia_eos", "target=llama3_70b"])
    measured = measurement(1000.0)
    survey = Survey(backend=Backend.CPU, device_name="Round 1", world_size=1, memory_bytes=1, threads_per_rank=1, trial_flops_per_s={})
    projected, left_out = projections(config, measured)
    result = Result(
        schema_version=SCHEMA_VERSION,
        run_id="odd",
        run_dir="out",
        bench_version="0",
        config=compose_plain(["cluster=nvidia_eos"]),
        environment=profile().environment,
        survey=survey,
        measurement=measured,
        utilization=utilization(measured, None),
        projections=projected,
        not_projected=left_out,
        warnings=(),
        launches=(measured, measured),
    )
    return encode_text(result).encode()


@pytest.mark.parametrize("n_inputs", QUICK_AND_FULL)
def test_a_result_is_read_or_refused_in_one_line(n_inputs: int, door: Door, result_text: bytes, tmp_path: Path) -> None:
    plain = json.loads(result_text)
    known = list(places(plain))
    file = tmp_path / RESULT
    for seed in range(n_inputs):
        rng = random.Random(seed)
        text = odd_bytes(rng, result_text) if seed % 2 else json.dumps(odd_mapping(rng, plain, known)).encode()
        file.write_bytes(text)
        if door(lambda: read_result(file), f"seed {seed}"):
            encode_text(read_result(file))


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one whole state of a tiny run."""
    folder = tmp_path_factory.mktemp("state")
    checkpoint.save(trained(1), folder, 1)
    return folder


@pytest.mark.parametrize("n_inputs", QUICK_AND_FULL)
def test_a_list_of_tensors_is_read_or_torn(n_inputs: int, door: Door, state: Path) -> None:
    data, files = (state / "step-1" / METADATA).read_bytes(), read_manifest(state / "step-1")["files"]
    for seed in range(n_inputs):
        odd = odd_bytes(random.Random(seed), data)
        door(lambda odd=odd: torn_is_fine(read_metadata, odd, files), f"seed {seed}")


@pytest.mark.parametrize("n_inputs", QUICK_AND_FULL)
def test_a_manifest_is_read_or_torn(n_inputs: int, door: Door, state: Path, tmp_path: Path) -> None:
    text = (state / "step-1" / MANIFEST).read_bytes()
    plain = json.loads(text)
    known = list(places(plain))
    for seed in range(n_inputs):
        rng = random.Random(seed)
        odd = odd_bytes(rng, text) if seed % 2 else json.dumps(odd_mapping(rng, plain, known)).encode()
        (tmp_path / MANIFEST).write_bytes(odd)
        door(lambda: torn_is_fine(read_manifest, tmp_path), f"seed {seed}")


def torn_is_fine(read: Any, *arguments: Any) -> None:
    """Nothing; a torn state is an expected answer, in one line."""
    try:
        read(*arguments)
    except Torn as reason:
        raise BenchError(str(reason)) from None


@pytest.mark.parametrize("n_inputs", [60, pytest.param(3_000, marks=(pytest.mark.slow, pytest.mark.timeout(3000)))])
def test_a_forged_state_is_loaded_or_passed_over(n_inputs: int, door: Door, state: Path, tmp_path: Path) -> None:
    """As somebody would forge it: the checksum of what was changed is that of the manifest."""
    trainer = Trainer(spec_of(), CPU)
    for seed in range(n_inputs):
        rng = random.Random(seed)
        folder = tmp_path / "forged"
        shutil.copytree(state, folder)
        names = [METADATA, *(file.name for file in (folder / "step-1").glob("*.distcp"))]
        file = folder / "step-1" / rng.choice(names)
        file.write_bytes(odd_bytes(rng, file.read_bytes()))
        told = json.loads((folder / "step-1" / MANIFEST).read_text())
        told["files"][file.name] = {"sha256": checksum(file), "bytes": file.stat().st_size}
        (folder / "step-1" / MANIFEST).write_text(json.dumps(told))
        door(lambda folder=folder: checkpoint.load(trainer, folder), f"seed {seed}")
        shutil.rmtree(folder)
