"""A network that adds modulo a prime, its training, and the recorder that watches its logits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from dynamics import Recorder, SaeConfig, at, log_spaced
from studies.grokking.truth import WINDOW, Measures, measured

SITE = "centred"


@dataclass(frozen=True)
class Setting:
    """One run. The defaults grok between steps 3,000 and 5,000; with a weight decay of 0 nothing does."""

    prime: int = 59
    width: int = 128
    hidden: int = 256
    steps: int = 6000
    per_window: float = 1.0
    """Checkpoints in a window of equal log-lag, over which the step grows by 1.6."""
    weight_decay: float = 1.0
    seed: int = 0
    latents: int = 64
    k: int = 4
    sae_steps: int = 1500

    @property
    def schedule(self) -> list[int]:
        """The steps that are looked at."""
        spaced = log_spaced(self.per_window * math.log(2) / math.log(WINDOW), first=10) | at(self.steps)
        return spaced.steps(self.steps)


class Adder(nn.Module):
    """Both numbers embedded, a hidden layer of ReLUs on their sum, logits of every answer; no biases."""

    def __init__(self, setting: Setting) -> None:
        super().__init__()
        self.embed = nn.Embedding(setting.prime, setting.width)
        nn.init.normal_(self.embed.weight, std=setting.width**-0.5)
        self.first = nn.Linear(setting.width, setting.hidden, bias=False)
        self.second = nn.Linear(setting.width, setting.hidden, bias=False)
        self.out = nn.Linear(setting.hidden, setting.prime, bias=False)
        self.centred = Centred()

    def forward(self, pairs: Int64[Tensor, "rows 2"]) -> Float[Tensor, "rows prime"]:
        """Logits, their mean over the answers taken out, which changes no probability."""
        hidden = self.first(self.embed(pairs[:, 0])) + self.second(self.embed(pairs[:, 1]))
        found: Tensor = self.centred(self.out(torch.relu(hidden)))
        return found


class Centred(nn.Module):
    """Takes the mean out of each row: a module, so that it can be a site."""

    def forward(self, logits: Float[Tensor, "rows prime"]) -> Float[Tensor, "rows prime"]:
        """Rows of mean 0."""
        return logits - logits.mean(1, keepdim=True)


def record(setting: Setting, run: Path) -> dict[int, Measures]:
    """Trains a network under the recorder; what is measured of it without autoencoders, by step.

    A run that is there already is not recorded again.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(setting.seed)
        model = Adder(setting)
    pairs, learned = split(setting)
    sae = SaeConfig(n_latents=setting.latents, k=setting.k, steps=setting.sae_steps, seed=setting.seed)
    recorder = Recorder(run, SITE, pairs, schedule=at(*setting.schedule), sae=sae, work="later", on_error="raise")
    found: dict[int, Measures] = {}
    looked_at = set(setting.schedule)
    with recorder:
        for step, loss in training(model, setting, pairs[learned]):
            recorder.step(model, step, loss=loss)
            if step in looked_at:
                found[step] = measured(model, pairs, learned)
    return found


def split(setting: Setting) -> tuple[Int64[Tensor, "rows 2"], Int64[Tensor, " half"]]:
    """All pairs of numbers, and which half is trained on."""
    p = setting.prime
    pairs = torch.cartesian_prod(torch.arange(p), torch.arange(p))
    order = torch.randperm(p * p, generator=torch.Generator().manual_seed(setting.seed))
    return pairs, order[: p * p // 2]


def training(
    model: Adder, setting: Setting, pairs: Int64[Tensor, "half 2"]
) -> Iterator[tuple[int, Float[Tensor, ""] | None]]:
    """Step and loss before the first optimiser step and after each, on all pairs at once."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=setting.weight_decay, betas=(0.9, 0.98))
    warm_up = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: min(1.0, (step + 1) / 10))
    answers = pairs.sum(1) % setting.prime
    yield 0, None
    for step in range(setting.steps):
        loss = nn.functional.cross_entropy(model(pairs), answers)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        warm_up.step()
        yield step + 1, loss.detach()
