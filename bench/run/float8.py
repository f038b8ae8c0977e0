"""fp8 training: torchao's linear layers, whose three products run in float8 with one scale per tensor, found anew in every pass."""

from torch import nn

from bench.errors import UsageError
from bench.run.devices import LocalDevice, has_float8

try:
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training  # the extra `fp8`
except ImportError:
    Float8LinearConfig = convert_to_float8_training = None

SIDE_MULTIPLE = 16  # of both sides of a weight, so torch._scaled_mm asks


def refuse_float8(device: LocalDevice, is_replicated: bool) -> None:
    """Nothing; raises UsageError where this device, this plan or this installation cannot train in fp8."""
    if not has_float8(device):
        raise UsageError(f"train.precision: fp8 given; {device.name()} has no fp8 matrix units that torch uses; use bf16")
    if not is_replicated:
        raise UsageError("train.precision: fp8 given; it runs with plan=ddp or zero1 only; use bf16")
    if convert_to_float8_training is None:
        raise UsageError("train.precision: fp8 given; it needs torchao; pip install proxybench[fp8], or use bf16")


def use_float8(model: nn.Module, emulate: bool = False) -> None:
    """Nothing; every linear layer but the head computes in float8. `emulate` rounds as float8 does and multiplies in a wider dtype."""
    assert convert_to_float8_training is not None
    convert_to_float8_training(model, module_filter_fn=_is_float8, config=Float8LinearConfig(emulate=emulate))


def _is_float8(module: nn.Module, name: str) -> bool:
    return isinstance(module, nn.Linear) and name != "head" and not any(side % SIDE_MULTIPLE for side in module.weight.shape)
