"""Training on several sites: what crosses the wide area, how long that takes, and what is left of the speed."""

from dataclasses import dataclass

from bench.facts.scenario import SiteMode, WideArea


@dataclass(frozen=True, kw_only=True)
class Crossed:
    """What the line between sites does to a step."""

    exchange_s: float  # one, hidden part included
    exposed_s_per_step: float
    speed_fraction: float  # tokens towards the same loss, over a run whose line takes no time
    independent: bool  # whether the other sites go on when one fails


def crossed(wide_area: WideArea, n_parameters: float, step_s: float) -> Crossed:
    """The cost of the wide area for a model whose step takes `step_s` within the sites.

    A ring all-reduce among sites: each sends 2 (n - 1) / n of the payload over its line, and waits 2 (n - 1) times the latency.
    Local steps exchange weights once in `local_steps`, pay for it in tokens instead, and let sites fail apart.
    Source: Patarasuk and Yuan 2009 (ring); Douillard et al. 2023, DiLoCo (arXiv 2311.08105), for local steps.
    """
    n = wide_area.n_sites
    payload = n_parameters * wide_area.bytes_per_parameter.value
    exchange = 2 * (n - 1) / n * payload / wide_area.bytes_per_s.value + 2 * (n - 1) * wide_area.latency_s.value
    local = wide_area.mode is SiteMode.LOCAL_STEPS
    steps = wide_area.local_steps if local else 1
    hidden = min(wide_area.hidden_fraction.value * exchange, steps * step_s)
    exposed = (exchange - hidden) / steps
    penalty = wide_area.token_penalty.value if local else 1.0
    return Crossed(exchange_s=exchange, exposed_s_per_step=exposed, speed_fraction=step_s / (step_s + exposed) / penalty, independent=local)
