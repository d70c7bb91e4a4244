"""One batch on whose rows so many latents fire that dense products are quicker than sparse ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dynamics.sae.batches import Batch, Slopes
from dynamics.sae.selection import blocks
from dynamics.sae.threads import Crew

CROWDED = 0.25
"""Share of codes that are positive from which on dense products are quicker."""
SAMPLED = 32
"""Of so many rows one tells how crowded a batch is."""


@dataclass(frozen=True)
class DenseBatch(Batch):
    """A batch with all its codes, zeros too, of latents that all fire where they are positive.

    The codes are there until the next batch is made.
    """

    codes: Float[Tensor, "rows n"]

    @classmethod
    def of(
        cls,
        x: Float[Tensor, "rows d_in"],
        encoder: Float[Tensor, "n d_in"],
        bias: Float[Tensor, " n"],
        decoder: Float[Tensor, "n d_in"],
        crew: Crew,
    ) -> DenseBatch:
        """A batch from its rows minus the decoder's bias."""
        codes, wrong = crew.room(len(x), len(bias)), torch.empty_like(x)

        def fill(block: slice) -> None:
            found = torch.addmm(bias, x[block], encoder.T, out=codes[block]).relu_()
            torch.addmm(x[block], found, decoder, beta=-1, out=wrong[block])

        crew.map(fill, blocks(len(x), len(bias)))
        return cls(x, wrong, wrong[:, None], codes)

    def slopes(self, decoder: Float[Tensor, "latents d_in"], latents: slice, l1: float) -> Slopes:
        share, penalty = 1 / len(self.x), torch.tensor(l1 / len(self.x))
        encoder, along = torch.zeros_like(decoder), torch.zeros_like(decoder)
        b_enc, fired = torch.zeros(2, len(decoder))
        for block in blocks(len(self.x), self.codes.shape[1]):
            codes, wrong = self.codes[block, latents], self.wrong[block]
            felt = torch.addmm(penalty, wrong, decoder.T, alpha=2 * share)
            felt = torch.ops.aten.threshold_backward(felt, codes, 0)  # in one pass over memory, where `where` takes two
            encoder.addmm_(felt.T, self.x[block])
            along.addmm_(codes.T, wrong, alpha=2 * share)
            b_enc += felt.sum(0)
            fired += codes.sign().sum(0)
        return Slopes(encoder, b_enc, along, torch.empty(0), fired)


def crowded(x: Float[Tensor, "rows d_in"], encoder: Float[Tensor, "n d_in"], bias: Float[Tensor, " n"]) -> bool:
    """Whether a batch, as its sample tells, has so many positive codes that dense products are quicker."""
    return float((torch.addmm(bias, x[::SAMPLED], encoder.T) > 0).float().mean()) > CROWDED
