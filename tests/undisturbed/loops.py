"""Trainings in loops of the user's own."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from ground import STEPS, Net, digest, loader, main, seeded, tracker
from torch.nn.functional import mse_loss


def train(form: str, mode: str, *, accumulate: int = 1, workers: int = 0, autocast: bool = False) -> str:
    seeded()
    model = Net(form)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    losses: list[Any] = []
    step = 0
    with tracker(mode) as recorder:
        recorder.step(model, 0)
        for i, (x, y) in enumerate(_epochs(loader(workers), STEPS * accumulate), start=1):
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                loss = mse_loss(model(x.to(model.last.weight.dtype)).float(), y)
                if autocast:  # within the region, where casts of the weights are cached
                    recorder.step(model, step, loss=loss)
            loss.backward()
            losses.append(loss.item())
            if i % accumulate == 0:
                optimizer.step()
                optimizer.zero_grad()
                step += 1
            recorder.step(model, step, loss=loss, samples=4 * i)
    return digest(model, [optimizer], losses)


def looked_at_before_backward(mode: str) -> str:
    """The probe is shown between a forward and its backward, with autograd's saved tensors alive."""
    seeded()
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    losses = []
    with tracker(mode) as recorder:
        recorder.step(model, 0)
        for step, (x, y) in enumerate(_epochs(loader(), STEPS), start=1):
            loss = mse_loss(model(x), y)
            recorder.step(model, step)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    return digest(model, [optimizer], losses)


def probe_from_a_loader(mode: str) -> str:
    """The probe is read, during training, from a dataset that draws at random, shuffled."""
    from dynamics.capture import Probe

    seeded()
    model, losses = Net(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    batches = _epochs(loader(), STEPS)
    next(batches)
    if mode == "naive":
        list(loader())
    elif mode != "off":
        assert Probe.freeze(loader()).n_examples == 48
    for x, y in batches:
        loss = mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return digest(model, [optimizer], losses)


def accelerated(mode: str, precision: str = "no") -> str:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    seeded()
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True, mixed_precision=precision, gradient_accumulation_steps=2)
    plain = Net()
    model, optimizer, data = accelerator.prepare(plain, torch.optim.AdamW(plain.parameters(), lr=0.01), loader())
    losses, step = [], 0
    with tracker(mode) as recorder:
        recorder.step(model, 0)
        for x, y in _epochs(data, 2 * STEPS):
            with accelerator.accumulate(model):
                loss = mse_loss(model(x), y)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            step += accelerator.sync_gradients
            losses.append(loss.item())
            recorder.step(model, int(step), loss=loss)
    return digest(plain, [optimizer], losses)


def _epochs(data: Iterable[Any], batches: int) -> Any:
    while batches > 0:
        for batch in data:
            yield batch
            batches -= 1
            if batches == 0:
                break


TRAININGS = {
    "plain": partial(train, ""),
    "tied weights": partial(train, "tied"),
    "frozen part": partial(train, "frozen"),
    "bf16 weights": partial(train, "bf16"),
    "checkpointed": partial(train, "checkpointed"),
    "compiled part, aot_eager": partial(train, "aot_eager"),
    "compiled part, inductor": partial(train, "inductor"),
    "accumulation": partial(train, "", accumulate=3),
    "loader workers": partial(train, "", workers=2),
    "autocast bf16": partial(train, "", autocast=True),
    "before backward": looked_at_before_backward,
    "probe from a loader": probe_from_a_loader,
    "accelerate": accelerated,
    "accelerate bf16": partial(accelerated, precision="bf16"),
}

if __name__ == "__main__":
    main(TRAININGS)
