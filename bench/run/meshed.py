"""A model whose weights, sequence, experts or layers are dealt out over a device mesh, by torch's own calls."""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from bench.facts.run import RunSpec
from bench.run.context import own_positions
from bench.run.data import TokenPool
from bench.run.devices import LocalDevice
from bench.run.mesh import Mesh, make_mesh
from bench.run.parallel import assert_laid_out, lay_out
from bench.run.passes import AUTOCAST, make_optimizer
from bench.run.pipeline import Pipeline, cut_stage, own_stages
from bench.run.transformer import ExpertMatrices, Transformer


class Meshed:
    """Passes of a plan with tensor, pipeline, context or expert parallelism, or with sharded weights."""

    def __init__(self, spec: RunSpec, device: LocalDevice) -> None:
        plan, place = spec.plan, device.torch_device
        self._mesh = make_mesh(plan, place.type)
        n_stages = plan.pipeline_parallel_size * plan.n_virtual_stages
        self._models = []
        for index in own_stages(self._mesh.place("pp"), plan.pipeline_parallel_size, plan.n_virtual_stages):
            torch.manual_seed(spec.train.seed)
            whole = Transformer(spec.model)
            self.n_parameters = sum(p.numel() for p in whole.parameters())
            stage = cut_stage(whole, index, n_stages).to(place)
            self._models.append(lay_out(stage, self._mesh, AUTOCAST[spec.train.precision], spec.train.compiled))
        for model in self._models:
            assert_laid_out(model, self._mesh)
        self.models: list[nn.Module] = list(self._models)
        self.parameters = [p for model in self._models for p in model.parameters()]
        self.optimizer = make_optimizer(self.parameters, spec, device)
        self._data = TokenPool(spec, self._mesh.place("dp"), place, _positions(spec, self._mesh))
        self._n_micro_batches = spec.batch.n_micro_batches
        self.pipeline = Pipeline(self._models, self._mesh, place, self._n_micro_batches) if n_stages > 1 else None

    def run(self) -> Tensor:
        """See Passes."""
        if self.pipeline is not None:
            return self.pipeline.run(*self._data.step())
        losses = [self._micro_batch(i == self._n_micro_batches - 1) for i in range(self._n_micro_batches)]
        return losses[0] if len(losses) == 1 else torch.stack(losses).mean()

    def _micro_batch(self, is_last: bool) -> Tensor:
        model = self._models[0]
        assert isinstance(model, FSDPModule)
        model.set_requires_gradient_sync(is_last)
        model.set_is_last_backward(is_last)
        tokens, targets = self._data.micro_batch()
        loss: Tensor = model(tokens, targets)
        (loss / self._n_micro_batches).backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def go_to(self, step: int) -> None:
        """See Passes."""
        self._data.go_to(step)

    def squared_gradient_norm(self) -> Tensor:
        """See Passes."""
        total = torch.zeros((), dtype=torch.float64, device=self.parameters[0].device)
        for model in self._models:
            total += self._squared_norm(model)
        dist.all_reduce(total, group=self._mesh.group("pp"))
        return total

    def _squared_norm(self, model: Transformer) -> Tensor:
        """Of one stage; experts are summed over the ranks that hold them, a tied head is left to the first stage."""
        is_copy = model.shape.tied_embedding and model.embedding is None and model.head is not None
        experts = {p for m in model.modules() if isinstance(m, ExpertMatrices) for p in m.parameters()}
        dense = [p for p in model.parameters() if p not in experts and not (is_copy and model.head is not None and p is model.head.weight)]
        routed = _sum_of_squares(list(experts), self.parameters[0].device)
        for axis in ("ep", "tp"):
            dist.all_reduce(routed, group=self._mesh.group(axis))
        return routed + _sum_of_squares(dense, self.parameters[0].device)


def _sum_of_squares(parameters: list[nn.Parameter], device: torch.device) -> Tensor:
    total = torch.zeros((), dtype=torch.float64, device=device)
    for parameter in parameters:
        grad = parameter.grad
        if grad is not None:
            total += (grad.full_tensor() if isinstance(grad, DTensor) else grad).double().square().sum()
    return total


def _positions(spec: RunSpec, mesh: Mesh) -> Tensor | None:
    n = spec.plan.context_parallel_size
    return own_positions(spec.model.seq_len, mesh.place("cp"), n) if n > 1 else None
