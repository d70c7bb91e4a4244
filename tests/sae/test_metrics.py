"""FVU, L0, dead, and the statistics of latents, against small cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from dynamics.sae import SparseAutoencoder, evaluate, latent_statistics, top_rows
from dynamics.sae.metrics import unexplained

CODES = csr_array(np.array([[0, 2, 0], [1, 4, 0], [0, 4, 0], [3, 1, 0]], dtype=np.float32))


def axes() -> SparseAutoencoder:
    """Four latents over two dimensions: +e0, +e1, −e0, −e1; one fires on a row."""
    directions = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    given = {"W_enc": directions.T, "b_enc": torch.zeros(4), "W_dec": directions, "b_dec": torch.zeros(2)}
    return SparseAutoencoder.from_tensors(given, "topk", 1)


def test_metrics_of_a_case_worked_by_hand() -> None:
    x = torch.tensor([[2.0, 1.0], [-2.0, 0.0], [2.0, -1.0], [-2.0, 0.0]])
    metrics = evaluate(axes(), x)  # the second coordinate is lost: 2 of a total of 16 + 2
    assert metrics.fvu == pytest.approx(2 / 18)
    assert metrics.l0 == 1
    assert metrics.dead == 0.5


@pytest.mark.parametrize("value", [0.0, 3.0, 1e-20, 1e18])
def test_constant_activations_give_finite_metrics(value: float) -> None:
    metrics = evaluate(axes(), torch.full((5, 2), value))
    assert np.isfinite([metrics.fvu, metrics.l0, metrics.dead]).all()
    assert metrics.fvu in (0.0, 1.0)


def test_unexplained_is_one_for_the_mean_and_zero_for_a_copy() -> None:
    x = torch.randn(50, 3, generator=torch.Generator().manual_seed(0)) + 7
    assert unexplained(x, x.mean(0).expand(50, 3)) == pytest.approx(1.0, rel=1e-5)
    assert unexplained(x, x) == 0


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="on 0 rows"):
        evaluate(axes(), torch.zeros(0, 2))


def test_latent_statistics_of_a_case_worked_by_hand() -> None:
    statistics = latent_statistics(CODES)
    np.testing.assert_allclose(statistics.density, [0.5, 1.0, 0.0])
    np.testing.assert_allclose(statistics.mean_activation, [2.0, 2.75, 0.0])
    np.testing.assert_allclose(statistics.max_activation, [3.0, 4.0, 0.0])


def test_top_rows_rank_by_strength_then_row() -> None:
    top = top_rows(CODES, count=3)
    assert top.latent.tolist() == [0, 0, 1, 1, 1]
    assert top.rank.tolist() == [0, 1, 0, 1, 2]
    assert top.row.tolist() == [3, 1, 1, 2, 0]
    assert top.activation.tolist() == [3, 1, 4, 4, 2]


def test_empty_codes_have_empty_statistics() -> None:
    for rows in (0, 4):
        codes = csr_array((rows, 3), dtype=np.float32)
        assert not latent_statistics(codes).density.any()
        assert len(top_rows(codes).latent) == 0
