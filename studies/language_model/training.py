"""The training run of the demo, without and with the tracker."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from dynamics.sae.config import SaeConfig
from dynamics.schedule import Schedule, at, log_spaced
from studies.language_model.data import Batches, Corpus
from studies.language_model.model import CharacterModel

LENGTH = 64
"""Characters that the network sees at once."""
SITES = ["blocks.0", "norm"]
"""The residual stream after the first block, and what the output layer reads."""


@dataclass(frozen=True)
class Scale:
    """How large a run is."""

    steps: int
    """Optimiser steps of the network."""
    windows: int
    """Windows of held-out text in the probe; each is :data:`LENGTH` rows."""
    per_doubling: float
    """Checkpoints in a doubling of the step."""
    sae: SaeConfig
    batch: int = 32
    seed: int = 0

    @property
    def schedule(self) -> Schedule:
        """Log-spaced, and the last step."""
        return log_spaced(self.per_doubling) | at(self.steps)


FULL = Scale(steps=2500, windows=256, per_doubling=2.75, sae=SaeConfig(n_latents=192, k=6))
QUICK = Scale(steps=300, windows=64, per_doubling=1.5, sae=SaeConfig(n_latents=96, k=4, steps=400))


def train(corpus: Corpus, scale: Scale, callbacks: Sequence[pl.Callback]) -> CharacterModel:
    """Trains a new network on the CPU; the same for the same ``scale`` whatever the callbacks do."""
    torch.manual_seed(scale.seed)
    model = CharacterModel(length=LENGTH)
    batches = Batches(corpus.train, steps=scale.steps, batch=scale.batch, length=LENGTH, seed=scale.seed)
    with _quiet_lightning():
        trainer = pl.Trainer(
            max_epochs=1,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            callbacks=list(callbacks),
        )
        trainer.fit(model, DataLoader(batches, batch_size=None))
    return model


class ProgressBar(pl.Callback):
    """One line: steps done and the loss; redrawn rarely where the output is a file."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Opens the bar."""
        every = 0.5 if sys.stderr.isatty() else 15.0
        self.bar = tqdm(total=trainer.num_training_batches, desc="training", unit="step", mininterval=every, leave=True)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: torch.Tensor, batch_idx: int
    ) -> None:
        """Counts the step; reads the loss every 50 steps."""
        if trainer.global_step % 50 == 0:
            self.bar.set_postfix(loss=f"{outputs['loss'].item():.2f}", refresh=False)
        self.bar.update()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Closes the bar."""
        self.bar.close()


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Hides Lightning's hints about devices, loader workers and products, and no other warning."""
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*does not have many workers.*")
            warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
            yield
    finally:
        logger.setLevel(level)
