"""A training by Hugging Face's Trainer."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from ground import (
    LOOKS,
    PROBE,
    STEPS,
    Drawing,
    Naive,
    Net,
    behaviour,
    digest,
    main,
    one_if_inline,
    require_snapshots,
    seeded,
)
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from dynamics.callbacks.huggingface import FeatureTracker


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        y = self.net(x)
        return {"logits": y} if labels is None else {"loss": mse_loss(y, labels), "logits": y}


class NaiveCallback(TrainerCallback):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        Naive().step(kwargs["model"], state.global_step)


def collate(examples: list[Any]) -> dict[str, Tensor]:
    return {"x": torch.stack([x for x, _ in examples]), "labels": torch.stack([y for _, y in examples])}


def train(mode: str) -> str:
    seeded()
    model = Model()
    with tempfile.TemporaryDirectory() as folder, callbacks(mode) as ours:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=STEPS, per_device_train_batch_size=4, gradient_accumulation_steps=2,
            use_cpu=True, report_to=[], save_strategy="no", logging_steps=1, disable_tqdm=True, seed=1,
        )  # fmt: skip
        trainer = Trainer(model, arguments, data_collator=collate, train_dataset=Drawing(), callbacks=ours)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return digest(model, [trainer.optimizer], losses)


@contextmanager
def callbacks(mode: str) -> Iterator[list[TrainerCallback]]:
    if mode in ("off", "naive"):
        yield [] if mode == "off" else [NaiveCallback()]
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        with behaviour(mode) as settings:
            sites = one_if_inline(mode, "net.first", "net.*.1")
            yield [FeatureTracker(folder, sites, {"x": PROBE}, schedule=list(LOOKS), **settings)]
        require_snapshots(folder, mode)


if __name__ == "__main__":
    main({"huggingface": train})
