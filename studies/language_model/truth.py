"""What a language model is known to learn first: unigram, bigram and trigram statistics, without any autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import groupby

import lightning.pytorch as pl
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from dynamics.schedule import Schedule
from studies.language_model.data import VOCABULARY

BACKED_OFF = 1.0
"""Pseudo-counts that the next shorter model adds to every context."""


@dataclass(frozen=True)
class NgramModels:
    """Next-character models that look at 0, 1 and 2 characters; each backs off to the one before it."""

    unigram: Float[Tensor, " next"]
    bigram: Float[Tensor, "last next"]
    trigram: Float[Tensor, "before_last last next"]

    def predictions(self, inputs: Int64[Tensor, "windows length"]) -> dict[str, Tensor]:
        """Probabilities ``[windows, length - 1, next]`` by model, from the second position on."""
        before, last = inputs[:, :-1], inputs[:, 1:]
        unigram = self.unigram.expand(*last.shape, -1)
        return {"unigram": unigram, "bigram": self.bigram[last], "trigram": self.trigram[before, last]}


def fit_ngrams(text: Int64[Tensor, " characters"]) -> NgramModels:
    """Maximum likelihood on the training text, smoothed by :data:`BACKED_OFF`."""
    n = VOCABULARY
    unigram = _counts(text, n) + 1 / n
    unigram = unigram / unigram.sum()
    bigram = _counts(text[:-1] * n + text[1:], n**2).view(n, n) + BACKED_OFF * unigram
    bigram = bigram / bigram.sum(-1, keepdim=True)
    trigram = _counts((text[:-2] * n + text[1:-1]) * n + text[2:], n**3).view(n, n, n) + BACKED_OFF * bigram
    return NgramModels(unigram, bigram, trigram / trigram.sum(-1, keepdim=True))


def _counts(codes: Int64[Tensor, " codes"], size: int) -> Float[Tensor, " size"]:
    return torch.bincount(codes, minlength=size).float()


@torch.no_grad()
def distances(model: nn.Module, inputs: Int64[Tensor, "windows length"], ngrams: NgramModels) -> dict[str, float]:
    """Mean KL(n-gram model ‖ network) over the positions, in nats a character, by n-gram model."""
    predicted = model(inputs).log_softmax(-1)[:, 1:]
    return {
        name: float((p * (p.clamp_min(1e-30).log() - predicted)).sum(-1).mean())
        for name, p in ngrams.predictions(inputs).items()
    }


@dataclass
class NgramDistance(pl.Callback):
    """Measures :func:`distances` at the scheduled steps; ``curves[name]`` maps a step to nats a character."""

    inputs: Int64[Tensor, "windows length"]
    ngrams: NgramModels
    schedule: Schedule
    curves: dict[str, dict[int, float]] = field(default_factory=dict)
    last: int = -1

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Step 0: the untrained network."""
        self._look(pl_module, trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object) -> None:
        """After each optimiser step that is scheduled."""
        self._look(pl_module, trainer.global_step)

    def _look(self, model: nn.Module, step: int) -> None:
        if not self.schedule.due(self.last, step):
            return
        self.last = step
        for name, distance in distances(model, self.inputs, self.ngrams).items():
            self.curves.setdefault(name, {})[step] = distance


def bottom(curve: Mapping[int, float]) -> int:
    """The step at which a curve is lowest."""
    return min(curve, key=lambda step: curve[step])


def nearest(curves: Mapping[str, Mapping[int, float]]) -> list[tuple[str, int, int]]:
    """Runs of checkpoints with the same nearest n-gram model: its name, first and last step."""
    steps = list(next(iter(curves.values())))
    names = [(min(curves, key=lambda name: curves[name][step]), step) for step in steps]
    spans = ((name, [step for _, step in group]) for name, group in groupby(names, key=lambda pair: pair[0]))
    return [(name, span[0], span[-1]) for name, span in spans]
