"""Settings of the autoencoders of a run."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, replace
from typing import Literal, get_args

Architecture = Literal["topk", "relu", "batch_topk", "jump_relu", "matryoshka"]


@dataclass(frozen=True)
class SaeConfig:
    """How every sparse autoencoder (SAE) of a run is built and trained.

    Raises:
        ValueError: if a field is out of range, naming it.
    """

    architecture: Architecture = "topk"
    """``topk`` (Gao et al. 2406.04093); ``batch_topk`` (Bussmann et al. 2412.06410); ``matryoshka``: the same, nested
    (2503.17547); ``jump_relu`` (Rajamanoharan et al. 2407.14435); ``relu``: ReLU with an L1 penalty, the textbook's."""
    n_latents: int | None = None
    """Latents of each SAE; None means 8 × d_in."""
    k: int | None = None
    """Latents that may fire on a row (``topk``), or fire on one in the mean (``relu``: at the start only); None means
    min(32, d_in / 4)."""
    l1: float = 2.0
    """λ of ‖x − x̂‖² + λ‖f‖₁ (``relu``), in units of activations scaled to mean squared norm d_in.

    Tried on known dictionaries: where 8 of 128 features are on a row (d_in 64) 2 fires 12 latents at FVU 0.23, where 16
    of 256 are (d_in 128) 25 at FVU 0.25.
    """
    steps: int = 1500
    """Optimiser steps of an SAE trained from nothing."""
    batch_size: int = 2048
    """Rows per optimiser step; fewer where the probe has fewer."""
    learning_rate: float | None = None
    """Adam's largest step size, of which a warm start takes a quarter; None means 3.2e-3 / √(n_latents / 2¹⁴) and at
    most 3e-2."""
    chain_share: float = 0.25
    """Share of ``steps`` that a warm-started SAE gets."""
    held_out: float = 0.1
    """Share of the probe's sequences kept from training, on which FVU, L0 and dead are measured."""
    seed: int = 0
    """Seed of everything random in the fits of a run."""

    def __post_init__(self) -> None:
        if self.architecture not in get_args(Architecture):
            nearest = difflib.get_close_matches(self.architecture, get_args(Architecture), n=1)
            hint = f"; did you mean {nearest[0]!r}? There" if nearest else "; there"
            names = ", ".join(get_args(Architecture))
            raise ValueError(f"unknown architecture {self.architecture!r}{hint} are: {names}")
        for name in ("n_latents", "k", "steps", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.n_latents is not None and self.architecture != "relu" and self.n_latents < (self.k or 1):
            raise ValueError(f"n_latents must be at least k, got n_latents {self.n_latents} and k {self.k}")
        if not 0 < self.chain_share <= 1 or not 0 <= self.held_out < 1:
            raise ValueError(
                f"chain_share in (0, 1] and held_out in [0, 1) wanted, got {self.chain_share}, {self.held_out}"
            )
        if self.l1 < 0 or (self.learning_rate is not None and self.learning_rate <= 0):
            raise ValueError(f"l1 >= 0 and learning_rate > 0 wanted, got {self.l1} and {self.learning_rate}")

    def resolved(self, d_in: int) -> SaeConfig:
        """The same settings with ``n_latents`` and ``k`` filled in for activations of width ``d_in``.

        Raises:
            ValueError: if that gives fewer latents than k.
        """
        k = self.k or max(1, min(32, d_in // 4))
        return replace(self, n_latents=self.n_latents or 8 * d_in, k=k)
