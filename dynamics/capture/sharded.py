"""Models whose weights are spread over the processes of a training by FSDP2 (``fully_shard``)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


def is_sharded(model: nn.Module) -> bool:
    """Whether a forward pass of the model takes all ranks."""
    return any(is_spread(parameter) for parameter in model.parameters())


def is_flattened(model: nn.Module) -> bool:
    """Whether the first kind of FSDP has the model, which puts its weights into flat tensors."""
    return any("_fsdp_wrapped_module" in module._modules for module in model.modules())


def own_values(tensor: Tensor) -> Tensor:
    """What this rank has of a tensor: all of one that is not spread."""
    return tensor.to_local() if is_spread(tensor) else tensor  # type: ignore[attr-defined]


def is_spread(tensor: Tensor) -> bool:
    """Whether each rank has a part of a tensor."""
    spread = sys.modules.get("torch.distributed.tensor")  # where it was not imported, nobody has such a tensor
    return spread is not None and isinstance(tensor, spread.DTensor)


@contextmanager
def spread_as_before(model: nn.Module) -> Iterator[None]:
    """Weights that were spread over the ranks are so again at the end.

    The outermost module of FSDP2 keeps its own gathered after a forward pass, for a backward pass that never comes.
    """
    modules = [module for module in model.modules() if _gathers(module)]
    try:
        yield
    finally:
        for module in modules:
            module.reshard()  # type: ignore[operator]


def _gathers(module: nn.Module) -> bool:
    if not torch.distributed.is_available() or not hasattr(module, "reshard"):
        return False
    return all(is_spread(parameter) for parameter in module.parameters())
