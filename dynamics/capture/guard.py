"""A look at a model that leaves no trace in its training."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from dynamics.capture.sharded import spread_as_before
from dynamics.capture.sites import named_modules


class DisturbedModelError(RuntimeError):
    """The forward pass of the probe wrote to a parameter or a buffer of the model."""


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Makes a forward pass inside it invisible to the training that goes on afterwards.

    Inside, the model is in evaluation mode, without gradients, without compiled code and without autocast (so it runs
    in the data type of its own weights). Afterwards the random states of Python, NumPy and torch, every module's
    ``training`` flag and every buffer are what they were, whatever was raised inside.

    Raises:
        DisturbedModelError: if a parameter or buffer was written to or replaced, naming it. Buffers, and parameters
            that were replaced, have been put back by then; a parameter that was written in place has not.
    """
    with ExitStack() as stack:
        stack.enter_context(isolated_random_state())
        stack.enter_context(_no_autocast())
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_evaluation_mode(model))
        before = _held_tensors(model)
        try:
            with spread_as_before(model):
                yield
        finally:
            written = [held.name for held in before if held.put_back()]
        if written:
            raise DisturbedModelError(
                f"showing the probe to the model wrote to {', '.join(written)}, which would change the training; "
                "make its forward leave it alone in evaluation mode, or pass forward= with a call that does"
            )


@contextmanager
def aside() -> Iterator[None]:
    """Work of our own within a training loop: full precision, gradients on, and random states put back at the end."""
    with isolated_random_state(), _no_autocast(), torch.enable_grad():
        yield


@contextmanager
def isolated_random_state() -> Iterator[None]:
    """Puts the global random states of Python, NumPy and torch (every device in use) back, also on an exception."""
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None  # type: ignore[no-untyped-call]
    mps = torch.mps.get_rng_state() if torch.backends.mps.is_available() else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        torch.set_rng_state(cpu)
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)
        if mps is not None:
            torch.mps.set_rng_state(mps)


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    # Flags are set by hand: eval() may be overridden (to merge weights), and train() unfreezes what was frozen.
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = False
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def _no_autocast() -> Iterator[None]:
    # Weights cast without gradients must not stay in the cache of a region around us: they would get no gradient.
    cached = torch.is_autocast_cache_enabled()
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else []), *(["mps"] if torch.mps.is_available() else [])]
    with ExitStack() as stack:
        for device in devices:
            stack.enter_context(torch.autocast(device, enabled=False))
        torch.set_autocast_cache_enabled(False)
        try:
            yield
        finally:
            torch.set_autocast_cache_enabled(cached)


@dataclass(frozen=True)
class _HeldTensor:
    """One parameter or buffer as it was: the object, its write counter and, for a buffer, a copy of its values."""

    name: str
    slots: dict[str, Tensor | None]
    key: str
    tensor: Tensor
    version: int | None
    copy: Tensor | None

    def put_back(self) -> bool:
        """Undoes what was done to the tensor, as far as that can be; says whether anything was done."""
        replaced = self.slots.get(self.key) is not self.tensor
        written = _version(self.tensor) != self.version
        if replaced:
            self.slots[self.key] = self.tensor
        if self.copy is not None:
            # By .data, which leaves the write counter alone, and always, since a write by .data is not counted either.
            self.tensor.data.copy_(self.copy)
        return replaced or written


def _held_tensors(model: nn.Module) -> list[_HeldTensor]:
    held = []
    for prefix, module in named_modules(model):
        for slots, copied in ((module._parameters, False), (module._buffers, True)):
            for key, tensor in slots.items():
                if tensor is not None:
                    name = f"{prefix}.{key}" if prefix else key
                    copy = tensor.detach().clone() if copied else None
                    held.append(_HeldTensor(name, slots, key, tensor, _version(tensor), copy))  # type: ignore[arg-type]
    return held


def _version(tensor: Tensor) -> int | None:
    return None if tensor.is_inference() else tensor._version
