"""The fast selection against ``torch.topk``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from dynamics.sae.selection import codes_above, strongest, strongest_codes
from dynamics.sae.threads import Crew


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "k"), [(320, 10), (64, 8), (63, 5), (64, 64), (12, 11), (7, 1), (2048, 32), (8192, 16)])
def test_the_same_entries_as_topk(n: int, k: int) -> None:
    pre = normal(50, n)
    values, columns = strongest(pre, k)
    expected = torch.topk(pre, k, dim=1)
    np.testing.assert_array_equal(np.sort(values, axis=1)[:, ::-1], expected.values.clamp_min(0))
    positive = expected.values > 0
    for row in range(50):
        assert set(expected.indices[row][positive[row]].tolist()) <= set(columns[row].tolist())
        assert len(set(columns[row].tolist())) == k


def test_ties_never_select_more_than_k() -> None:
    values, columns = strongest(torch.ones(3, 64), 5)
    assert values.tolist() == [[1.0] * 5] * 3
    assert all(len(set(row)) == 5 for row in columns.tolist())


def test_negative_entries_become_zero() -> None:
    values, _ = strongest(-torch.rand(4, 32), 3)
    assert not values.any()


def test_blocks_do_not_change_the_codes() -> None:
    x, weights, bias = normal(1000, 8), normal(4096, 8, seed=1), normal(4096, seed=2)
    pre = x @ weights.T + bias
    expected = torch.zeros_like(pre).scatter_(1, pre.topk(4, dim=1).indices, pre.topk(4, dim=1).values.clamp_min(0))
    with ThreadPoolExecutor(2) as pool:
        codes = strongest_codes(x, weights, bias, 4, Crew(pool)).toarray()
        positive = codes_above(x, weights, bias, torch.zeros(()), Crew(pool)).toarray()
    np.testing.assert_allclose(codes, expected, atol=1e-4)
    np.testing.assert_allclose(positive, pre.clamp_min(0), atol=1e-4)
