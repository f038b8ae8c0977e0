"""A search in words: the front of step time against memory, and why the runners-up lost."""

import numpy as np

from bench.cost.coefficients import Coefficients, coefficients_of
from bench.cost.layout import Layout, batch_of, plan_of
from bench.cost.posterior import Posterior
from bench.cost.search import search
from bench.cost.stack_memory import NEED_LOG_SD
from bench.cost.step_time import step_parts
from bench.cost.workload import workload_of
from bench.facts.hardware import Cluster
from bench.facts.model import Target
from bench.facts.prediction import Part, PlanSearch, RunnerUp, fits_probability
from bench.facts.stack import Stack

N_FRONT = 12
N_RUNNERS_UP = 8


def plan_search(target: Target, cluster: Cluster, stack: Stack, posterior: Posterior) -> PlanSearch:
    """The search of a target's plans. Raises DoesNotFit where none fits."""
    found = search(target, cluster, stack, posterior)
    by = coefficients_of(posterior.log_theta)
    ranked, front = found.ranked(found.fits), found.front()
    best = found.layout.take(int(ranked[0]))

    def told(place: int, *, fits: bool) -> RunnerUp:
        layout = found.layout.take(place)
        parts = _parts_per_token(target, layout, cluster, stack, by)
        best_parts = _parts_per_token(target, best, cluster, stack, by)
        pace, best_pace = sum(parts.values()), sum(best_parts.values())
        return RunnerUp(
            plan=plan_of(layout),
            batch=batch_of(layout),
            step_s=pace * float(layout.sequences) * target.model.seq_len,
            slower_fraction=pace / best_pace - 1,
            need_bytes=float(found.need_bytes[place]),
            fits_probability=fits_probability(float(found.need_bytes[place]), cluster.device.memory_bytes.value, NEED_LOG_SD),
            why=_why(parts, best_parts) if fits else "does not fit",
        )

    different = _different(found.layout, ranked)[1:]
    misfits = found.ranked(~found.fits)
    faster = [told(int(place), fits=False) for place in misfits[:1] if found.log_pace[place] < found.log_pace[ranked[0]]]
    return PlanSearch(
        target=target.name,
        cluster=cluster.name,
        n_plans=len(found.need_bytes),
        n_fitting=int(found.fits.sum()),
        n_safe=int(found.safe.sum()),
        capacity_bytes=cluster.device.memory_bytes.value,
        recommended=told(found.best, fits=True),
        front=tuple(told(int(place), fits=True) for place in front[:N_FRONT]),
        runners_up=(*faster, *(told(int(place), fits=True) for place in different)),
    )


def _different(layout: Layout, ranked: np.ndarray[tuple[int], np.dtype[np.intp]]) -> list[int]:
    """The first place, and those whose tensor, pipeline and context sizes nobody before them has."""
    seen: set[tuple[float, float, float]] = set()
    chosen = []
    for place in ranked:
        sizes = (float(layout.tp[place]), float(layout.pp[place]), float(layout.cp[place]))
        if sizes not in seen:
            seen.add(sizes)
            chosen.append(int(place))
        if len(chosen) == 1 + N_RUNNERS_UP:
            break
    return chosen


def _parts_per_token(target: Target, layout: Layout, cluster: Cluster, stack: Stack, by: Coefficients) -> dict[Part, float]:
    work = workload_of(target.model, layout, cluster, stack, target.precision)
    return {part: float(value) / float(work.step_tokens) for part, value in step_parts(work, by).items()}


def _why(parts: dict[Part, float], best: dict[Part, float]) -> str:
    """The two parts that cost it most against the best plan, as shares of the best plan's time."""
    whole = sum(best.values())
    losses = sorted(((parts[part] - best[part]) / whole, part) for part in Part)[::-1][:2]
    words = [f"{part.value.replace('_', ' ')} +{100 * loss:.1f} %" for loss, part in losses if loss > 0.0005]
    return ", ".join(words) or "the fastest"
