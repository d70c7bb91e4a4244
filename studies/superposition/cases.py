"""The cases: which toy network is trained on what, and when it is looked at."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

TOGETHER = 0.6
"""Chance that a member of an active pair is active."""

Change = Literal["reversed importance", "identical pairs"]


@dataclass(frozen=True)
class Case:
    """One toy model of superposition (Elhage et al. 2209.10652) and what is recorded of it."""

    features: int
    """Inputs of the network: the true features."""
    hidden: int
    """Width of the bottleneck, which is the site."""
    density: float
    """Chance that a feature, or a pair of features, is active."""
    importance: float
    """Weight of the loss of each feature (or pair) over the one before."""
    instances: int = 8
    """Networks that are trained side by side and recorded as one: their bottlenecks beside each other are the site."""
    steps: int = 6000
    checkpoints: int = 14
    first: int = 60
    """First checkpoint after step 0; from there to the last the checkpoints are spaced like powers."""
    paired: bool = False
    """Features come in pairs that are active together more often than not."""
    weight_decay: float = 0.0
    change: Change | None = None
    changes_at: int = 0
    """Optimiser step of the change; from there on the checkpoints are spaced as from the start."""
    frozen: bool = False
    """The control: the network is trained first, and then recorded with a learning rate of 0."""
    noise: float = 0.05
    """Standard deviation of fresh noise on each coordinate of the site, where an active feature writes up to 1."""
    rows: int = 4096
    """Of the probe, drawn as the training inputs are at the start."""
    latents: float = 1.25
    """Latents of each SAE per feature."""
    k: int = 8
    """Latents that fire on a row: a little more than features are active on it."""
    sae_steps: int = 1500
    """Optimiser steps of the first SAE."""

    @property
    def schedule(self) -> list[int]:
        """The steps that are looked at."""
        if self.frozen:
            return [100 * i for i in range(self.checkpoints)]
        spans = [(0, self.changes_at), (self.changes_at, self.steps)] if self.changes_at else [(0, self.steps)]
        each = self.checkpoints // len(spans)
        found = {0, self.changes_at}
        for start, end in spans:
            found |= {start + round(step) for step in np.geomspace(self.first, end - start, each)}
        return sorted(found)

    def weights(self, step: int) -> Float[Tensor, " features"]:
        """Importance of each feature for the loss at a step."""
        each = torch.arange(self.features) // (2 if self.paired else 1)
        weights = self.importance ** each.float()
        return weights.flip(0) if self.changed("reversed importance", step) else weights

    def inputs(self, rows: int, step: int, generator: torch.Generator) -> Float[Tensor, "rows instances features"]:
        """Training inputs at a step; values of active features are uniform in [0, 1]."""
        shape = rows, self.instances, self.features
        size = torch.rand(shape, generator=generator)
        if not self.paired:
            return size * (torch.rand(shape, generator=generator) < self.density)
        active = torch.rand(rows, self.instances, self.features // 2, generator=generator) < self.density
        members = torch.rand(shape, generator=generator) < TOGETHER
        x = size * members * active.repeat_interleave(2, dim=2)
        return x[..., ::2].repeat_interleave(2, dim=2) if self.changed("identical pairs", step) else x

    def changed(self, change: Change, step: int) -> bool:
        """Whether this change has happened at a step."""
        return self.change == change and step >= self.changes_at


BIRTHS = Case(features=16, hidden=8, density=0.05, importance=0.75)
SPLITS = Case(features=8, hidden=6, density=0.1, importance=0.7, paired=True, checkpoints=20, k=6)
CASES: dict[str, Case] = {
    "births": BIRTHS,
    "splits": SPLITS,
    "deaths": replace(
        BIRTHS, importance=0.7, steps=8000, weight_decay=2e-3, change="reversed importance", changes_at=4000
    ),
    "merges": replace(SPLITS, weight_decay=2e-3, change="identical pairs", changes_at=3000),
    "jump": Case(features=5, hidden=2, density=0.1, importance=1.0, k=5),
    "still": replace(BIRTHS, frozen=True, noise=0.0),  # the same rows at every checkpoint
    "still, noise": replace(BIRTHS, frozen=True),
    "still, pairs": replace(SPLITS, frozen=True),
}


def case(name: str, **changes: object) -> Case:
    """The case of this name, with some fields changed.

    Raises:
        ValueError: if there is no such case, naming the nearest.
    """
    if name not in CASES:
        near = difflib.get_close_matches(name, CASES, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"no case {name!r}{hint} There are: {', '.join(CASES)}")
    return replace(CASES[name], **changes)  # type: ignore[arg-type]
