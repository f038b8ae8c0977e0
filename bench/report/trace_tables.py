"""A trace as tables, and as Markdown."""

from collections.abc import Sequence

from bench.facts.plan import ParallelPlan, Recompute
from bench.facts.trace import CollectiveCalls, StepTrace
from bench.report.format import scaled, significant
from bench.report.markdown import markdown_table
from bench.report.tables import Table

PADDING_WORTH_TELLING = 1.01


def trace_table(trace: StepTrace) -> Table:
    """Every collective of one rank, and below it what it multiplies and how far the formulas agree."""
    header = ("phase", "collective", "along", "ranks", "calls", "bytes per call", "bytes in all")
    title = f"Traced: one rank of {trace.plan.world_size:,}, {trace.target}, {_plan(trace.plan)}, micro-batch {trace.micro_batch_size}"
    return Table(title, header, tuple(map(_row, trace.counts.collectives)), _notes(trace))


def trace_report(trace: StepTrace) -> str:
    """The whole trace as Markdown."""
    return "\n\n".join([f"# Trace of {trace.target}", markdown_table(trace_table(trace))]) + "\n"


def _row(c: CollectiveCalls) -> tuple[str, ...]:
    sizes = (f"{c.group_size:,}", f"{c.n_calls:,}", scaled(c.n_bytes, "B"), scaled(c.total_bytes, "B"))
    return (c.phase.value, c.collective.value.replace("_", " "), c.axis.value.replace("_", " "), *sizes)


def _plan(plan: ParallelPlan) -> str:
    sizes = {
        "tp": plan.tensor_parallel_size,
        "cp": plan.context_parallel_size,
        "ep": plan.expert_parallel_size,
        "copies ": plan.data_parallel_replicate_size,
    }
    words = [f"{name}{size}" for name, size in sizes.items() if size > 1] + [f"dp{plan.data_parallel_size}", plan.sharding.value]
    return " ".join(words + ([f"recompute {plan.recompute}"] if plan.recompute is not Recompute.NONE else []))


def _notes(trace: StepTrace) -> tuple[str, ...]:
    low, high = trace.formula_causal_flops, trace.formula_full_flops
    notes = [
        f"Matrix products of this rank in a step: {scaled(trace.counts.product_flops, 'FLOP', 4)}; the formula, without what is computed "
        f"again: {scaled(low, 'FLOP', 4)} with attention halved, {scaled(high, 'FLOP', 4)} in full.",
        "A step is one pass and the optimizer, in bf16. Bytes of a call: the whole buffer that a rank begins or ends with.",
        _agreement(trace.counts.collectives, trace.formula),
    ]
    if trace.padding_factor > PADDING_WORTH_TELLING:
        notes.append(
            f"warning: {significant(trace.padding_factor)} times the bytes of the weights are gathered: FSDP2 pads the rows of a weight "
            "to the ranks that share it; share among fewer (plan.data_parallel_replicate_size)"
        )
    return tuple(notes)


def _agreement(program: Sequence[CollectiveCalls], formula: Sequence[CollectiveCalls]) -> str:
    lacking, extra = [c for c in program if c not in formula], [c for c in formula if c not in program]
    if not lacking and not extra:
        return "The formulas (bench/cost/traffic.py) give the same collectives, calls and bytes."
    return f"not valid: the formulas (bench/cost/traffic.py) lack {len(lacking)} of these rows and have {len(extra)} others"
