"""The toy network, its training, and the recorder that watches it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor, nn

from dynamics import Recorder, SaeConfig, at
from studies.superposition.cases import Case

SITE = "site"
BATCH, LEARNING_RATE, MOMENTUM, START = 512, 0.05, 0.9, 0.01


class Toy(nn.Module):
    """x̂ = ReLU(Wᵀ W x + b), several side by side.

    SGD learns one feature after the other; Adam would learn all at once.
    """

    def __init__(self, case: Case, generator: torch.Generator) -> None:
        super().__init__()
        shape = case.instances, case.hidden, case.features
        self.W = nn.Parameter(torch.randn(shape, generator=generator) * START / case.hidden**0.5)
        self.b = nn.Parameter(torch.zeros(case.instances, case.features))
        self.site = Site(case.noise, generator)

    def forward(self, x: Float[Tensor, "rows instances features"]) -> Float[Tensor, "rows instances features"]:
        """The reconstruction."""
        h = self.site(torch.einsum("rif,ihf->rih", x, self.W).flatten(1)).unflatten(1, self.W.shape[:2])
        return torch.relu(torch.einsum("rih,ihf->rif", h, self.W) + self.b)


class Site(nn.Module):
    """The bottlenecks, with noise where the probe is shown and only there: real activations have a floor."""

    def __init__(self, noise: float, generator: torch.Generator) -> None:
        super().__init__()
        self.noise, self.generator = noise, torch.Generator().manual_seed(generator.initial_seed() + 1)

    def forward(self, h: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_in"]:
        """Unchanged in training."""
        if self.training or not self.noise:
            return h
        return h + self.noise * torch.randn(h.shape, generator=self.generator)


def record(case: Case, seed: int, run: Path) -> dict[int, NDArray[np.float64]]:
    """Trains the networks under the recorder; W [instances, hidden, features] at every checkpoint.

    A run that is there already is not recorded again.
    """
    generator = torch.Generator().manual_seed(seed)
    model = Toy(case, generator)
    probe = probe_inputs(case, seed)
    if case.frozen:
        for _ in training(model, case, generator):
            pass
    n_latents = round(case.latents * case.instances * case.features)
    sae = SaeConfig(n_latents=n_latents, k=case.k, steps=case.sae_steps, seed=seed)
    recorder = Recorder(run, SITE, probe, schedule=at(*case.schedule), work="later", sae=sae, on_error="raise")
    weights: dict[int, NDArray[np.float64]] = {}
    looked_at = set(case.schedule)
    with recorder:
        for step, loss in _standing(case) if case.frozen else training(model, case, generator):
            recorder.step(model, step, loss=loss)
            if step in looked_at:
                weights[step] = model.W.detach().double().numpy().copy()
    return weights


def probe_inputs(case: Case, seed: int) -> Float[Tensor, "rows instances features"]:
    """The fixed inputs of the probe: as the training inputs before any change."""
    return case.inputs(case.rows, 0, torch.Generator().manual_seed(10_000 + seed))


def training(model: Toy, case: Case, generator: torch.Generator) -> Iterator[tuple[int, Tensor | None]]:
    """Step and loss before the first optimiser step and after each."""
    optimiser = torch.optim.SGD(model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=case.weight_decay)
    yield 0, None
    for step in range(case.steps):
        x = case.inputs(BATCH, step, generator)
        loss = (case.weights(step) * (x - model(x)).square()).sum((1, 2)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield step + 1, loss.detach()


def _standing(case: Case) -> Iterator[tuple[int, None]]:
    return ((step, None) for step in case.schedule)
