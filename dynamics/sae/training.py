"""Training of one sparse autoencoder, with gradients written out for the few latents that fire."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from dynamics.sae.autoencoder import SparseAutoencoder
from dynamics.sae.config import SaeConfig
from dynamics.sae.refresh import sharpened_directions
from dynamics.sae.selection import positive_codes, strongest_codes
from dynamics.sae.threads import one_thread

WARM_UP = 0.05
"""Share of the steps over which the learning rate rises from zero."""
DECAY = 0.6
"""Share of the steps, the last ones, over which it falls to zero."""
BETAS = (0.9, 0.99)
"""Adam's. A second moment of the last hundred steps found more of planted rare features than the usual thousand."""
LOOKS, LOOKING = 10, 0.5
"""Dead latents are looked for this often, evenly over this share of the steps: what is revived needs time to settle."""
RARELY = 1e-4
"""A latent that fired on a smaller share of the rows since the last look counts as dead."""


@dataclass(frozen=True)
class TrainingLog:
    """What happened in one call of ``train``."""

    steps: int
    """Optimiser steps done; fewer than asked if it diverged."""
    revived: int
    """Revivals of latents that had stopped firing; a latent revived twice counts twice."""
    diverged: bool
    """A number overflowed; the SAE is the last one whose loss was finite."""
    losses: list[float] = field(default_factory=list)
    """Mean squared error per row, per unit of d_in, at every step."""


def default_learning_rate(n_latents: int) -> float:
    """Adam's step size for n latents: 8e-4 / √(n / 2¹⁴), at most 1e-2.

    The law is that of Gao et al. (2406.04093, section 2); four times their constant, since runs are short here.
    """
    return float(min(1e-2, 8e-4 / (n_latents / 2**14) ** 0.5))


def initial(x: Float[Tensor, "rows d_in"], config: SaeConfig, generator: torch.Generator) -> SparseAutoencoder:
    """An untrained SAE: decoder rows are directions of rows of x, the encoder is their transpose.

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
            b_enc=torch.zeros(config.n_latents),
            W_dec=directions,
            b_dec=torch.zeros(x.shape[1]),
            architecture=config.architecture,
            k=config.k if config.architecture == "topk" else None,
        )


def train(
    sae: SparseAutoencoder,
    x: Float[Tensor, "rows d_in"],
    config: SaeConfig,
    *,
    steps: int,
    generator: torch.Generator,
    revive: bool = True,
    on_step: Callable[[int], None] | None = None,
) -> tuple[SparseAutoencoder, TrainingLog]:
    """Train an SAE further, from wherever it is, with a fresh optimiser; the one given is left as it was.

    Works on one CPU thread, so that the same seed gives the same result whatever else runs.

    Args:
        sae: where to start: ``initial`` or the SAE of an earlier checkpoint (warm start).
        x: activations in scaled units (mean 0, E‖x‖² = d_in).
        config: learning rate, batch size and L1 weight; architecture and sizes are the SAE's own.
        steps: optimiser steps.
        generator: the only source of randomness.
        revive: give latents that hardly fire another start; too unsettling where steps are few.
        on_step: called with the number of steps done after each.

    Raises:
        ValueError: if x has no rows, another width, or holds NaN or infinite numbers, or if the architecture
            cannot be trained.
    """
    _check_activations(x)
    if sae.architecture not in ("topk", "relu"):
        raise ValueError(f"only topk and relu SAEs can be trained, this one is {sae.architecture}")
    if x.shape[1] != sae.d_in:
        raise ValueError(f"SAE expects width {sae.d_in}, activations have {x.shape[1]}")
    with one_thread(), torch.no_grad():
        return _Trainer(sae, x.detach().to("cpu", torch.float32), config, steps, generator).run(on_step, revive)


class _Trainer:
    """The state of one training: parameters (encoder latent by latent), optimiser, and who fired lately."""

    def __init__(
        self, sae: SparseAutoencoder, x: Tensor, config: SaeConfig, steps: int, generator: torch.Generator
    ) -> None:
        self.x, self.steps, self.generator = x, steps, generator
        self.start, self.l1 = sae, config.l1 if sae.architecture == "relu" else 0.0
        self.batch = min(config.batch_size, len(x))
        self.encoder = sae.W_enc.T.clone(memory_format=torch.contiguous_format)
        self.b_enc, self.decoder, self.b_dec = sae.b_enc.clone(), sae.W_dec.clone(), sae.b_dec.clone()
        self.rate = config.learning_rate or default_learning_rate(sae.n_latents)
        self.parameters = [self.encoder, self.b_enc, self.decoder, self.b_dec]
        self.proven = [parameter.clone() for parameter in self.parameters]  # the last whose loss was finite
        self.adam = torch.optim.Adam(self.parameters, lr=self.rate, betas=BETAS, fused=True)
        self.firings, self.seen = np.zeros(sae.n_latents, np.int64), 0
        self.revived = 0
        self.losses: list[float] = []

    def run(self, on_step: Callable[[int], None] | None, revive: bool) -> tuple[SparseAutoencoder, TrainingLog]:
        order = _batches(len(self.x), self.batch, self.generator)
        looks = set(np.linspace(0, self.steps * LOOKING, LOOKS + 1, dtype=int)[1:].tolist())
        for step in range(self.steps):
            if not self._step(self.x[next(order)], _schedule(step, self.steps) * self.rate):
                break
            if revive and step + 1 in looks:
                self._revive()
            if on_step is not None:
                on_step(step + 1)
        sound = len(self.losses) == self.steps and self._sound(self.x[: self.batch])
        log = TrainingLog(len(self.losses), self.revived, not sound, self.losses)
        return self._result(self.parameters if sound else self.proven), log

    def _step(self, x: Tensor, rate: float) -> bool:
        """One optimiser step; False, with nothing changed, if a number has overflowed."""
        codes = self._codes(x)
        error, by_code = self._errors(x, codes)
        loss = float(error.square().mean())
        if not self._sound_loss(loss):
            return False
        for kept, parameter in zip(self.proven, self.parameters, strict=True):
            kept.copy_(parameter)
        self.firings += np.bincount(codes.indices[codes.data > 0], minlength=len(self.firings))
        self.seen += len(x)
        gradients = self._gradients(x, codes, error, by_code)
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient
        self.adam.param_groups[0]["lr"] = rate
        self.adam.step()
        self.decoder.div_(self.decoder.norm(dim=1, keepdim=True).clamp_min(1e-12))
        self.losses.append(loss)
        return True

    def _sound(self, x: Tensor) -> bool:
        return self._sound_loss(float(self._errors(x, self._codes(x))[0].square().mean()))

    def _sound_loss(self, loss: float) -> bool:
        return math.isfinite(loss) and all(bool(torch.isfinite(parameter.sum())) for parameter in self.parameters)

    def _codes(self, x: Tensor) -> csr_array:
        bias = self.b_enc - self.encoder @ self.b_dec
        if self.start.architecture == "topk":
            return strongest_codes(x, self.encoder.T, bias, self.start._k)
        return positive_codes(x, self.encoder.T, bias)

    def _errors(self, x: Tensor, codes: csr_array) -> tuple[Tensor, Tensor]:
        """x̂ − x, and its product with the decoder row of every stored code."""
        with torch.enable_grad():
            values = torch.from_numpy(codes.data).requires_grad_()
            columns = torch.from_numpy(codes.indices.astype(np.int64))
            starts = torch.from_numpy(codes.indptr[:-1].astype(np.int64))
            rebuilt = embedding_bag(columns, self.decoder, starts, mode="sum", per_sample_weights=values)
        error = rebuilt.detach() + self.b_dec - x
        (by_code,) = torch.autograd.grad(rebuilt, values, error)
        return error, by_code

    def _gradients(self, x: Tensor, codes: csr_array, error: Tensor, by_code: Tensor) -> list[Tensor]:
        """Gradients of the mean over rows of ‖x − x̂‖² + λ‖f‖₁, in the order of ``parameters``."""
        rows = len(x)
        slopes = (2 * by_code.numpy() + self.l1) * (codes.data > 0) / rows
        back = csr_array((slopes.astype(np.float32), codes.indices, codes.indptr), shape=codes.shape)
        latents = torch.from_numpy(np.bincount(codes.indices, weights=slopes, minlength=codes.shape[1])).float()
        encoder = torch.from_numpy(back.T @ x.numpy()) - torch.outer(latents, self.b_dec)
        decoder = torch.from_numpy(codes.T @ error.numpy()) * (2 / rows)
        decoder -= (decoder * self.decoder).sum(1, keepdim=True) * self.decoder  # rows stay on the unit sphere
        b_dec = 2 * error.mean(0) - latents @ self.encoder
        return [encoder, latents, decoder, b_dec]

    def _revive(self) -> None:
        """Start latents that hardly fired since the last look anew, towards what is badly reconstructed."""
        dead = torch.from_numpy(self.firings < RARELY * self.seen).nonzero().squeeze(1)
        self.firings[:], self.seen = 0, 0
        if len(dead) == 0:
            return
        x = self.x[torch.randint(len(self.x), (4 * self.batch,), generator=self.generator)]
        error = -self._errors(x, self._codes(x))[0]
        if not float(error.square().sum()) > 1e-9 * x.numel():
            return  # nothing is left to be found
        found = sharpened_directions(error, len(dead), self.generator, replacement=True)
        self.decoder[dead] = self.encoder[dead] = found
        self.b_enc[dead] = 0.0
        for parameter in self.parameters[:3]:
            for moment in ("exp_avg", "exp_avg_sq"):
                self.adam.state[parameter][moment][dead] = 0.0
        self.revived += len(dead)

    def _result(self, parameters: list[Tensor]) -> SparseAutoencoder:
        encoder, b_enc, decoder, b_dec = parameters
        tensors = {"W_enc": encoder.T.contiguous(), "b_enc": b_enc, "W_dec": decoder, "b_dec": b_dec}
        return SparseAutoencoder.from_tensors(tensors, self.start.architecture, self.start.k)


def _schedule(step: int, steps: int) -> float:
    """Factor of the learning rate: a linear rise, a plateau, a linear fall."""
    rise = (step + 1) / max(1.0, WARM_UP * steps)
    fall = (steps - step) / max(1.0, DECAY * steps)
    return min(1.0, rise, fall)


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
