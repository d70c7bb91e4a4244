import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dynamics.capture import DisturbedModelError, Probe, isolated_random_state, read_activations, undisturbed


class Writer(nn.Module):
    """Writes to itself in its forward pass, as ``write`` says."""

    def __init__(self, write: Callable[[Any], object]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.register_buffer("calls", torch.zeros(1))
        self.write = write

    def forward(self, x: Tensor) -> Tensor:
        self.write(self)
        return x * self.weight


def draw() -> list[float]:
    return [random.random(), float(np.random.rand()), float(torch.rand(1))]  # noqa: NPY002


def test_random_states_come_back_also_after_an_exception() -> None:
    with isolated_random_state():
        first = draw()
    with suppress(KeyError), isolated_random_state():
        draw()
        raise KeyError
    assert draw() == first


def test_training_flags_come_back_one_by_one() -> None:
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(3), nn.Sequential(nn.Dropout()))
    model[1].eval()
    with suppress(KeyError), undisturbed(model):
        assert not any(module.training for module in model.modules())
        raise KeyError
    assert [module.training for module in model.modules()] == [True, True, False, True, True]


def test_an_overridden_train_is_not_called() -> None:
    class Merging(nn.Linear):
        def train(self, mode: bool = True) -> "Merging":
            raise AssertionError("merged")

    with undisturbed(nn.Sequential(Merging(2, 2))):
        pass


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (lambda m: m.calls.add_(1), "inner.calls"),
        (lambda m: m.weight.mul_(2), "inner.weight"),
        (lambda m: setattr(m, "calls", torch.ones(1)), "inner.calls"),
        (lambda m: setattr(m, "weight", nn.Parameter(torch.zeros(2))), "inner.weight"),
    ],
)
def test_a_forward_that_writes_to_the_model_is_named(write: Any, name: str) -> None:
    model = nn.Module()
    model.inner = Writer(write)
    calls, weight = model.inner.calls, model.inner.weight
    with pytest.raises(DisturbedModelError, match=f"wrote to {name}, which would change the training"):
        read_activations(model, Probe.freeze(torch.ones(1, 2)), ["inner"], forward=lambda m, x: m.inner(x))
    assert model.inner.calls is calls
    assert model.inner.weight is weight
    assert calls.item() == 0


def test_a_write_that_torch_does_not_count_is_undone_in_a_buffer() -> None:
    model = Writer(lambda m: m.calls.data.add_(1))
    read_activations(nn.Sequential(model), Probe.freeze(torch.ones(1, 2)), ["0"])
    assert model.calls.item() == 0


def test_a_cache_that_the_probe_fills_can_be_used_in_training() -> None:
    class Cached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2))
            self.cache: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            self.cache = torch.ones(2) if self.cache is None else self.cache
            return x * self.weight * self.cache

    model = nn.Sequential(Cached())
    read_activations(model, Probe.freeze(torch.ones(1, 2)), ["0"])
    model(torch.ones(1, 2)).sum().backward()
    assert model[0].weight.grad is not None


def test_a_probe_inside_autocast_runs_in_full_precision_and_leaves_the_cache_alone() -> None:
    model = nn.Sequential(nn.Linear(64, 64))
    probe = Probe.freeze(torch.randn(3, 64))
    plain = read_activations(model, probe, ["0"])["0"]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(read_activations(model, probe, ["0"])["0"], plain)
        read_activations(model, probe, ["0"], forward=_autocast)
        assert torch.is_autocast_cache_enabled()
        model(torch.randn(3, 64)).sum().backward()
    assert model[0].weight.grad is not None


def _autocast(model: nn.Module, batch: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return model(batch)


def test_gradients_and_modes_are_as_before() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model(torch.ones(1, 2)).sum().backward()
    before = model[0].weight.grad.clone()
    read_activations(model, Probe.freeze(torch.ones(1, 2)), ["0"])
    assert torch.equal(model[0].weight.grad, before)
    assert torch.is_grad_enabled()
