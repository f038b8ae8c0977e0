"""Tables of published runs: the one that the project ships, and those that a user gives; predictions of rows."""

import csv
import gzip
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.facts.published import Observed, PublishedSetup, RowPrediction

DATA = Path(__file__).parent / "data"
SHIPPED = DATA / "published_runs.csv.gz"
FAILED = DATA / "failed_runs.csv.gz"
LATER = DATA / "later_runs.csv.gz"
GB_PER_S = 1e9
NUMBERS = {
    "year": "year",
    "params_total_b": "params_total_b",
    "n_layers": "n_layers",
    "d_model": "d_model",
    "n_heads": "n_heads",
    "n_kv_heads": "n_kv_heads",
    "d_ff": "d_ff",
    "vocab_size": "vocab_size",
    "seq_len": "seq_len",
    "n_experts": "n_experts",
    "experts_top_k": "experts_top_k",
    "moe_d_ff": "moe_d_ff",
    "n_devices": "n_gpus",
    "devices_per_node": "gpus_per_node",
    "tp": "tp",
    "pp": "pp",
    "n_virtual": "vpp",
    "cp": "cp",
    "ep": "ep",
    "dp": "dp",
    "micro_batch": "micro_batch",
    "global_batch": "global_batch",
}
TEXTS = (
    "id",
    "source",
    "stack",
    "series",
    "kind",
    "framework",
    "gpu",
    "precision",
    "intra_node_net",
    "inter_node_net",
    "sharding",
    "recompute",
    "software_state",
)
# Least and most of what a run can have: whole numbers, far beyond every published one, so that no product of them overflows.
COUNTS = {
    "year": (1990, 2100),
    "n_layers": (1, 10_000),
    "d_model": (1, 1_000_000),
    "n_heads": (1, 100_000),
    "n_kv_heads": (1, 100_000),
    "d_ff": (0, 10_000_000),
    "vocab_size": (1, 100_000_000),
    "seq_len": (1, 100_000_000),
    "n_experts": (0, 10_000),
    "experts_top_k": (0, 10_000),
    "moe_d_ff": (0, 10_000_000),
    "n_gpus": (1, 10_000_000),
    "gpus_per_node": (1, 10_000),
    "micro_batch": (1, 1_000_000),
    "global_batch": (1, 1_000_000_000),
    **dict.fromkeys(("tp", "pp", "cp", "ep", "dp", "vpp"), (1, 10_000_000)),
}
PREDICTION_COLUMNS = (
    "id",
    "tokens_per_s_per_gpu",
    "tokens_per_s_per_gpu_p10",
    "tokens_per_s_per_gpu_p90",
    "step_time_s",
    "peak_reserved_gb",
    "fits",
    "fits_probability",
    "error",
)


def shipped_rows() -> list[dict[str, str]]:
    """Cells of every published run that the project ships."""
    return _packed_rows(SHIPPED)


def later_rows() -> list[dict[str, str]]:
    """Cells of runs that no fit has seen, columns as in the shipped ones.

    Source: performance-summary.md of NVIDIA-NeMo/Megatron-Bridge, pre-training in the containers 26.02 (as later versions of the page
    correct it), 26.02.01, 26.04 and 26.06, of the six models whose shapes the shipped runs have: no Mamba hybrids, no Kimi K2 with Muon.
    """
    return _packed_rows(LATER)


def shipped_failures() -> list[dict[str, str]]:
    """Cells of the plans of the nanotron sweep that ran out of memory, columns as in the shipped runs; none reached a speed.

    Source: HF nanotron Ultra-Scale Playbook, bench_final2_mod_add.csv in gkarfakis19/Rapid-LLM at 317a2cb, rows with status OOM.
    """
    return _packed_rows(FAILED)


def _packed_rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(gzip.decompress(path.read_bytes()).decode())))


def read_rows(path: Path) -> list[dict[str, str]]:
    """Cells of a user's table, columns as in the shipped one. Raises UsageError where there is no such file or no id column."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as a table of runs ({error}); give a CSV file in UTF-8") from None
    try:
        rows = [
            {key: value or "" for key, value in row.items() if isinstance(key, str) and not isinstance(value, list)}
            for row in csv.DictReader(io.StringIO(text))
        ]
    except csv.Error as error:
        raise UsageError(f"{path}: not a CSV file ({error}); columns as in bench backtest's own table") from None
    if rows and "id" not in rows[0]:
        raise UsageError(f"{path}: no column 'id' among {', '.join(list(rows[0])[:6])} ...; columns as in bench backtest's own table")
    return rows


def setup_of(row: Mapping[str, str]) -> PublishedSetup:
    """What a row's run was. Raises UsageError for a cell that is not a number where one is meant."""
    texts: dict[str, Any] = {name: row.get(name, "").strip() for name in TEXTS}
    numbers: dict[str, Any] = {field: _number_or_count(row, column) for field, column in NUMBERS.items()}
    probe = _number(row, "probe_all_gather_gb_per_s")
    return PublishedSetup(
        **texts,
        **numbers,
        group=row.get("group", ""),
        is_moe=row.get("arch", "") == "moe",
        gated=_truth(row, "gated_ffn"),
        tied_embedding=_truth(row, "tied_embeddings"),
        setup_options=_options(row.get("setup_options", "")),
        probe_all_gather_bytes_per_s=None if probe is None else probe * GB_PER_S,
    )


def observed_of(row: Mapping[str, str]) -> Observed | None:
    """What a row's run reached; None where its source gives no speed."""
    speed = _number(row, "tokens_per_s_per_gpu")
    n, total = _number(row, "n_gpus"), _number(row, "tokens_per_s_total")
    step, batch, seq = (_number(row, name) for name in ("step_time_s", "global_batch", "seq_len"))
    if not speed and n:
        speed = total / n if total else batch * seq / step / n if step and batch and seq else None
    reserved = _number(row, "peak_reserved_gb")
    return Observed(tokens_per_s_per_device=speed, reserved_bytes=reserved and reserved * 2**30) if speed else None


def predictions_text(predictions: Iterable[RowPrediction]) -> str:
    """The CSV text of predictions, one line a row."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(PREDICTION_COLUMNS)
    for p in predictions:
        rates = (p.tokens_per_s_per_device, p.tokens_per_s_per_device_p10, p.tokens_per_s_per_device_p90, p.step_s)
        reserved = None if p.reserved_bytes is None else p.reserved_bytes / 2**30
        fits = "" if p.fits is None else str(p.fits).lower()
        writer.writerow([p.id, *map(_cell, rates), _cell(reserved), fits, _cell(p.fits_probability), p.error])
    return out.getvalue()


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _number(row: Mapping[str, str], column: str) -> float | None:
    text = row.get(column, "").strip()
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise UsageError(f"{column}: '{text}' given; a number or an empty cell") from None
    if not abs(value) < 1e30 or value < 0:
        raise UsageError(f"{column}: {text} given; a finite number that is not negative")
    return value


def _number_or_count(row: Mapping[str, str], column: str) -> float | None:
    value = _number(row, column)
    least, most = COUNTS.get(column, (0, None))
    if value is None or most is None or (least <= value <= most and value == int(value)):
        return value
    raise UsageError(f"{column}: {row[column].strip()} given; a whole number from {least} to {most:,}, or an empty cell")


def _truth(row: Mapping[str, str], column: str) -> bool:
    return row.get(column, "").strip().lower() in ("1", "true", "yes")


def _options(text: str) -> dict[str, str]:
    return dict(pair.split("=", 1) for pair in text.split(";") if "=" in pair)
