"""What a network that learns modular addition goes through, measured on its weights and logits alone.

After Nanda et al. (2301.05217): the network memorises, then forms a circuit of a few Fourier frequencies of a + b while
the test accuracy stands still, then cleans up what it had memorised.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

MEMORISED, UNDERSTOOD = 0.99, 0.99
"""Train and test accuracy at which memorisation and clean-up are over."""
WINDOW = 1.6
"""Factor between the steps at the two ends of a window of equal log-lag."""
KEY = 0.1
"""A frequency is a key one if the last logits hold at least this part of the strongest's power in it."""


@dataclass(frozen=True)
class Measures:
    """One checkpoint."""

    train_accuracy: float
    test_accuracy: float
    squared_weights: float
    """Σw² over all parameters."""
    gini: float
    """Of the power of the embedding's Fourier spectrum over frequencies: 0 where all are alike, near 1 where one has
    all."""
    logits: Float[Tensor, "rows prime"]
    """Of every pair."""


@dataclass(frozen=True)
class Phase:
    """Steps from the first to the last, which is the first of the next one."""

    name: str
    first: int
    last: int

    @property
    def windows(self) -> float:
        """How many windows of equal log-lag it is long: each ends at :data:`WINDOW` times its start."""
        return math.log(self.last / max(self.first, 1)) / math.log(WINDOW) if self.last > self.first else 0.0


@torch.no_grad()
def measured(model: nn.Module, pairs: Int64[Tensor, "rows 2"], learned: Int64[Tensor, " half"]) -> Measures:
    """Measures of a network, which has ``embed``, on all pairs."""
    logits = model(pairs)
    prime = logits.shape[1]
    right = (logits.argmax(1) == pairs.sum(1) % prime).float()
    tested = torch.ones(len(pairs), dtype=torch.bool)
    tested[learned] = False
    return Measures(
        train_accuracy=float(right[learned].mean()),
        test_accuracy=float(right[tested].mean()),
        squared_weights=sum(float(p.square().sum()) for p in model.parameters()),
        gini=gini(torch.fft.rfft(model.embed.weight, dim=0)[1:].abs().square().sum(1)),
        logits=logits,
    )


def gini(power: Float[Tensor, " frequencies"]) -> float:
    """Gini coefficient in [0, 1]."""
    ordered, n = power.sort().values, len(power)
    rank = 2.0 * torch.arange(1, n + 1) - n - 1
    return float((rank * ordered).sum() / (n * ordered.sum()))


def phases(found: Mapping[int, Measures]) -> list[Phase]:
    """Memorisation, circuit formation (the plateau) until Σw² is largest, clean-up until the test accuracy is 0.99.

    What is never reached ends with the run; a phase of no length is left out.
    """
    steps = list(found)
    last = steps[-1]
    memorised = next((s for s in steps if found[s].train_accuracy >= MEMORISED), last)
    understood = next((s for s in steps if found[s].test_accuracy >= UNDERSTOOD), last)
    largest = max((s for s in steps if memorised <= s <= understood), key=lambda s: found[s].squared_weights)
    bounds = [steps[0], memorised, largest, understood, last]
    names = ["memorisation", "circuit formation", "clean-up", "afterwards"]
    made = [Phase(*part) for part in zip(names, bounds[:-1], bounds[1:], strict=True)]
    return [phase for phase in made if phase.last > phase.first]


def key_losses(
    found: Mapping[int, Measures], pairs: Int64[Tensor, "rows 2"], learned: Int64[Tensor, " half"]
) -> tuple[list[int], dict[int, tuple[float, float]]]:
    """The key frequencies of the last logits, and by step the restricted and the excluded loss.

    Restricted: of all pairs, with nothing but the key frequencies of a + b in the logits. Excluded: of the trained
    pairs, without them.
    """
    last = list(found.values())[-1].logits
    prime = last.shape[1]
    waves = [_waves(pairs, prime, f) for f in range(1, prime // 2 + 1)]
    power = torch.stack([(wave.T @ last).square().sum() for wave in waves])
    keys = torch.nonzero(power >= KEY * power.max()).flatten().tolist()
    basis = torch.cat([waves[k] for k in keys], dim=1)
    answers = pairs.sum(1) % prime
    losses = {}
    for step, measures in found.items():
        kept = basis @ (basis.T @ measures.logits)
        restricted = nn.functional.cross_entropy(kept, answers)
        excluded = nn.functional.cross_entropy((measures.logits - kept)[learned], answers[learned])
        losses[step] = float(restricted), float(excluded)
    return [k + 1 for k in keys], losses


def _waves(pairs: Int64[Tensor, "rows 2"], prime: int, frequency: int) -> Float[Tensor, "rows 2"]:
    """Cosine and sine of the sum, each of norm 1."""
    angle = 2 * math.pi * frequency * pairs.sum(1) / prime
    waves = torch.stack([angle.cos(), angle.sin()], dim=1)
    return waves / waves.norm(dim=0)
