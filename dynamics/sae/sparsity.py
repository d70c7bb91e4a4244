"""Which latents fire while an SAE is trained: one rule for each architecture."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from torch import Tensor

from dynamics.sae.autoencoder import SparseAutoencoder
from dynamics.sae.batches import Batch, SparseBatch
from dynamics.sae.selection import codes_above, strongest_codes
from dynamics.sae.sparse import sums
from dynamics.sae.threads import Crew

SLACK = 0.8
"""Pre-activations are collected from this share of the last batch's threshold on, since this one's may be lower."""
WINDOW = 0.1
"""Half the width, as a share of a threshold, of the window in which codes say whether it should be lower or higher."""
CAUTION = 0.1
"""Adam's step size for the logarithms of thresholds, as a share of the others': at the full one latents fell silent."""
FURTHEST = 2.0
"""How far, in logarithms, thresholds of ``jump_relu`` may get from their common level."""
SAMPLE = 32768
"""Rows on which the threshold for use is settled."""


class Sparsity(ABC):
    """Decides which latents fire on the rows of a batch."""

    all_positive = False
    """Every positive pre-activation fires."""

    @abstractmethod
    def codes(
        self,
        x: Float[Tensor, "rows d_in"],
        encoder: Float[Tensor, "n d_in"],
        bias: Float[Tensor, " n"],
        crew: Crew,
    ) -> csr_array:
        """Codes ``[rows, n]`` of rows minus the decoder's bias. What is stored as zero does not fire."""

    def learn(self, batch: Batch, slopes: Float[Tensor, " codes"], rate: float) -> None:
        """Takes in what the loss says about every code, in the batch's order."""
        return  # most have nothing to learn

    def restart(self, latents: Tensor) -> None:
        """Forgets about latents that start anew."""
        return


class EachRow(Sparsity):
    """``topk``: the k strongest latents of every row."""

    def __init__(self, k: int) -> None:
        self._k = k

    def codes(self, x: Tensor, encoder: Tensor, bias: Tensor, crew: Crew) -> csr_array:
        return strongest_codes(x, encoder, bias, self._k, crew)


class Positive(Sparsity):
    """``relu``: every positive pre-activation."""

    all_positive = True

    def codes(self, x: Tensor, encoder: Tensor, bias: Tensor, crew: Crew) -> csr_array:
        return codes_above(x, encoder, bias, torch.zeros(()), crew)


class WholeBatch(Sparsity):
    """``batch_topk``, ``matryoshka``: the k · rows strongest latents of a whole batch (Bussmann et al. 2412.06410)."""

    window = 0.0

    def __init__(self, k: float, threshold: Float[Tensor, " n"]) -> None:
        known = threshold > 0
        self.k = k
        self.level = float(threshold[known].mean()) if bool(known.any()) else 0.0
        self.relative = torch.where(known, threshold / max(self.level, 1e-30), 1.0)

    def codes(self, x: Tensor, encoder: Tensor, bias: Tensor, crew: Crew) -> csr_array:
        count = round(self.k * len(x))
        found = self._candidates(x, encoder, bias, count, crew)
        ratio = found.data / self.relative.numpy()[found.indices]
        self.level = float(np.partition(ratio, -count)[-count]) if len(ratio) >= count else 0.0
        found.data[ratio < self.level] = 0.0
        return _only(found, ratio >= self.level * (1 - self.window))

    def _candidates(self, x: Tensor, encoder: Tensor, bias: Tensor, count: int, crew: Crew) -> csr_array:
        """The codes from a bit below the threshold on: surely ``count`` of them, where so many are positive."""
        floor = SLACK * (self.level or self._guess(x[:256], encoder, bias))
        while True:
            found = codes_above(x, encoder, bias, floor * self.relative, crew)
            if found.nnz >= count or floor == 0:
                return found
            floor = floor / 2 if 1e-6 < floor < math.inf else 0.0

    def _guess(self, x: Tensor, encoder: Tensor, bias: Tensor) -> float:
        ratio = (torch.addmm(bias, x, encoder.T) / self.relative).numpy().reshape(-1)
        count = max(1, min(len(ratio), round(self.k * len(x))))
        return max(0.0, float(np.partition(ratio, -count)[-count]))

    def settled(self, x: Tensor, encoder: Tensor, bias: Tensor, crew: Crew) -> Float[Tensor, " n"]:
        """Thresholds above which k latents fire on a row in the mean."""
        self.codes(x[:SAMPLE], encoder, bias, crew)
        return self.level * self.relative


class OwnThresholds(WholeBatch):
    """``jump_relu`` (Rajamanoharan et al. 2407.14435): every latent has a threshold of its own, and learns it.

    A batch is cut where k latents fire on a row in the mean, counted in units of each latent's threshold. So their
    common level follows from k, and what is learned is which latents' thresholds are above it: those whose faintest
    codes are worth less than others'. The gradient is that of the paper's equation 11 with a rectangular kernel; its
    sparsity weight λ is the one that leaves the number of firings as it is.
    """

    window = WINDOW

    def __init__(self, k: float, threshold: Float[Tensor, " n"]) -> None:
        super().__init__(k, threshold)
        self._log = self.relative.clamp_min(1e-30).log().clamp_(-FURTHEST, FURTHEST)
        self._adam = torch.optim.Adam([self._log], fused=True)

    def learn(self, batch: Batch, slopes: Tensor, rate: float) -> None:
        assert isinstance(batch, SparseBatch)  # others are only made where all positive pre-activations fire
        bounds = self.level * (1 + self.window) * self.relative
        close = (batch.values < bounds.repeat_interleave(batch.starts.diff())).float()
        worth = -self.level * self.relative * sums(close * slopes, batch.starts)
        price = worth.sum() / close.sum().clamp_min(1.0)
        worth -= price * sums(close, batch.starts)
        self._log.grad = worth / (2 * self.window)
        self._adam.param_groups[0]["lr"] = CAUTION * rate
        self._adam.step()
        torch.exp(self._log.clamp_(-FURTHEST, FURTHEST), out=self.relative)

    def restart(self, latents: Tensor) -> None:
        self._log[latents], self.relative[latents] = 0.0, 1.0


def sparsity_of(sae: SparseAutoencoder, x: Float[Tensor, "rows d_in"]) -> Sparsity:
    """The rule of an SAE that is to be trained on x. Thresholds without a k keep the L0 that they have there."""
    if sae.architecture == "topk":
        return EachRow(sae._k)
    if sae.architecture == "relu":
        return Positive()
    k = float(sae.k or max(1.0, sae.encode_sparse(x[:SAMPLE]).nnz / len(x[:SAMPLE])))
    return (OwnThresholds if sae.architecture == "jump_relu" else WholeBatch)(k, sae._floor.expand(sae.n_latents))


def _only(codes: csr_array, keep: np.ndarray) -> csr_array:
    ends = np.concatenate([[0], np.cumsum(keep)]).astype(np.int32)
    return csr_array((codes.data[keep], codes.indices[keep], ends[codes.indptr]), shape=codes.shape)
