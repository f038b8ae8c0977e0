"""The state of a training run by names that do not depend on how it is dealt out: weights and what the optimizer keeps of them."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bench.run.pipeline import own_stages
from bench.run.train import Trainer
from bench.run.transformer import ExpertMatrices

WRAPPERS = ("module.", "_orig_mod.", "_checkpoint_wrapped_module.")


def state_of(trainer: Trainer) -> dict[str, Tensor]:
    """Tensors of the model and its optimizer by names that do not depend on the plan; loading writes into them."""
    names = dict(_named(trainer))
    state = {f"model.{name}": parameter.detach() for name, parameter in names.items()}
    optimizer = _inner(trainer.passes.optimizer)
    owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in names.items():
        if id(parameter) in owned:
            state |= {f"optimizer.{name}.{key}": value for key, value in _moments(optimizer, parameter).items()}
    return state


def _moments(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Tensor]:
    """What AdamW keeps of a parameter; made where no step was done yet."""
    kept: dict[str, Tensor] = optimizer.state[parameter]
    if not kept:
        fused = any(group.get("fused") for group in optimizer.param_groups)
        kept["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device if fused else "cpu")
        kept["exp_avg"], kept["exp_avg_sq"] = torch.zeros_like(parameter.detach()), torch.zeros_like(parameter.detach())
    return kept


def _inner(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The AdamW inside accelerate's wrapper or inside a sharded optimizer, which holds this rank's parameters alone."""
    inside = getattr(optimizer, "optim", None) or getattr(optimizer, "optimizer", None)
    return inside if isinstance(inside, torch.optim.Optimizer) else optimizer


def _named(trainer: Trainer) -> Iterator[tuple[str, nn.Parameter]]:
    """This rank's parameters, layers counted through the whole model, split experts with the share that is here."""
    spec, plan = trainer.spec, trainer.spec.plan
    pp_rank = trainer.rank // (plan.world_size // plan.pipeline_parallel_size)
    stages = own_stages(pp_rank, plan.pipeline_parallel_size, plan.n_virtual_stages)
    per_stage = spec.model.n_layers // (plan.pipeline_parallel_size * plan.n_virtual_stages)
    for model, stage in zip(trainer.passes.models, stages, strict=True):
        split = {id(p) for module in model.modules() if isinstance(module, ExpertMatrices) for p in module.parameters()}
        for name, parameter in model.named_parameters():
            share = _share(trainer) if id(parameter) in split else ""
            yield _whole_name(name, stage * per_stage, spec.model.tied_embedding) + share, parameter


def _whole_name(name: str, first_layer: int, tied: bool) -> str:
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    if tied and name == "head.weight":
        return "embedding.weight"
    top, _, rest = name.partition(".")
    if top != "layers":
        return name
    index, _, inside = rest.partition(".")
    return f"layers.{int(index) + first_layer}.{inside}"


def _share(trainer: Trainer) -> str:
    """Which share of an expert layer's matrices is here; torch does not know that they were ever one."""
    plan = trainer.spec.plan
    ep, tp, cp = plan.expert_parallel_size, plan.tensor_parallel_size, plan.context_parallel_size
    if ep == tp == 1:
        return ""
    return f"@ep{trainer.rank // (cp * tp) % ep}of{ep}tp{trainer.rank % tp}of{tp}"
