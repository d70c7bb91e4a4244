"""One optimiser step for a range of latents: their gradients, written out for the rows on which they fire, and Adam.

A latent that fires nowhere has no gradient. Where a feature is missing it starts anew; where none is, its bias is
raised until it fires again, by more the longer it has been silent (Anthropic's Circuits Updates of January 2025 do so
by a penalty on pre-activations). Nothing jumps then, so that it can go on to the end.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dynamics.sae.batches import Batch

SHARD = 1024
"""Latents that one thread works on at a time."""
BETAS = (0.9, 0.99)
"""Adam's. A second moment of the last hundred steps found more of planted rare features than the usual thousand."""


@dataclass(frozen=True)
class Step:
    """What a step of some latents says to the rest."""

    pull: Float[Tensor, " d_in"]
    """Their part of the gradient of the decoder's bias: what it does through the encoder."""
    slopes: Float[Tensor, " codes"]
    """Slope of the loss along each code, also along those that are zero."""
    fired: Float[Tensor, " latents"]
    """Rows on which each fired."""


class Shard:
    """Latents that lie side by side, as views of the parameters of all, and their part of the optimiser."""

    def __init__(self, encoder: Tensor, b_enc: Tensor, decoder: Tensor, latents: slice, rate: float) -> None:
        self.latents, self._silent = latents, torch.zeros(latents.stop - latents.start)
        self.encoder, self.b_enc, self.decoder = encoder[latents], b_enc[latents], decoder[latents]
        self._parameters = [self.encoder, self.b_enc, self.decoder]
        self._adam = torch.optim.Adam(self._parameters, lr=rate, betas=BETAS, fused=True)

    def step(self, batch: Batch, rate: float, l1: float, urge: float) -> Step:
        """Descends the mean over rows of ‖x − x̂‖² + λ‖f‖₁; decoder rows stay on the unit sphere.

        Biases of silent latents rise by ``urge`` for each step of their silence.
        """
        gradients, said = self.gradients(batch, l1)
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self._adam.param_groups[0]["lr"] = rate
        self._adam.step()
        self._adam.zero_grad()
        self._silent += 1
        self._silent[said.fired > 0] = 0.0
        self.b_enc.add_(self._silent, alpha=urge)
        self.decoder.div_(self.decoder.norm(dim=1, keepdim=True).clamp_min(1e-12))
        return said

    def gradients(self, batch: Batch, l1: float) -> tuple[list[Tensor], Step]:
        """Of the encoder, its biases and, along the sphere, the decoder; and what others need to know."""
        said = batch.slopes(self.decoder, self.latents, l1)
        decoder = said.decoder - (said.decoder * self.decoder).sum(1, keepdim=True) * self.decoder
        return [said.encoder, said.b_enc, decoder], Step(said.b_enc @ self.encoder, said.codes, said.fired)

    def restart(self, latents: Tensor, directions: Float[Tensor, "some d_in"]) -> None:
        """Latents of the shard, counted from its first, start anew in these directions."""
        self.encoder[latents] = self.decoder[latents] = directions
        self.b_enc[latents] = self._silent[latents] = 0.0
        for parameter in self._parameters:
            for moment in ("exp_avg", "exp_avg_sq"):
                self._adam.state[parameter][moment][latents] = 0.0
