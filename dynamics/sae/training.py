"""Training of one sparse autoencoder, with gradients written out for the latents that fire."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from dynamics.sae.autoencoder import THRESHOLDED, SparseAutoencoder
from dynamics.sae.batches import Batch, SparseBatch, prefix_of
from dynamics.sae.config import SaeConfig
from dynamics.sae.dense import DenseBatch, crowded
from dynamics.sae.pace import Pace
from dynamics.sae.refresh import telling_directions
from dynamics.sae.shards import BETAS, SHARD, Shard
from dynamics.sae.sparse import expect_sparse_tensors
from dynamics.sae.sparsity import EachRow, Sparsity, WholeBatch, sparsity_of
from dynamics.sae.threads import Crew, crew, one_thread

FEW = 2048
"""Rows that are enough to set the biases of a start."""
PROOF = 25
"""Parameters are set aside every so many steps, for the case that a number overflows after."""
RARELY = 1e-4
"""A latent that fired on a smaller share of the rows since the last look counts as silent."""


@dataclass(frozen=True)
class TrainingLog:
    """What happened in one call of ``train``."""

    steps: int
    """Optimiser steps done; fewer than asked if it diverged."""
    revived: int
    """Fresh starts of latents that had fallen silent; a latent started twice counts twice."""
    diverged: bool
    """A number overflowed; the SAE is one of a few steps before, whose loss was finite."""
    losses: list[float] = field(default_factory=list)
    """Mean squared error per row, per unit of d_in, at every step."""


def initial(x: Float[Tensor, "rows d_in"], config: SaeConfig, generator: torch.Generator) -> SparseAutoencoder:
    """An untrained SAE: decoder rows are directions of rows of x, the encoder is their transpose.

    With ``relu``, biases let k latents fire on a row at first: from half of all it came down slowly, to worse features.

    Args:
        x: activations in scaled units (mean 0, E‖x‖² = d_in).
        config: settings; open ones are resolved for the width of x.
        generator: the only source of randomness.

    Raises:
        ValueError: if x has no rows or holds NaN or infinite numbers.
    """
    _check_activations(x)
    config = config.resolved(x.shape[1])
    assert config.n_latents is not None
    x = x.detach().to("cpu", torch.float32)
    with one_thread():
        rows = torch.randint(len(x), (config.n_latents,), generator=generator)
        noise = torch.randn(config.n_latents, x.shape[1], generator=generator)
        directions = normalize(x[rows] - x.mean(0) + 1e-3 * noise)
        return SparseAutoencoder(
            W_enc=directions.T.contiguous(),
            b_enc=-_few_fire(x, directions, config) * torch.ones(config.n_latents),
            W_dec=directions,
            b_dec=torch.zeros(x.shape[1]),
            architecture=config.architecture,
            k=None if config.architecture == "relu" else config.k,
            threshold=torch.zeros(config.n_latents) if config.architecture in THRESHOLDED else None,
        )


def _few_fire(x: Tensor, directions: Tensor, config: SaeConfig) -> float:
    """What to take off pre-activations that k of a row are left positive; nothing where k is kept to anyway."""
    assert config.k is not None
    if config.architecture != "relu":
        return 0.0
    along = (x[:: 1 + len(x) // FEW] @ directions.T).flatten()
    rank = along.numel() * (1 - config.k / len(directions))
    return max(0.0, float(along.kthvalue(max(1, round(rank))).values))


def train(
    sae: SparseAutoencoder,
    x: Float[Tensor, "rows d_in"],
    config: SaeConfig,
    *,
    steps: int,
    generator: torch.Generator,
    warm: bool = False,
    on_step: Callable[[int], None] | None = None,
) -> tuple[SparseAutoencoder, TrainingLog]:
    """Train an SAE further, from wherever it is, with a fresh optimiser; the one given is left as it was.

    Works on as many CPU threads as torch may use. The same seed gives the same result on any number of them.

    Args:
        sae: where to start: ``initial`` or the SAE of an earlier checkpoint (warm start).
        x: activations in scaled units (mean 0, E‖x‖² = d_in).
        config: learning rate, batch size and L1 weight; architecture and sizes are the SAE's own.
        steps: optimiser steps.
        generator: the only source of randomness.
        warm: ``sae`` is good already: a quarter of the learning rate, and silent latents are left as they are.
        on_step: called with the number of steps done after each.

    Raises:
        ValueError: if x has no rows, another width, or holds NaN or infinite numbers.
    """
    _check_activations(x)
    if x.shape[1] != sae.d_in:
        raise ValueError(f"SAE expects width {sae.d_in}, activations have {x.shape[1]}")
    with crew(config.batch_size * sae.W_enc.numel()) as hands, torch.no_grad():
        x = x.detach().to("cpu", torch.float32)
        return _Trainer(sae, x, config, steps, generator, hands, warm=warm).run(on_step)


class _Trainer:
    """The state of one training: parameters (encoder latent by latent) and optimisers."""

    def __init__(
        self,
        sae: SparseAutoencoder,
        x: Tensor,
        config: SaeConfig,
        steps: int,
        generator: torch.Generator,
        crew: Crew,
        *,
        warm: bool,
    ) -> None:
        expect_sparse_tensors()
        self.x, self.generator, self.crew = x, generator, crew
        self.start, self.l1 = sae, config.l1 if sae.architecture == "relu" else 0.0
        self.sparsity = sparsity_of(sae, x)
        self.early = EachRow(round(self.sparsity.k)) if isinstance(self.sparsity, WholeBatch) else self.sparsity
        self.prefix = prefix_of(sae)
        self.batch = min(config.batch_size, len(x))
        self.encoder = sae.W_enc.T.clone(memory_format=torch.contiguous_format)
        self.b_enc, self.decoder, self.b_dec = sae.b_enc.clone(), sae.W_dec.clone(), sae.b_dec.clone()
        self.pace = Pace.of(config, sae.n_latents, steps, warm=warm)
        self.parameters = [self.encoder, self.b_enc, self.decoder, self.b_dec]
        self.proven = [parameter.clone() for parameter in self.parameters]
        cuts = [*range(0, sae.n_latents, SHARD), sae.n_latents]
        self.shards = [
            Shard(self.encoder, self.b_enc, self.decoder, slice(*ends), self.pace.peak) for ends in pairwise(cuts)
        ]
        self.adam = torch.optim.Adam([self.b_dec], lr=self.pace.peak, betas=BETAS, fused=True)
        self.firings, self.seen = torch.zeros(sae.n_latents), 0
        self.revived = 0
        self.losses: list[float] = []

    def run(self, on_step: Callable[[int], None] | None) -> tuple[SparseAutoencoder, TrainingLog]:
        order = _batches(len(self.x), self.batch, self.generator)
        for step in range(self.pace.steps):
            if step % PROOF == 0 and self._finite():
                self._prove()
            if not self._step(self.x.index_select(0, next(order))):
                break
            if self.pace.looks(step + 1):
                self._revive()
            if on_step is not None:
                on_step(step + 1)
        sound = len(self.losses) == self.pace.steps and self._sound()
        log = TrainingLog(len(self.losses), self.revived, not sound, self.losses)
        return self._result(self.parameters if sound else self.proven), log

    def _step(self, x: Tensor) -> bool:
        """One optimiser step; False, with nothing changed, if a number has overflowed."""
        batch = self._seen(x)
        loss = float(batch.wrong.square().mean())
        if not math.isfinite(loss):
            return False
        rate, urge = self.pace.rate(len(self.losses)), self.pace.urge(len(self.losses))
        steps = self.crew.map(lambda shard: shard.step(batch, rate, self.l1, urge), self.shards)
        self.b_dec.grad = 2 * batch.error[:, 0].mean(0) - torch.stack([step.pull for step in steps]).sum(0)
        self.adam.param_groups[0]["lr"] = rate
        self.adam.step()
        self._rule.learn(batch, torch.cat([step.slopes for step in steps]), rate)
        self.firings += torch.cat([step.fired for step in steps])
        self.seen += len(x)
        self.losses.append(loss)
        return True

    @property
    def _rule(self) -> Sparsity:
        return self.early if self.pace.by_row(len(self.losses)) else self.sparsity

    def _seen(self, x: Tensor) -> Batch:
        x = x - self.b_dec
        if self.sparsity.all_positive and crowded(x, self.encoder, self.b_enc):
            return DenseBatch.of(x, self.encoder, self.b_enc, self.decoder, self.crew)
        codes = self._rule.codes(x, self.encoder, self.b_enc, self.crew)
        return SparseBatch.of(x, codes, self.decoder, self.prefix, self.crew)

    def _finite(self) -> bool:
        return all(bool(torch.isfinite(parameter.sum())) for parameter in self.parameters)

    def _prove(self) -> None:
        for kept, parameter in zip(self.proven, self.parameters, strict=True):
            kept.copy_(parameter)

    def _sound(self) -> bool:
        return self._finite() and bool(self._seen(self.x[: self.batch]).wrong.square().mean().isfinite())

    def _revive(self) -> None:
        """Start silent latents anew where features are missing; the others are woken later."""
        silent = (self.firings < RARELY * self.seen).nonzero().squeeze(1)
        self.firings.zero_()
        self.seen = 0
        if len(silent) == 0:
            return
        drawn = torch.randint(len(self.x), (4 * self.batch,), generator=self.generator)
        found = telling_directions(-self._seen(self.x[drawn]).wrong, len(silent), self.generator)
        silent = silent[: len(found)]
        for shard in self.shards:
            own = (silent >= shard.latents.start) & (silent < shard.latents.stop)
            shard.restart(silent[own] - shard.latents.start, found[own])
        self.sparsity.restart(silent)
        self.revived += len(silent)

    def _result(self, parameters: list[Tensor]) -> SparseAutoencoder:
        encoder, b_enc, decoder, b_dec = parameters
        tensors = {"W_enc": encoder.T.contiguous(), "b_enc": b_enc, "W_dec": decoder, "b_dec": b_dec}
        if isinstance(self.sparsity, WholeBatch):
            tensors["threshold"] = self.sparsity.settled(self.x - b_dec, encoder, b_enc, self.crew)
        return SparseAutoencoder.from_tensors(tensors, self.start.architecture, self.start.k)


def _batches(rows: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Row indices of batch after batch, each row once per pass over the data."""
    while True:
        order = torch.randperm(rows, generator=generator)
        for start in range(0, rows - size + 1, size):
            yield order[start : start + size]


def _check_activations(x: Tensor) -> None:
    if len(x) == 0:
        raise ValueError("an SAE cannot be trained on 0 rows")
    if not bool(torch.isfinite(x).all()):
        raise ValueError("activations hold NaN or infinite numbers; an SAE cannot be trained on them")
