"""One device's share of a big plan, timed here without the communication: forward, backward and optimizer, each for itself."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from bench.errors import DoesNotFit, UsageError
from bench.facts.hardware import Backend, Precision
from bench.facts.measurement import Environment
from bench.facts.plan import ParallelPlan, Recompute, Sharding
from bench.facts.profile import PROFILE_VERSION, RepeatPolicy, SliceMeasurement, SlicePart, SliceSpec
from bench.facts.progress import Progress, TimeLeft
from bench.facts.shard import n_experts_held
from bench.run.clock import StepClock
from bench.run.devices import LocalDevice, has_fast_bf16
from bench.run.probe_cases import DTYPES
from bench.run.repeat import MOST_SAMPLES, repeat, summarise
from bench.run.shard import ShardTransformer

USABLE_FRACTION = 0.85  # of the free memory
SETTLING_S = 1.0  # of untimed passes on an accelerator: until it is as warm, and as slow, as power lets it be in a long run
Phases = tuple[Callable[[], object], Callable[[], object], Callable[[], object]]


def measure_slice(
    spec: SliceSpec, device: LocalDevice, threads_per_rank: int, environment: Environment, tell: Progress
) -> SliceMeasurement:
    """The timed share. Raises DoesNotFit before anything is allocated."""
    refuse_too_large(spec, device)
    tell(f"slice: {spec.model.name}, {spec.n_layers} layers of one device's share, {spec.precision}")
    model = build_shard(spec, device)
    layers, ends = _layer_phases(spec, model, device), _end_phases(spec, model, device)
    timed_layers = _part(
        spec.repeat,
        device,
        layers,
        model.layers.parameters(),
        spec.n_layers * spec.layer_flops,
        tell=partial(tell, "slice: timing the layers"),
    )
    timed_ends = _part(
        spec.repeat, device, ends, _end_parameters(model), spec.ends_flops, tell=partial(tell, "slice: timing embedding, head and loss")
    )
    allocated, reserved = device.peak_memory_bytes()
    return SliceMeasurement(
        profile_version=PROFILE_VERSION,
        spec=spec,
        local=model.shape,
        n_experts_held=n_experts_held(spec.model, spec.plan),
        device_name=device.name(),
        backend=device.backend,
        threads_per_rank=threads_per_rank,
        environment=environment,
        layers=timed_layers,
        ends=timed_ends,
        peak_bytes=reserved if allocated is None else allocated,
        notes=_notes(spec),
    )


def refuse_too_large(spec: SliceSpec, device: LocalDevice) -> None:
    """Nothing; DoesNotFit where the estimate exceeds what is free here."""
    room = USABLE_FRACTION * device.free_memory_bytes(1)
    if spec.needed_bytes > room:
        raise DoesNotFit(
            f"slice of {spec.model.name}: needs {spec.needed_bytes / 2**30:.1f} GiB, {room / 2**30:.1f} GiB are usable here; "
            "raise slice.tensor_parallel_size or slice.expert_parallel_size, or lower slice.micro_batch_size"
        )


def slice_precision(backend: Backend, asked: Precision | None) -> Precision:
    """The precision asked for, or bf16 where it is fast, or fp32. Raises UsageError for fp8."""
    if asked is Precision.FP8:
        raise UsageError("train.precision: fp8 given; a slice runs in bf16, fp16 or fp32; use bf16")
    return asked or (Precision.BF16 if has_fast_bf16(backend) else Precision.FP32)


def build_shard(spec: SliceSpec, device: LocalDevice) -> ShardTransformer:
    """The share, its weights in the precision of the products; nothing larger is ever in memory."""
    torch.manual_seed(spec.seed)
    with torch.device("meta"):
        model = ShardTransformer(spec.model, spec.plan, spec.n_layers).to(DTYPES[spec.precision])
    model = model.to_empty(device=device.torch_device)
    model.initialise()
    return model


class MasterAdam:
    """AdamW on fp32 copies of weights in a narrower precision, as full-size runs keep them."""

    def __init__(self, parameters: Iterable[nn.Parameter], device: LocalDevice) -> None:
        self._weights = list(parameters)
        self._masters = [nn.Parameter(p.detach().float()) for p in self._weights]
        self._adam = torch.optim.AdamW(self._masters, fused=device.backend is not Backend.MPS)

    @torch.no_grad()
    def step(self) -> None:
        """Nothing; every weight that has a gradient has moved, and the gradients are gone."""
        for master, weight in zip(self._masters, self._weights, strict=True):
            master.grad = None if weight.grad is None else weight.grad.float()
        self._adam.step()
        for master, weight in zip(self._masters, self._weights, strict=True):
            weight.copy_(master)
            weight.grad = None


@dataclass
class Held:
    """What the forward pass leaves for the backward pass."""

    out: Tensor | None = None


def _layer_phases(spec: SliceSpec, model: ShardTransformer, device: LocalDevice) -> Phases:
    """Forward, backward and optimizer of the layers, from [B, s, D] to its like."""
    dtype, kind, held = DTYPES[spec.precision], device.torch_device, Held()
    n_tokens = model.shape.seq_len // spec.plan.tensor_parallel_size
    x = torch.randn(spec.micro_batch_size, n_tokens, spec.model.d_model, device=kind).to(dtype).requires_grad_()
    upward = torch.randn_like(x)
    adam = MasterAdam(model.layers.parameters(), device)

    def forward() -> None:
        held.out = model.run_layers(x)

    def backward() -> None:
        assert held.out is not None
        x.grad, out, held.out = None, held.out, None
        torch.autograd.backward(out, upward)

    return forward, backward, adam.step


def _end_phases(spec: SliceSpec, model: ShardTransformer, device: LocalDevice) -> Phases:
    """The same of embedding, last norm, head and loss, from tokens [B, S / cp] to one number."""
    held, local = Held(), model.shape
    tokens = torch.randint(0, local.vocab_size, (spec.micro_batch_size, local.seq_len), device=device.torch_device)
    adam = MasterAdam(_end_parameters(model), device)

    def forward() -> None:
        held.out = model.loss(model.logits(model.norm(model.embed(tokens))), tokens)

    def backward() -> None:
        assert held.out is not None
        out, held.out = held.out, None
        torch.autograd.backward(out)

    return forward, backward, adam.step


def _end_parameters(model: ShardTransformer) -> list[nn.Parameter]:
    inside = {id(p) for p in model.layers.parameters()}
    return [p for p in model.parameters() if id(p) not in inside]


def _part(
    policy: RepeatPolicy,
    device: LocalDevice,
    phases: Phases,
    parameters: Iterable[nn.Parameter],
    flops: float,
    *,
    tell: Callable[[TimeLeft], None],
) -> SlicePart:
    """The timed part; `tell` hears after untimed passes, which are unlike later ones, how long it takes at most."""
    clock = StepClock(device, 3 * MOST_SAMPLES)
    seen: list[float] = []

    def once() -> None:
        for phase in phases:
            phase()
        device.synchronize()

    def window(n_samples: int) -> Sequence[float]:
        """Seconds of whole passes; what each phase took goes into `seen`."""
        clock.start()
        for phase in chain.from_iterable([phases] * n_samples):
            phase()
            clock.mark()
        marks = clock.stop()[0]
        seen.extend(marks)
        return [sum(marks[i : i + 3]) for i in range(0, len(marks), 3)]

    begun = time.perf_counter()
    once()
    while not device.is_cpu and time.perf_counter() - begun < SETTLING_S:
        once()
    begun = time.perf_counter()
    once()
    tell(TimeLeft(most_s=max(policy.budget_s, policy.min_samples * (time.perf_counter() - begun))))
    whole = repeat(policy, window)
    forward, backward, optimizer = (summarise(policy, seen[i::3]) for i in range(3))
    assert len(whole.samples_s) == len(forward.samples_s)
    return SlicePart(
        n_parameters=sum(p.numel() for p in parameters), forward_flops=flops, forward=forward, backward=backward, optimizer=optimizer
    )


def _notes(spec: SliceSpec) -> tuple[str, ...]:
    plan = spec.plan
    recompute = {
        Recompute.NONE: "nothing is computed again in the backward pass",
        Recompute.SELECTIVE: "the attention core is computed again in the backward pass",
        Recompute.FULL: "the backward pass contains one more forward pass of the layers",
    }
    return (
        f"recompute {plan.recompute}: {recompute[plan.recompute]}",
        "no communication: what would arrive is copied from what is here, which costs a pass over memory and no network",
        _optimizer_note(plan),
        "embedding, last norm, head and loss are timed together; in a pipeline its first and its last stage share them",
    )


def _optimizer_note(plan: ParallelPlan) -> str:
    if plan.sharding is Sharding.NONE:
        return "the optimizer steps every parameter of the device, as in the plan"
    n = plan.data_parallel_size * plan.context_parallel_size
    return f"the optimizer steps every parameter here; the plan shares it over {n} replicas (experts {n // plan.expert_parallel_size})"
