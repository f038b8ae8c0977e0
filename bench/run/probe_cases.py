"""The things that `bench probe` times on one device: operands are made only when a case's turn comes."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product

import torch
from torch import Tensor
from torch.nn.functional import ScalingType, scaled_mm

from bench.facts.figure import fact
from bench.facts.hardware import Backend, Precision
from bench.facts.model import ModelShape
from bench.facts.profile import ProbeKind, ProbePolicy, WorkUnit, probe_name
from bench.facts.shard import Product
from bench.run.devices import LocalDevice
from bench.run.softcap import attend_softcapped
from bench.run.transformer import attend

DTYPES = {
    Precision.FP32: torch.float32,
    Precision.BF16: torch.bfloat16,
    Precision.FP16: torch.float16,
    Precision.FP8: torch.float8_e4m3fn,
}
FLOAT8_SIDE = 16  # both inner sides of a float8 product are multiples of it: torch.nn.functional.scaled_mm
Call = Callable[[], object]


@fact
class PlanWork:
    """What a plan runs on one of its devices."""

    name: str
    products: tuple[Product, ...]
    local: ModelShape
    micro_batch_size: int


@dataclass(frozen=True, kw_only=True)
class Case:
    """One thing to time. `make` puts its operands on the device and returns the call."""

    kind: ProbeKind
    sizes: dict[str, int]
    precision: Precision = Precision.FP32
    work: float
    unit: WorkUnit
    operand_bytes: float
    make: Callable[[], Call]
    name: str = ""
    cold: bool = False

    def __str__(self) -> str:
        return probe_name(self.kind, self.name, self.sizes, self.precision, self.cold)


@dataclass(frozen=True)
class Attention:
    """Causal attention of `batch` sequences."""

    name: str
    batch: int
    seq_len: int
    n_heads: int = 8
    n_kv_heads: int = 8
    head_dim: int = 128
    softcap: float | None = None

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v) if self.softcap is None else attend_softcapped(q, k, v, self.softcap)

    @property
    def sizes(self) -> dict[str, int]:
        """Its sizes by name."""
        return {name: getattr(self, name) for name in ("batch", "seq_len", "n_heads", "n_kv_heads", "head_dim")}


def all_cases(policy: ProbePolicy, device: LocalDevice, plans: Sequence[PlanWork], precisions: Sequence[Precision]) -> list[Case]:
    """Everything to time, the quick and general before what a plan runs; that in the first precision, and its products in fp8 too."""
    cases = [*_memory_cases(policy, device), *_small_cases(policy, device)]
    for precision in precisions:
        cases += _grid_cases(policy, device, precision)
    cases += _plan_cases(plans, device, precisions[0])
    return [*cases, *(_plan_products(plans, device, Precision.FP8) if Precision.FP8 in precisions[1:] else ())]


def _grid_cases(policy: ProbePolicy, device: LocalDevice, precision: Precision) -> Iterator[Case]:
    """The surface of matrix products, and attention over sequence lengths."""
    for m, k, n in product(policy.matmul_sizes, repeat=3):
        if _can_multiply(p := Product(name="", m=m, k=k, n=n), precision):
            yield _matmul_case(p, device, precision)
    for length in policy.attention_seq_lens if precision is not Precision.FP8 else ():  # torch has no attention in float8
        yield from _attention_cases(Attention("", 1, length), device, precision)


def _plan_cases(plans: Sequence[PlanWork], device: LocalDevice, precision: Precision) -> Iterator[Case]:
    """The products of the plans, and their attention."""
    yield from _plan_products(plans, device, precision)
    for attention in dict.fromkeys(_attention_of(plan) for plan in plans if precision is not Precision.FP8):
        yield from _attention_cases(attention, device, precision)


def _plan_products(plans: Sequence[PlanWork], device: LocalDevice, precision: Precision) -> Iterator[Case]:
    """Every different product of the plans, forward and backward, with the cache warm and cold."""
    forward = [p for plan in plans for p in plan.products]
    named = {(p.m, p.k, p.n, p.n_batch): p for one in reversed(forward) for p in reversed((one, *one.gradients()))}
    for p in reversed(named.values()):
        if _can_multiply(p, precision):
            yield _matmul_case(p, device, precision)
            yield _matmul_case(p, device, precision, cold=True)


def _can_multiply(p: Product, precision: Precision) -> bool:
    """Whether torch has such a product: in float8 one at a time, of sides that its units take."""
    return precision is not Precision.FP8 or (p.n_batch == 1 and not p.k % FLOAT8_SIDE and not p.n % FLOAT8_SIDE)


def _attention_of(plan: PlanWork) -> Attention:
    s = plan.local
    return Attention("plan", plan.micro_batch_size, s.seq_len, s.n_heads, s.n_kv_heads, s.head_dim, s.attention_softcap)


def _matmul_case(p: Product, device: LocalDevice, precision: Precision, cold: bool = False) -> Case:
    def make() -> Call:
        a = torch.randn(p.n_batch, p.m, p.k, device=device.torch_device).to(DTYPES[precision])
        b = torch.randn(p.n_batch, p.n, p.k, device=device.torch_device).to(DTYPES[precision]).transpose(1, 2)  # as a layer keeps it
        if precision is Precision.FP8:
            one, whole = torch.ones(1, device=device.torch_device), ScalingType.TensorWise
            return partial(scaled_mm, a[0], b[0], one, whole, one, whole, output_dtype=torch.bfloat16)
        return partial(torch.bmm, a, b) if p.n_batch > 1 else partial(torch.mm, a[0], b[0])

    sizes = {"m": p.m, "k": p.k, "n": p.n} | ({"n_batch": p.n_batch} if p.n_batch > 1 else {})
    item = DTYPES[precision].itemsize
    operands, results = p.n_batch * (p.m * p.k + p.k * p.n), p.n_batch * p.m * p.n
    return Case(
        kind=ProbeKind.MATMUL,
        name=p.name,
        sizes=sizes,
        precision=precision,
        work=p.flops,
        unit=WorkUnit.FLOPS,
        operand_bytes=operands * item + results * max(item, 2),  # of float8 products come bf16 numbers
        make=make,
        cold=cold,
    )


def _attention_cases(attention: Attention, device: LocalDevice, precision: Precision) -> Iterator[Case]:
    """Forward alone and with the backward pass, which has twice the FLOPs; those of the half that is not masked."""
    for phase, passes in (("forward", 1), ("forward and backward", 3)):
        yield Case(
            kind=ProbeKind.ATTENTION,
            name=" ".join(filter(None, (attention.name, phase, "soft-capped" if attention.softcap else ""))),
            sizes=attention.sizes,
            precision=precision,
            work=passes * 2.0 * attention.batch * attention.seq_len**2 * attention.n_heads * attention.head_dim,
            unit=WorkUnit.FLOPS,
            operand_bytes=_attention_bytes(attention, precision),
            make=partial(_attention_call, attention, device, precision, passes > 1),
        )


def _attention_bytes(a: Attention, precision: Precision) -> float:
    """Queries, keys, values, output and their gradients; scores and three copies where a soft-cap keeps them in memory."""
    scores = 0 if a.softcap is None else 4 * a.batch * a.n_heads * a.seq_len**2
    return float((8 * a.batch * a.seq_len * a.n_heads * a.head_dim + scores) * DTYPES[precision].itemsize)


def _attention_call(a: Attention, device: LocalDevice, precision: Precision, with_backward: bool) -> Call:
    q, k, v = (
        torch.randn(a.batch, a.seq_len, n, a.head_dim, device=device.torch_device).to(DTYPES[precision]).requires_grad_(with_backward)
        for n in (a.n_heads, a.n_kv_heads, a.n_kv_heads)
    )
    forward, upward = partial(a, q, k, v), torch.ones_like(q.detach())
    return (lambda: torch.autograd.grad(forward(), (q, k, v), upward)) if with_backward else forward


def _memory_cases(policy: ProbePolicy, device: LocalDevice) -> Iterator[Case]:
    """Copy and triad, bytes counted as STREAM counts them: those read and those written. Source: McCalpin 1995, STREAM."""

    def arrays(size: int, n: int) -> list[Tensor]:
        return [torch.ones(max(1, size // 4), device=device.torch_device) for _ in range(n)]

    def copy(size: int) -> Call:
        a, b = arrays(size, 2)
        return partial(a.copy_, b)

    def triad(size: int) -> Call:
        a, b, c = arrays(size, 3)
        return partial(torch.add, b, c, alpha=3.0, out=a)

    for size in policy.memory_sizes_bytes:
        for kind, n_arrays, make in ((ProbeKind.COPY, 2, copy), (ProbeKind.TRIAD, 3, triad)):
            total = n_arrays * size
            yield Case(kind=kind, sizes={"bytes": size}, work=total, unit=WorkUnit.BYTES, operand_bytes=total, make=partial(make, size))


def _small_cases(policy: ProbePolicy, device: LocalDevice) -> Iterator[Case]:
    """An operation on one number, which is all launch; and one AdamW step over fp32 numbers."""
    kind = device.torch_device

    def launch() -> Call:
        return partial(torch.ones(1, device=kind).add_, 1.0)

    def adam(n: int) -> Call:
        weight = torch.nn.Parameter(torch.ones(n, device=kind))
        weight.grad = torch.ones_like(weight)
        return torch.optim.AdamW([weight], fused=device.backend is not Backend.MPS).step

    yield Case(kind=ProbeKind.LAUNCH, sizes={}, work=1, unit=WorkUnit.CALLS, operand_bytes=4, make=launch)
    for n in policy.optimizer_parameters:
        unit = WorkUnit.PARAMETERS
        yield Case(kind=ProbeKind.OPTIMIZER, sizes={"parameters": n}, work=n, unit=unit, operand_bytes=16 * n, make=partial(adam, n))
