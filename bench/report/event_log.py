"""A result as an event log in the form that MLPerf training uses: lines of `:::MLLOG` and JSON.

Source: MLCommons, training policies (logging keys) and mlperf_logging (line format). It is no MLPerf submission: the names of the
events are theirs, the benchmark is not. Times are laid end to end from the start of the run and the durations that were measured.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from bench.facts.result import Result

POINT, START, END = "POINT_IN_TIME", "INTERVAL_START", "INTERVAL_END"
ORIGIN = {"file": "proxybench", "lineno": 0}


def event_log(result: Result) -> str:
    """Settings, set-up, then one block for every timed window with its throughput."""
    return "".join(f":::MLLOG {json.dumps(line, allow_nan=False)}\n" for line in _events(result))


def _events(result: Result) -> Iterator[dict[str, Any]]:
    m = result.measurement
    at_s = datetime.fromisoformat(result.environment.started_at).timestamp()
    yield _line(at_s, START, "init_start")
    for key, value in _settings(result).items():
        yield _line(at_s, POINT, key, value)
    at_s += m.setup_s + sum(m.ranks[0].warmup_s)
    yield _line(at_s, END, "init_stop")
    yield _line(at_s, START, "run_start")
    windows_s = [max(windows) for windows in zip(*(r.window_s for r in m.ranks), strict=True)]
    done = 0
    for n_steps, window_s in zip(m.steps_per_window, windows_s, strict=True):
        yield _line(at_s, START, "block_start", None, first_step_num=done, step_count=n_steps)
        at_s, done = at_s + window_s, done + n_steps
        told = {"throughput": n_steps * m.tokens_per_step / window_s, "unit": "tokens/s"}
        yield _line(at_s, POINT, "tracked_stats", told, step=done)
        yield _line(at_s, END, "block_stop", None, first_step_num=done - n_steps, step_count=n_steps)
    yield _line(at_s, END, "run_stop", None, status="aborted" if m.is_partial or m.invalid else "success", step=done)
    e = m.tokens_per_s
    yield _line(at_s, POINT, "tokens_per_s", e.value, low=e.low, high=e.high, confidence=e.confidence)


def _settings(result: Result) -> dict[str, Any]:
    m = result.measurement
    return {
        "submission_benchmark": m.model.name,
        "submission_platform": f"{m.world_size}x {m.device_name}",
        "seed": result.config["train"]["seed"],
        "global_batch_size": m.batch.global_batch_size,
        "gradient_accumulation_steps": m.batch.n_micro_batches,
        "max_sequence_length": m.model.seq_len,
        "opt_base_learning_rate": result.config["train"]["learning_rate"],
    }


def _line(at_s: float, event_type: str, key: str, value: Any = None, **metadata: Any) -> dict[str, Any]:
    return {
        "namespace": "",
        "time_ms": round(1e3 * at_s),
        "event_type": event_type,
        "key": key,
        "value": value,
        "metadata": ORIGIN | metadata,
    }
