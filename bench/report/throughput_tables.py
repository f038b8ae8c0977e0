"""Results in the columns of published throughput tables, as Markdown or CSV.

Source of the columns: llm-foundry, scripts/train/benchmarking/README.md (MosaicML 2023); devices need not be GPUs here.
"""

import csv
import io
from collections.abc import Sequence

from bench.facts.throughput import ThroughputRow
from bench.report.markdown import markdown_table
from bench.report.tables import Table, plan_words

HEADER = (
    *("Model", "SeqLen (T)", "# Devices", "Device", "MFU", "HFU", "Model TFLOP/s", "MicroBatchSize", "GradAccum", "GlobalBatchSize"),
    *("Throughput (S/s)", "Throughput (T/s)", "Throughput (T/s/Device)", "GlobalBatchSize (T)", "Precision", "Plan", "Sharding"),
    *("Activation Recompute", "NumParams", "Interval (T/s)", "Launches", "Date", "Run"),
)
NOTES = (
    "MFU and HFU in per cent of the dense peak. They and Model TFLOP/s (per device) count attention in full, as such tables do; "
    "HFU adds recomputation.",
    "Interval: of the throughput, at the confidence of each run (95 % where nothing else was asked for).",
)


def throughput_markdown(rows: Sequence[ThroughputRow]) -> str:
    """A Markdown table under a title, with notes."""
    return markdown_table(Table("Training throughput", HEADER, tuple(map(_cells, rows)), NOTES)) + "\n"


def throughput_csv(rows: Sequence[ThroughputRow]) -> str:
    """The same as CSV, without notes."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(map(_cells, rows))
    return text.getvalue()


def _cells(row: ThroughputRow) -> tuple[str, ...]:
    m, rate = row.measurement, row.measurement.tokens_per_s
    return (
        *(m.model.name, str(m.model.seq_len), str(m.world_size), m.device_name),
        *(_hundredths(row.mfu_fraction), _hundredths(row.hfu_fraction), f"{row.flops_per_s_per_device / 1e12:.4g}"),
        *(str(m.batch.micro_batch_size), str(m.batch.n_micro_batches), str(m.batch.global_batch_size)),
        *(f"{rate.value / m.model.seq_len:.4g}", f"{rate.value:.0f}", f"{m.tokens_per_s_per_device:.0f}", str(m.tokens_per_step)),
        *(m.precision.value, plan_words(m.plan), m.plan.sharding.value, m.plan.recompute.value, str(m.n_parameters)),
        *(f"{rate.low:.0f} to {rate.high:.0f}", str(row.n_launches), row.date, row.folder),
    )


def _hundredths(fraction: float | None) -> str:
    return "n/a" if fraction is None else f"{100 * fraction:.2f}"
