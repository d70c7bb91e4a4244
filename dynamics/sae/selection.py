"""Which latents fire: the k largest pre-activations of every row, or all above a floor.

The k largest are found several times faster than ``torch.topk`` finds them on a CPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from scipy.sparse import csr_array
from torch import Tensor

from dynamics.sae.threads import Crew

MANY = 512
"""Latents from which on the pre-activations of fewer rows are held at once."""
NETWORK = 256
"""Entries that numpy partitions by a sorting network; each of more costs five times as much."""


def blocks(rows: int, n_latents: int) -> Iterator[slice]:
    """Slices of rows worked on at once: 1,024, or 512 where there are many latents; one empty slice for no rows."""
    size = 1024 if n_latents <= MANY else 512
    return (slice(start, start + size) for start in range(0, max(rows, 1), size))


def strongest_codes(
    x: Float[Tensor, "rows d_in"], encoder: Float[Tensor, "n d_in"], bias: Float[Tensor, " n"], k: int, crew: Crew
) -> csr_array:
    """The k largest entries of x encoderᵀ + bias of every row, rectified, as ``csr_array [rows, n]`` of float32.

    Columns are unsorted; k entries are stored for every row, zeros among them where fewer are positive.
    """
    rows, n = len(x), len(bias)
    values, columns = np.empty((rows, k), np.float32), np.empty((rows, k), np.int32)

    def fill(block: slice) -> None:
        values[block], columns[block] = strongest(_pre_activations(x[block], encoder, bias, crew), k)

    crew.map(fill, blocks(rows, n))
    starts = np.arange(0, rows * k + 1, k, dtype=np.int32)
    return csr_array((values.reshape(-1), columns.reshape(-1), starts), shape=(rows, n))


def codes_above(
    x: Float[Tensor, "rows d_in"],
    encoder: Float[Tensor, "n d_in"],
    bias: Float[Tensor, " n"],
    floor: Tensor,
    crew: Crew,
) -> csr_array:
    """The entries of x encoderᵀ + bias above ``floor``, as ``csr_array [rows, n]`` of float32, columns sorted."""

    def above(block: slice) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        pre = _pre_activations(x[block], encoder, bias, crew)
        flat = (pre > floor).numpy().reshape(-1).nonzero()[0]
        edges = np.arange(len(pre) + 1) * len(bias)
        counts = np.diff(np.searchsorted(flat, edges))
        return pre.numpy().reshape(-1)[flat], (flat - np.repeat(edges[:-1], counts)).astype(np.int32), counts

    parts = crew.map(above, blocks(len(x), len(bias)))
    values, columns, counts = (np.concatenate(part) for part in zip(*parts, strict=True))
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return csr_array((values, columns, starts), shape=(len(x), len(bias)))


def _pre_activations(x: Tensor, encoder: Tensor, bias: Tensor, crew: Crew) -> Tensor:
    return torch.addmm(bias, x, encoder.T, out=crew.room(len(x), len(bias)))


def strongest(
    pre: Float[Tensor, "rows n"], k: int
) -> tuple[Float32[np.ndarray, "rows k"], Int64[np.ndarray, "rows k"]]:
    """Rectified values and columns of the k largest entries of every row, in no particular order.

    Exact: the k largest lie in the k groups of columns that have the largest maxima. Which of equal entries wins
    depends on their columns alone.
    """
    rows, n = pre.shape
    size = _group_size(n, k)
    if size == 1:
        return _largest(pre, k)
    grouped = pre.reshape(rows, size, n // size)  # group g holds the columns g, g + n / size, g + 2 n / size, …
    _, groups = _largest(grouped.amax(1), k)
    wanted = torch.from_numpy(groups)[:, None, :].expand(rows, size, k)
    values, places = strongest(grouped.gather(2, wanted).reshape(rows, size * k), k)
    return values, n // size * (places // k) + np.take_along_axis(groups, places % k, axis=1)


def _group_size(n: int, k: int) -> int:
    """A power of two that divides n: 4, or as many more as leave few enough groups; 1 where too few would be left."""
    if n % 4 or n // 4 <= k:
        return 1
    size = 4
    while n // size > max(NETWORK, 2 * k) and n % (2 * size) == 0:
        size *= 2
    return size


def _largest(
    values: Float[Tensor, "rows m"], k: int
) -> tuple[Float32[np.ndarray, "rows k"], Int64[np.ndarray, "rows k"]]:
    """The k largest of every row, rectified, with their columns.

    The bits of non-negative floats sort as integers do: one integer per entry, value bits above column bits, lets
    numpy's vectorised integer partition carry the columns along.
    """
    keys = values.clamp_min(0.0).numpy().view(np.int32).astype(np.int64)
    keys <<= 32
    keys |= np.arange(keys.shape[1])
    if k < keys.shape[1]:
        keys.partition(keys.shape[1] - k, axis=1)
    top = keys[:, -k:]
    return (top >> 32).astype(np.int32).view(np.float32), top & 0xFFFFFFFF
