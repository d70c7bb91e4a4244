"""Trainings by Lightning's Trainer, on one process or on two (``ddp``)."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from ground import LOOKS, PROBE, STEPS, Naive, Net, behaviour, digest, loader, main, require_snapshots, seeded
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_only
from torch.nn.functional import mse_loss

from dynamics.callbacks.lightning import FeatureTracker


class Module(LightningModule):
    def __init__(self, form: str = "") -> None:
        super().__init__()
        self.net = Net(form)
        self.losses: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)

    def loss(self, batch: Any) -> torch.Tensor:
        x, y = batch
        loss = mse_loss(self(x), y)
        self.losses.append(loss.item())
        self.log("loss", loss)
        return loss

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return self.loss(batch)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val", mse_loss(self(batch[0]), batch[1]), sync_dist=True)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]


class TwoOptimizers(Module):
    """Manual optimisation: ``global_step`` counts both optimisers' steps."""

    def __init__(self, form: str = "") -> None:
        super().__init__(form)
        self.automatic_optimization = False

    def training_step(self, batch: Any, batch_idx: int) -> None:
        for optimizer in self.optimizers():  # type: ignore[union-attr]
            optimizer.zero_grad()
            self.manual_backward(self.loss(batch))
            optimizer.step()

    def configure_optimizers(self) -> Any:
        parts = [self.net.first, self.net.second], [self.net.third, self.net.last]
        return [torch.optim.SGD([p for net in part for p in net.parameters()], lr=0.01) for part in parts]


class NaiveCallback(Callback):
    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        Naive().step(pl_module, trainer.global_step)


def fit(module_of: Any, mode: str, **settings: Any) -> str:
    seeded()
    module = module_of()
    quiet: dict[str, Any] = {
        "accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False,
        "enable_checkpointing": False, "max_steps": STEPS, "max_epochs": -1,
    }  # fmt: skip
    with callbacks(mode) as ours:
        trainer = Trainer(callbacks=ours, **{**quiet, **settings})
        trainer.fit(module, loader(), loader())
        return digest(module, trainer.optimizers, module.losses)


@contextmanager
def callbacks(mode: str) -> Iterator[list[Callback]]:
    if mode in ("off", "naive"):
        yield [] if mode == "off" else [NaiveCallback()]
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        with behaviour(mode) as settings:
            yield [FeatureTracker(folder, ["net.first", "net.*.1"], PROBE, schedule=list(LOOKS), **settings)]
        if rank_zero_only.rank == 0:
            require_snapshots(folder, mode)


def distributed(mode: str) -> str:
    """Rank 0's digest; its losses, weights and states depend on the other rank's in every step."""
    return fit(Module, mode, strategy="ddp", devices=2)


TRAININGS = {
    "lightning": partial(fit, Module),
    "lightning bf16-mixed": partial(fit, Module, precision="bf16-mixed"),
    "lightning bf16-true": partial(fit, Module, precision="bf16-true"),
    "lightning accumulation": partial(fit, Module, accumulate_grad_batches=2, gradient_clip_val=0.5),
    "lightning two optimizers": partial(fit, TwoOptimizers),
    "lightning compiled part": partial(fit, partial(Module, "aot_eager")),
    "lightning checkpointed": partial(fit, partial(Module, "checkpointed")),
    "lightning ddp": distributed,
}

if __name__ == "__main__":
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if os.environ.get("LOCAL_RANK", "0") != "0":
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # only rank 0 answers
    main(TRAININGS)
