"""Tensors that are dealt out over ranks (DTensor), told from plain ones without loading what deals them."""

from typing import Protocol, TypeGuard

from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh


class Dealt(Protocol):
    """What is used of a DTensor."""

    device_mesh: DeviceMesh

    def to_local(self) -> Tensor:
        """This rank's part."""
        ...


def is_dealt(x: object) -> TypeGuard[Dealt]:
    """Whether this rank holds a part of a tensor only."""
    return is_kind_dealt(type(x))


def is_kind_dealt(kind: type) -> bool:
    """Whether tensors of this kind are."""
    return hasattr(kind, "to_local")


def own_part(x: Tensor) -> Tensor:
    """What this rank holds of a tensor."""
    return x.to_local() if is_dealt(x) else x
