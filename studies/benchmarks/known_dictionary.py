"""Activations whose dictionary is known, and how much of it an SAE has found."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

ROWS = 100_000
NOISE = 0.05
"""Of each coordinate, where features are between 0.5 and 1.5 long."""


@dataclass(frozen=True)
class KnownDictionary:
    """Sums of sparse non-negative amounts of 2 · d random unit directions, with noise."""

    d: int = 128
    active: int = 16
    """Features on a row in the mean."""
    tail: float = 0.0
    """The n-th feature fires on a share of the rows that falls as n^-tail; at most 15 %."""

    @property
    def truth(self) -> Tensor:
        """[2 d, d], the same for every seed of the rows."""
        return normalize(torch.randn(2 * self.d, self.d, generator=torch.Generator().manual_seed(7)))

    def rows(self, seed: int, count: int = ROWS) -> Tensor:
        """Activations in scaled units: mean 0, mean squared norm d."""
        generator = torch.Generator().manual_seed(1000 + seed)
        truth, share = self.truth, self._shares()
        fires = torch.rand(count, len(share), generator=generator) < share
        codes = fires * (0.5 + torch.rand(count, len(share), generator=generator))
        x = codes @ truth + NOISE * torch.randn(count, self.d, generator=generator)
        x -= x.mean(0)
        return x * (self.d / x.square().sum(1).mean()).sqrt()

    def _shares(self) -> Tensor:
        weights = torch.arange(1.0, 2 * self.d + 1) ** -self.tail
        return (self.active * weights / weights.sum()).clamp(max=0.15)

    def found(self, decoder: Tensor) -> Tensor:
        """The largest cosine of each true direction with a row of the decoder [latents, d]."""
        return (self.truth @ normalize(decoder).T).amax(1)
