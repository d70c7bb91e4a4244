"""Oracle dictionaries as SAE files: true decoder directions, and the encoder that reads the true codes best.

One linear layer cannot undo the interference of more features than dimensions, so the codes of these SAEs are not the
true ones: their correlation is 0.8 to 0.9, median 0.86 on the level hard. A threshold for each latent (``jump_relu``)
gains nothing over the k largest (``topk``), which can be trained further: a null arm needs that. To score a tracker
without any SAE error, give it ``World.oracle(i)`` in memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file

from studies.planted.dictionary import Dictionary

STEPS = 500
BATCH = 2048


def write_sae(path: Path, truth: Dictionary, activations: NDArray[np.float32]) -> None:
    """Writes the dictionary of one checkpoint in the format ``dynamics``: ``topk``, k the mean L0 of the true codes."""
    k = int(np.ceil(truth.codes.nnz / truth.codes.shape[0]))
    save_file(fit_sae(truth, activations), path, metadata={"architecture": "topk", "k": str(k)})


def fit_sae(truth: Dictionary, activations: NDArray[np.float32]) -> dict[str, torch.Tensor]:
    """Tensors of an SAE with the true directions whose encoder is fitted to the true codes.

    Starts from matched filters in the whitened space and goes on with Adam on ‖f − z‖² for ReLU codes f.
    """
    scale = float(np.abs(truth.codes.data).mean())
    x = torch.from_numpy(activations) / scale
    z = torch.from_numpy(truth.codes.toarray().astype(np.float32)) / scale
    directions = torch.from_numpy(truth.directions.astype(np.float32))
    mean = x.mean(0)
    weight, bias = _fitted(x - mean, z, directions)
    return {"W_enc": weight, "b_enc": bias * scale, "W_dec": directions, "b_dec": mean * scale}


def _fitted(x: torch.Tensor, z: torch.Tensor, directions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    covariance = x.T @ x / len(x)
    ridge = 1e-3 * covariance.diagonal().mean() * torch.eye(x.shape[1])
    filters = torch.linalg.solve(covariance + ridge, directions.T)
    weight = (filters / (directions.T * filters).sum(0)).requires_grad_()
    bias = torch.full((z.shape[1],), -0.3, requires_grad=True)
    optimiser = torch.optim.Adam([weight, bias], lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for step in range(STEPS):
        optimiser.param_groups[0]["lr"] = 3e-3 * (1 - 0.9 * step / STEPS)
        rows = torch.randint(0, len(x), (BATCH,), generator=generator)
        loss = (torch.relu(x[rows] @ weight + bias) - z[rows]).square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return weight.detach().contiguous(), bias.detach()
