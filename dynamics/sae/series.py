"""The arms of a site: the tracked chain, null chains over surrogate snapshots, independent restarts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dynamics.sae.autoencoder import SparseAutoencoder
from dynamics.sae.config import SaeConfig
from dynamics.sae.metrics import Metrics, evaluate
from dynamics.sae.refresh import refreshed
from dynamics.sae.scaling import Scaling
from dynamics.sae.surrogates import null_activations
from dynamics.sae.threads import one_thread
from dynamics.sae.training import TrainingLog, initial, train

__all__ = [
    "Fit",
    "Scaling",
    "better",
    "fit_independent",
    "fit_next",
    "gate_fails",
    "held_out_rows",
    "null_activations",
]

WORSE_FVU = 0.05
"""How much larger a warm-started SAE's FVU may be than its predecessor's before a cold start is tried."""
WORSE_DEAD = 0.2
"""Likewise its share of dead latents."""


@dataclass(frozen=True)
class Fit:
    """One trained SAE, in raw activation units, and how its training went."""

    sae: SparseAutoencoder
    metrics: Metrics
    """On the held-out rows."""
    log: TrainingLog
    refreshed: int = 0
    """Silent latents that got a fresh start before the warm start; none of them was born."""
    restarted: bool = False
    """The warm start was worse than the gate allows and a cold one replaced it."""


def held_out_rows(sequence: Int[np.ndarray, " rows"], share: float) -> Bool[np.ndarray, " rows"]:
    """Rows kept from training: a fixed share of the sequences, whole ones; at least one where there are two."""
    distinct, index = np.unique(sequence, return_inverse=True)
    count = min(len(distinct) - 1, max(1, round(share * len(distinct)))) if share > 0 else 0
    chosen = np.zeros(len(distinct), dtype=bool)
    chosen[np.random.default_rng(1).permutation(len(distinct))[:count]] = True
    return np.asarray(chosen[index])


def fit_independent(
    x: Float[Tensor, "rows d_in"], held_out: Bool[np.ndarray, " rows"], config: SaeConfig, generator: torch.Generator
) -> Fit:
    """An SAE trained from nothing, on the full budget: the first of a chain, or a restart of the ``seed`` arm."""
    scaling, kept = Scaling.of(x), torch.from_numpy(~held_out)
    scaled = scaling.apply(x)
    start = initial(scaled[kept], config, generator)
    sae, log = train(start, scaled[kept], config, steps=config.steps, generator=generator)
    return _fit(sae, log, scaled, scaling, held_out)


def fit_next(
    previous: SparseAutoencoder,
    before: Scaling,
    x: Float[Tensor, "rows d_in"],
    held_out: Bool[np.ndarray, " rows"],
    config: SaeConfig,
    generator: torch.Generator,
) -> Fit:
    """An SAE warm-started from the one before, on a share of the budget.

    Args:
        previous: the SAE of the checkpoint before, in that checkpoint's raw units.
        before: scaling of that checkpoint's activations: growth of the activations is no reason to relearn.
    """
    scaling, kept = Scaling.of(x), torch.from_numpy(~held_out)
    scaled, steps = scaling.apply(x), max(1, round(config.steps * config.chain_share))
    with one_thread():
        start, count = refreshed(previous.to_scaled(before.mean, before.scale), scaled[kept], generator)
    sae, log = train(start, scaled[kept], config, steps=steps, generator=generator, warm=True)
    return replace(_fit(sae, log, scaled, scaling, held_out), refreshed=count)


def gate_fails(fit: Fit, previous: Metrics) -> bool:
    """Whether a warm start went so badly that a cold one should be tried beside it."""
    return fit.metrics.fvu > previous.fvu + WORSE_FVU or fit.metrics.dead > previous.dead + WORSE_DEAD


def better(warm: Fit, cold: Fit) -> Fit:
    """The cold start, marked, where it beats the warm one by the margin that called for it; else the warm one."""
    wins = warm.metrics.fvu > cold.metrics.fvu + WORSE_FVU or warm.metrics.dead > cold.metrics.dead + WORSE_DEAD
    return replace(cold, restarted=True) if wins else warm


def _fit(
    sae: SparseAutoencoder,
    log: TrainingLog,
    scaled: Float[Tensor, "rows d_in"],
    scaling: Scaling,
    held_out: Bool[np.ndarray, " rows"],
) -> Fit:
    measured = torch.from_numpy(held_out) if held_out.any() else torch.ones(len(scaled), dtype=torch.bool)
    return Fit(sae.to_raw(scaling.mean, scaling.scale), evaluate(sae, scaled[measured]), log)
