"""Sums and products over the few entries of a sparse matrix, each row of the result made by one thread.

Torch's embedding bags and sampled products are compiled for the processor's widest registers; scipy's are not.
"""

from __future__ import annotations

import warnings

import torch
from jaxtyping import Float, Int32
from torch import Tensor
from torch.nn.functional import embedding_bag


def weighted_sums(
    table: Float[Tensor, "m d"], rows: Int32[Tensor, " entries"], starts: Int32[Tensor, " n_1"], weights: Tensor
) -> Float[Tensor, "n d"]:
    """For each of n stretches of entries the weighted sum of the rows of ``table`` that they name.

    Args:
        table: the rows that are summed.
        rows: which row each entry names.
        starts: where each stretch begins, and where the last one ends.
        weights: float32, one for each entry.
    """
    return embedding_bag(rows, table, starts, mode="sum", per_sample_weights=weights, include_last_offset=True)


def sums(weights: Float[Tensor, " entries"], starts: Int32[Tensor, " n_1"]) -> Float[Tensor, " n"]:
    """The sum of the weights of each of n stretches of entries."""
    return weighted_sums(torch.ones(1, 1), torch.zeros(len(weights), dtype=torch.int32), starts, weights).squeeze(1)


def products(
    left: Float[Tensor, "n d"], table: Float[Tensor, "m d"], rows: Int32[Tensor, " entries"], starts: Tensor
) -> Float[Tensor, " entries"]:
    """The scalar product of each entry's stretch's row of ``left`` with the row of ``table`` that the entry names."""
    wanted = torch.sparse_csr_tensor(
        starts, rows, torch.zeros(len(rows)), (len(left), len(table)), check_invariants=False
    )
    found: Tensor = torch.sparse.sampled_addmm(wanted, left, table.T, beta=0.0).values()
    return found


def expect_sparse_tensors() -> None:
    """Takes torch's notice, one a process, that its sparse tensors are in beta: nothing follows from it here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta", UserWarning)
        torch.sparse_csr_tensor([0, 0], [], [], (1, 1), check_invariants=False)
