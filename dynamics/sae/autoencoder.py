"""The sparse autoencoder: f = act((x − b_dec) W_enc + b_enc), x̂ = f W_dec + b_dec."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import get_args

import torch
from jaxtyping import Float
from scipy.sparse import csr_array
from torch import Tensor

from dynamics.sae.config import Architecture
from dynamics.sae.selection import codes_above, strongest_codes
from dynamics.sae.threads import crew

THRESHOLDED = ("batch_topk", "jump_relu", "matryoshka")


@dataclass(frozen=True, eq=False)
class SparseAutoencoder:
    """An SAE in one orientation: latents are columns of ``W_enc`` and unit rows of ``W_dec``, on the CPU, float32.

    ``topk`` keeps the k largest of the rectified pre-activations of a row (Gao et al. 2406.04093), ``relu`` keeps all
    positive ones (Bricken et al. 2023), ``batch_topk``, ``matryoshka`` and ``jump_relu`` those above ``threshold``.
    Build one with ``from_tensors``, which checks what it is given.
    """

    W_enc: Float[Tensor, "d_in n"]
    b_enc: Float[Tensor, " n"]
    W_dec: Float[Tensor, "n d_in"]
    b_dec: Float[Tensor, " d_in"]
    architecture: Architecture
    k: int | None = None
    threshold: Float[Tensor, " n"] | None = None

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], architecture: str, k: int | None = None) -> SparseAutoencoder:
        """An SAE from its tensors ``W_enc [d_in, n]``, ``b_enc [n]``, ``W_dec [n, d_in]``, ``b_dec [d_in]`` and,
        for all but ``topk`` and ``relu``, ``threshold [n]``.

        Decoder rows come out with unit norm. Where the norm is not 1, the encoder (and threshold) of that latent is
        multiplied by it, which leaves every reconstruction as it was; a ``topk`` SAE is refused instead, since that
        would change which latents win.

        Raises:
            ValueError: for a missing or non-finite tensor, a wrong shape or orientation, an unknown architecture,
                a missing or impossible k, or a ``topk`` decoder whose rows are not of unit norm.
        """
        kind = _known_architecture(architecture)
        given = {name: tensor.detach().to("cpu", torch.float32) for name, tensor in tensors.items()}
        _check_tensors(given, kind)
        n_latents = given["b_enc"].shape[0]
        if kind == "topk" and (k is None or not 1 <= k <= n_latents):
            raise ValueError(f"a topk SAE needs k between 1 and its number of latents, {n_latents}; got k {k}")
        threshold = given["threshold"] if kind in THRESHOLDED else None
        sae = cls(given["W_enc"], given["b_enc"], given["W_dec"], given["b_dec"], kind, k, threshold)
        return _unit_rows(sae)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, as ``from_tensors`` takes them."""
        named = {"W_enc": self.W_enc, "b_enc": self.b_enc, "W_dec": self.W_dec, "b_dec": self.b_dec}
        return named if self.threshold is None else {**named, "threshold": self.threshold}

    @property
    def d_in(self) -> int:
        """Width of the activations."""
        return int(self.W_enc.shape[0])

    @property
    def n_latents(self) -> int:
        """Number of latents, dead ones included."""
        return int(self.W_enc.shape[1])

    @torch.no_grad()
    def encode(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows n"]:
        """Codes of activations, dense.

        Raises:
            ValueError: if the activations' width is not the SAE's.
        """
        return torch.from_numpy(self.encode_sparse(x).toarray())

    @torch.no_grad()
    def encode_sparse(self, x: Float[Tensor, "rows d_in"]) -> csr_array:
        """Codes of activations as a scipy ``csr_array [rows, n]`` of float32, columns sorted, no stored zeros.

        Works through the rows in blocks; never holds rows × n numbers.

        Raises:
            ValueError: if the activations' width is not the SAE's.
        """
        if x.shape[1] != self.d_in:
            raise ValueError(f"SAE expects width {self.d_in}, activations have {x.shape[1]}")
        x = x.detach().to("cpu", torch.float32) - self.b_dec
        with crew(len(x) * self.W_enc.numel()) as hands:
            if self.architecture != "topk":
                return codes_above(x, self.W_enc.T, self.b_enc, self._floor, hands)
            codes = strongest_codes(x, self.W_enc.T, self.b_enc, self._k, hands)
        codes.eliminate_zeros()
        codes.sort_indices()
        return codes

    @torch.no_grad()
    def decode(self, codes: Float[Tensor, "rows n"] | csr_array) -> Float[Tensor, "rows d_in"]:
        """Activations reconstructed from codes, dense or sparse."""
        if isinstance(codes, csr_array):
            return torch.from_numpy(codes @ self.W_dec.numpy()).to(torch.float32) + self.b_dec
        return codes @ self.W_dec + self.b_dec

    def forward(self, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, "rows d_in"]:
        """Reconstruction of activations."""
        return self.decode(self.encode_sparse(x))

    def to_raw(self, mean: Float[Tensor, " d_in"], scale: float) -> SparseAutoencoder:
        """The SAE for raw activations x, of an SAE for scaled ones x̃ = (x − mean) · scale; its codes are f̃ / scale.

        Raises:
            ValueError: if the scale is not a positive finite number or the mean's width is not the SAE's.
        """
        self._check_scaling(mean, scale)
        return self._rescaled(1 / scale, self.b_dec / scale + mean)

    def to_scaled(self, mean: Float[Tensor, " d_in"], scale: float) -> SparseAutoencoder:
        """The inverse of ``to_raw``: the SAE for x̃ = (x − mean) · scale, of an SAE for raw activations x.

        Raises:
            ValueError: if the scale is not a positive finite number or the mean's width is not the SAE's.
        """
        self._check_scaling(mean, scale)
        return self._rescaled(scale, (self.b_dec - mean) * scale)

    @property
    def _k(self) -> int:
        assert self.k is not None  # from_tensors refuses a topk SAE without k
        return self.k

    @property
    def _floor(self) -> Tensor:
        """What a pre-activation must exceed; a negative threshold would let latents fire negatively."""
        return torch.zeros(()) if self.threshold is None else self.threshold

    def _check_scaling(self, mean: Tensor, scale: float) -> None:
        if not 0 < scale < float("inf"):
            raise ValueError(f"the scale of activations must be positive and finite, got {scale}")
        if mean.shape[0] != self.d_in:
            raise ValueError(f"SAE expects width {self.d_in}, the mean has {mean.shape[0]}")

    def _rescaled(self, factor: float, b_dec: Tensor) -> SparseAutoencoder:
        threshold = None if self.threshold is None else self.threshold * factor
        return replace(self, b_enc=self.b_enc * factor, b_dec=b_dec.to(torch.float32), threshold=threshold)


def _known_architecture(name: str) -> Architecture:
    for known in get_args(Architecture):
        if name == known:
            return known  # type: ignore[no-any-return]
    nearest = difflib.get_close_matches(name, get_args(Architecture), n=1)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
    raise ValueError(f"unknown architecture {name!r}{hint}; there are: {', '.join(get_args(Architecture))}")


def _check_tensors(given: dict[str, Tensor], architecture: str) -> None:
    names = ["W_enc", "b_enc", "W_dec", "b_dec"] + (["threshold"] if architecture in THRESHOLDED else [])
    missing = [name for name in names if name not in given]
    if missing:
        raise ValueError(f"a {architecture} SAE needs the tensors {', '.join(names)}; missing: {', '.join(missing)}")
    if given["W_enc"].ndim != 2:
        raise ValueError(f"W_enc must be [d_in, n_latents], got shape {list(given['W_enc'].shape)}")
    d_in, n = given["b_dec"].numel(), given["b_enc"].numel()
    expected = {"W_enc": [d_in, n], "b_enc": [n], "W_dec": [n, d_in], "b_dec": [d_in], "threshold": [n]}
    for name in names:
        shape = list(given[name].shape)
        if shape != expected[name]:
            hint = "; it is transposed" if shape[::-1] == expected[name] else ""
            raise ValueError(f"{name} must have shape {expected[name]} (by b_enc and b_dec), got {shape}{hint}")
        if not bool(torch.isfinite(given[name]).all()):
            raise ValueError(f"{name} holds NaN or infinite numbers")


def _unit_rows(sae: SparseAutoencoder) -> SparseAutoencoder:
    norms = sae.W_dec.norm(dim=1)
    worst = int((norms - 1).abs().argmax())
    if abs(float(norms[worst]) - 1) < 1e-6:
        return sae
    if sae.architecture == "topk" and abs(float(norms[worst]) - 1) > 1e-3:
        raise ValueError(
            f"decoder rows of a topk SAE must have unit norm, row {worst} has {float(norms[worst]):.4g}; "
            "normalising it would change which latents win: fold the norms in before, or retrain with unit rows"
        )
    rows = torch.where(norms[:, None] > 0, sae.W_dec / norms[:, None].clamp_min(1e-30), 0.0)
    rows[norms == 0, 0] = 1.0  # a latent that writes nothing: its encoder becomes 0, so it never fires
    threshold = None if sae.threshold is None else sae.threshold * norms
    return replace(sae, W_enc=sae.W_enc * norms, b_enc=sae.b_enc * norms, W_dec=rows, threshold=threshold)
