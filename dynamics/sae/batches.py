"""One batch of a training: its codes, what their reconstruction gets wrong, and what the loss says about latents."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int32
from scipy.sparse import csr_array
from torch import Tensor

from dynamics.sae.autoencoder import SparseAutoencoder
from dynamics.sae.sparse import products, sums, weighted_sums
from dynamics.sae.threads import Crew

ROWS = 1024
"""Rows that one thread reconstructs at a time."""

NESTED = (1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Shares of the latents that reconstruct on their own, beside all of them, in ``matryoshka`` (Bussmann 2503.17547)."""
BALANCE = 0.7
"""How much less each counts than the next longer one. Where all count the same, the first latents mix several features
(Chanin et al. 2505.11756, which balances them so): known directions are found at a cosine of 0.98 instead of 0.995."""


@dataclass(frozen=True)
class Slopes:
    """Of the mean over rows of ‖x − x̂‖² + λ‖f‖₁, for some latents."""

    encoder: Float[Tensor, "latents d_in"]
    b_enc: Float[Tensor, " latents"]
    decoder: Float[Tensor, "latents d_in"]
    """Also along the rows of the decoder, which keep their length."""
    codes: Float[Tensor, " codes"]
    """Along each stored code, also along those that are zero."""
    fired: Float[Tensor, " latents"]
    """Rows on which each fired."""


@dataclass(frozen=True)
class Batch(ABC):
    """A batch as the latents see it."""

    x: Float[Tensor, "rows d_in"]
    """Minus the decoder's bias."""
    wrong: Float[Tensor, "rows d_in"]
    """x̂ − x."""
    error: Float[Tensor, "rows prefixes d_in"]
    """Half the slope of a row's loss along what latents write that are in this and all longer prefixes."""

    @abstractmethod
    def slopes(self, decoder: Float[Tensor, "latents d_in"], latents: slice, l1: float) -> Slopes:
        """Of latents that lie side by side, by their rows of the decoder."""


@dataclass(frozen=True)
class SparseBatch(Batch):
    """A batch of which only the codes are stored, latent by latent."""

    rows: Int32[Tensor, " codes"]
    """On which row each code is, latent by latent."""
    values: Float[Tensor, " codes"]
    """The codes; a latent with a stored zero does not fire."""
    starts: Int32[Tensor, " n_1"]
    """Where each latent's codes begin, and where the last one's end."""
    prefix: Int32[Tensor, " n"]
    """The shortest prefix that each latent is in."""

    @classmethod
    def of(
        cls,
        x: Float[Tensor, "rows d_in"],
        codes: csr_array,
        decoder: Float[Tensor, "n d_in"],
        prefix: Int32[Tensor, " n"],
        crew: Crew,
    ) -> SparseBatch:
        """A batch from its codes row by row; their columns are sorted in place where there are several prefixes.

        Where latents are nested (``matryoshka``), every prefix of them reconstructs on its own, and the loss is a
        weighted mean over prefixes.
        """
        prefixes = int(prefix[-1]) + 1
        if prefixes > 1:
            codes.sort_indices()
        starts = torch.from_numpy(codes.indptr if prefixes == 1 else _starts(codes, prefix.numpy(), prefixes))
        columns, values = torch.from_numpy(codes.indices), torch.from_numpy(codes.data)
        wrong, error = torch.empty_like(x), torch.empty(len(x), prefixes, x.shape[1])
        weights = BALANCE ** torch.arange(prefixes - 1, -1, -1.0)[:, None]
        weights /= weights.sum()

        def fill(block: slice) -> None:
            edges = starts[block.start * prefixes : block.stop * prefixes + 1]
            part = slice(int(edges[0]), int(edges[-1]))
            written = weighted_sums(decoder, columns[part], edges - edges[0], values[part])
            torch.sub(written.view(-1, prefixes, x.shape[1]).cumsum(1), x[block, None], out=error[block])
            wrong[block] = error[block, -1]
            if prefixes > 1:
                error[block] = (weights * error[block]).flip(1).cumsum(1).flip(1)

        crew.map(fill, (slice(start, min(start + ROWS, len(x))) for start in range(0, len(x), ROWS)))
        turned = codes.tocsc()
        rows, values, ends = map(torch.from_numpy, (turned.indices, turned.data, turned.indptr))
        return cls(x, wrong, error, rows, values, ends, prefix)

    def slopes(self, decoder: Float[Tensor, "latents d_in"], latents: slice, l1: float) -> Slopes:
        edges = self.starts[latents.start : latents.stop + 1]
        codes = slice(int(edges[0]), int(edges[-1]))
        rows, values, starts = self.rows[codes], self.values[codes], edges - edges[0]
        places, error = self._places(latents, rows, starts), self.error.flatten(0, 1)
        slopes = (2 * products(decoder, error, places, starts) + l1) / len(self.x)
        felt = slopes * (values > 0)
        return Slopes(
            encoder=weighted_sums(self.x, rows, starts, felt),
            b_enc=sums(felt, starts),
            decoder=weighted_sums(error, places, starts, values) * (2 / len(self.x)),
            codes=slopes,
            fired=sums((values > 0).float(), starts),
        )

    def _places(self, latents: slice, rows: Tensor, starts: Tensor) -> Tensor:
        """Where the error that each code can change is: on its row, for the first prefix that its latent is in."""
        prefixes = self.error.shape[1]
        if prefixes == 1:
            return rows
        return rows * prefixes + self.prefix[latents].repeat_interleave(starts.diff())


def prefix_of(sae: SparseAutoencoder) -> Int32[Tensor, " n"]:
    """The shortest prefix that each latent is in; all are in one and the same but for ``matryoshka``."""
    if sae.architecture != "matryoshka":
        return torch.zeros(sae.n_latents, dtype=torch.int32)
    ends = torch.tensor([max(1, int(share * sae.n_latents)) for share in NESTED])
    return torch.bucketize(torch.arange(sae.n_latents), ends, right=True, out_int32=True)


def _starts(codes: csr_array, prefix: Int32[np.ndarray, " n"], prefixes: int) -> Int32[np.ndarray, " stretches"]:
    """Where the codes of every row and prefix begin."""
    row = np.repeat(np.arange(codes.shape[0]), np.diff(codes.indptr))
    return np.searchsorted(row * prefixes + prefix[codes.indices], np.arange(codes.shape[0] * prefixes + 1)).astype(
        np.int32
    )
