"""Projections as charts. What is predicted is dotted, or carries its band; nothing of it was measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from bench.facts.prediction import Part, PlanSearch, Prediction, RunnerUp
from bench.facts.scaling import ScalingCurve
from bench.facts.units import GIB
from bench.report.chart import Axis, Chart, Kind, Series, Span
from bench.report.format import count, gibibytes, percent, seconds, significant
from bench.report.tables import plan_words

TERA = 1e12


def forecast_charts(projections: Sequence[Prediction]) -> tuple[Chart, ...]:
    """Step, its parts, and what makes it unsure, for every cluster."""
    return (step_parts(projections), causes(projections)) if projections else ()


@dataclass(frozen=True)
class Like:
    """A published run of a like system."""

    n_devices: float
    flops_per_s_per_device: float
    label: str


def scaling_chart(curves: Sequence[ScalingCurve], flops_per_token: float, published: Sequence[Like]) -> Chart:
    """Model FLOP/s of one device over the number of devices, predicted, among published runs."""
    series = [_curve(curve, flops_per_token, i) for i, curve in enumerate(curves)]
    if published:
        ordered = sorted(published, key=lambda one: one.n_devices)
        x, y = tuple(one.n_devices for one in ordered), tuple(one.flops_per_s_per_device / TERA for one in ordered)
        series.append(Series("published runs", x, y, Kind.POINTS, labels=tuple(one.label for one in ordered), tone=7))
    return Chart(
        "scaling",
        f"{curves[0].target} on ever more devices",
        "Predicted, with 10-90 % bands"
        + (", published runs of other models on like devices as points" if published else "")
        + ". "
        + "; ".join(f"{curve.cluster}: {curve.knee}" for curve in curves)
        + f". Weak scaling: {curves[0].ceiling}.",
        Axis("devices", is_log=True),
        Axis("model TFLOP/s per device", from_zero=True),
        tuple(series),
        provenance="predicted",
    )


def _curve(curve: ScalingCurve, flops_per_token: float, tone: int) -> Series:
    def per_device(quantile: str) -> tuple[float, ...]:
        return tuple(getattr(p.tokens_per_s, quantile) * flops_per_token / p.n_devices / TERA for p in curve.points)

    labels = tuple(
        f"{curve.cluster}, {p.n_devices:,} devices: {count(p.tokens_per_s.p50)} tokens/s, {count(p.tokens_per_s.p10)} to "
        f"{count(p.tokens_per_s.p90)}; {plan_words(p.plan)}, batch {p.global_batch_size:,}"
        for p in curve.points
    )
    x = tuple(float(p.n_devices) for p in curve.points)
    return Series(curve.cluster, x, per_device("p50"), Kind.LINE, per_device("p10"), per_device("p90"), labels, dotted=True, tone=tone)


def step_parts(projections: Sequence[Prediction]) -> Chart:
    """The median step, part by part."""
    parts = [part for part in Part if any(_time(p, part) > 0 for p in projections)]
    series = tuple(
        Series(
            part.value.replace("_", " "),
            tuple(_time(p, part) for p in projections),
            tuple(map(float, range(len(projections)))),
            Kind.STACK,
            labels=tuple(
                f"{p.cluster}, {part.value.replace('_', ' ')}: {seconds(_time(p, part))}, {percent(_time(p, part) / p.step_s.p50)}; "
                f"known by: {_known_by(p, part)}"
                for p in projections
            ),
            tone=i,
        )
        for i, part in enumerate(parts)
    )
    return Chart(
        "parts",
        f"One step of {projections[0].target}, predicted",
        "Medians: "
        + "; ".join(f"{p.cluster} {seconds(p.step_s.p50)}, 10-90 % {seconds(p.step_s.p10)} to {seconds(p.step_s.p90)}" for p in projections)
        + ".",
        Axis("seconds"),
        Axis("", categories=tuple(p.cluster for p in projections)),
        series,
        provenance="predicted",
    )


def _time(p: Prediction, part: Part) -> float:
    return sum(one.time_s for one in p.parts if one.part is part)


def _known_by(p: Prediction, part: Part) -> str:
    return next((f"{one.provenance.value}, {one.basis}" for one in p.parts if one.part is part), "not there")


def causes(projections: Sequence[Prediction]) -> Chart:
    """Shares of the variance of each prediction."""
    names = list(dict.fromkeys(cause.cause for p in projections for cause in p.uncertainty if cause.share >= 0.01))
    share = [{cause.cause: 100 * cause.share for cause in p.uncertainty} for p in projections]
    series = tuple(
        Series(name, tuple(one.get(name, 0.0) for one in share), tuple(map(float, range(len(share)))), Kind.STACK, tone=i)
        for i, name in enumerate(names)
    )
    return Chart(
        "causes",
        "Where the uncertainty comes from",
        "Largest cause: "
        + "; ".join(f"{p.cluster}: {p.uncertainty[0].cause}, {percent(p.uncertainty[0].share, 0)}" for p in projections)
        + ".",
        Axis("% of the variance of the logarithm"),
        Axis("", categories=tuple(p.cluster for p in projections)),
        series,
        provenance="predicted",
    )


def front_chart(search: PlanSearch) -> Chart:
    """Plans that no other beats in both speed and memory, and the runners-up."""

    def points(name: str, plans: Sequence[RunnerUp], tone: int, kind: Kind) -> Series:
        ordered = sorted(plans, key=lambda one: one.need_bytes)
        return Series(
            name,
            tuple(one.need_bytes / GIB for one in ordered),
            tuple(100 * one.slower_fraction for one in ordered),
            kind,
            labels=tuple(
                f"{plan_words(one.plan)}, batch {one.batch.global_batch_size:,}: {seconds(one.step_s)}, "
                f"{gibibytes(one.need_bytes)}. {one.why}"
                for one in ordered
            ),
            tone=tone,
            dotted=True,
        )

    room = search.capacity_bytes
    close = [one for one in search.runners_up if one.need_bytes < 1.5 * room]
    beyond = len(search.runners_up) - len(close)
    not_drawn = f" {beyond} of other sizes, beyond 1.5 times the memory, are in the table only." if beyond else ""
    return Chart(
        f"front-{search.cluster}",
        f"Plans of {search.target} on {search.cluster}",
        f"{search.n_plans:,} plans considered, {search.n_fitting:,} fit {gibibytes(search.capacity_bytes)} per device; the fastest, "
        f"{plan_words(search.front[0].plan)}, takes {significant(search.front[0].need_bytes / GIB)} GiB.{not_drawn}",
        Axis("GiB on the fullest device"),
        Axis("% slower per token than the fastest", from_zero=True),
        (points("front", search.front, 0, Kind.LINE), points("best of other sizes", close, 1, Kind.POINTS)),
        (Span(room / GIB, room / GIB, "memory"),),
        provenance="predicted",
    )
