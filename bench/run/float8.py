"""fp8 training: torchao's linear layers, whose three products run in float8 with one scale per tensor, found anew in every pass."""

from importlib.util import find_spec

from torch import nn

from bench.errors import UsageError
from bench.on_demand import on_demand
from bench.run.devices import LocalDevice, has_float8

TORCHAO = "torchao"  # the extra `fp8`
SIDE_MULTIPLE = 16  # of both sides of a weight, so torch._scaled_mm asks


def refuse_float8(device: LocalDevice, is_replicated: bool) -> None:
    """Nothing; raises UsageError where this device, this plan or this installation cannot train in fp8."""
    if not has_float8(device):
        raise UsageError(f"train.precision: fp8 given; {device.name()} has no fp8 matrix units that torch uses; use bf16")
    if not is_replicated:
        raise UsageError("train.precision: fp8 given; it runs with plan=ddp or zero1 only; use bf16")
    if find_spec(TORCHAO) is None:
        raise UsageError("train.precision: fp8 given; it needs torchao; pip install proxybench[fp8], or use bf16")


def use_float8(model: nn.Module, emulate: bool = False) -> None:
    """Nothing; every linear layer but the head computes in float8. `emulate` rounds as float8 does and multiplies in a wider dtype."""
    config = on_demand("torchao.float8", "Float8LinearConfig")(emulate=emulate)
    on_demand("torchao.float8", "convert_to_float8_training")(model, module_filter_fn=_is_float8, config=config)


def _is_float8(module: nn.Module, name: str) -> bool:
    return isinstance(module, nn.Linear) and name != "head" and not any(side % SIDE_MULTIPLE for side in module.weight.shape)
