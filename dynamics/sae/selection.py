"""The k largest pre-activations of every row."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def strongest(pre: Float[Tensor, "rows n"], k: int) -> tuple[Float[Tensor, "rows k"], Int64[Tensor, "rows k"]]:
    """Rectified values and columns of the k largest entries of every row, in no particular order."""
    values, columns = torch.topk(pre, k, dim=1, sorted=False)
    return values.clamp_min(0.0), columns
