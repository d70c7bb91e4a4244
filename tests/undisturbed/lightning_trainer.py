"""Trainings by Lightning's Trainer, on one process or on two (``ddp``)."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any

import torch
from ground import (
    LOOKS,
    PROBE,
    STEPS,
    Naive,
    Net,
    behaviour,
    digest,
    loader,
    main,
    one_if_inline,
    require_snapshots,
    seeded,
)
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import mse_loss

from dynamics.callbacks.lightning import FeatureTracker

SHARED = count()


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
        ranks = "all" if mode.endswith(" all") else "first"
        mode = mode.removesuffix(" all")
        folder = f"{os.environ['SHARED_FOLDER']}/{next(SHARED)}" if ranks == "all" else folder
        with behaviour(mode) as settings:
            sites = ["net.first", one_if_inline(mode, "net.first", "net.*.1")]
            yield [FeatureTracker(folder, sites, PROBE, schedule=list(LOOKS), ranks=ranks, **settings)]
        if rank_zero_only.rank == 0:
            require_snapshots(folder, mode)


def distributed(form: str, mode: str) -> str:
    """Rank 0's digest; its losses, weights and states depend on the other rank's in every step."""
    return fit(partial(Module, form), mode, strategy="ddp", devices=2)


class Spread(Module):
    """FSDP2, as Lightning wants it."""

    def configure_model(self) -> None:
        for part in (self.net.second, self.net.third, self.net):
            fully_shard(part, mesh=self.device_mesh["data_parallel"])


def sharded(mode: str) -> str:
    """Rank 0's digest; its part of the weights depends on the other's in every step."""
    strategy = ModelParallelStrategy(data_parallel_size=2, tensor_parallel_size=1)
    return fit(partial(Spread, "layer norms"), mode, strategy=strategy, devices=2)


class Launched(Module):
    """Trained in processes that the trainer starts or forks, where Python's random numbers begin anew."""

    def setup(self, stage: str) -> None:
        seeded()


def launched(strategy: str, mode: str) -> str:
    """The weights that come back; those processes keep all the rest."""
    return fit(Launched, mode, strategy=strategy, devices=2)


TRAININGS = {
    "lightning": partial(fit, Module),
    "lightning bf16-mixed": partial(fit, Module, precision="bf16-mixed"),
    "lightning bf16-true": partial(fit, Module, precision="bf16-true"),
    "lightning accumulation": partial(fit, Module, accumulate_grad_batches=2, gradient_clip_val=0.5),
    "lightning two optimizers": partial(fit, TwoOptimizers),
    "lightning compiled part": partial(fit, partial(Module, "aot_eager")),
    "lightning checkpointed": partial(fit, partial(Module, "checkpointed")),
    "lightning ddp": partial(distributed, ""),
    "lightning ddp, layer norms": partial(distributed, "layer norms"),
    "lightning fsdp2": sharded,
    **{f"lightning {name}": partial(launched, name) for name in ("ddp_spawn", "ddp_fork", "ddp_notebook")},
}

if __name__ == "__main__":
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if os.environ.get("LOCAL_RANK", "0") != "0":
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # only rank 0 answers
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ.setdefault("SHARED_FOLDER", folder)  # the other rank is started with our environment
        main(TRAININGS)
