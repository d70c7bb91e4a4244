"""The arms of a site: independent fits, warm starts, null chains, and the gate between warm and cold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from dynamics.sae.config import SaeConfig
from dynamics.sae.metrics import Metrics, evaluate
from dynamics.sae.series import (
    WORSE_DEAD,
    WORSE_FVU,
    Fit,
    Scaling,
    better,
    fit_independent,
    fit_next,
    gate_fails,
    held_out_rows,
    null_activations,
)

ROWS, WIDTH, FEATURES = 1500, 16, 24
SEQUENCE = np.arange(ROWS) // 10
HELD_OUT = held_out_rows(SEQUENCE, 0.1)
CONFIG = SaeConfig(n_latents=32, k=3, steps=120, batch_size=256, chain_share=0.25)


def activations(seed: int = 0, features: int = FEATURES) -> Tensor:
    """Raw; the same features whatever the seed, on other rows."""
    directions = np.random.default_rng(100).standard_normal((FEATURES, WIDTH))[:features] / WIDTH**0.5
    rng = np.random.default_rng(seed)
    codes = (rng.random((ROWS, features)) < 0.1) * rng.lognormal(0, 0.3, (ROWS, features))
    return torch.from_numpy((codes @ directions + 0.02 * rng.standard_normal((ROWS, WIDTH))).astype(np.float32))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def first() -> Fit:
    return fit_independent(activations(), HELD_OUT, CONFIG, generator())


def test_held_out_are_whole_sequences():
    for name in range(ROWS // 10):
        assert len(set(HELD_OUT[name == SEQUENCE])) == 1
    assert HELD_OUT.mean() == pytest.approx(0.1)
    np.testing.assert_array_equal(held_out_rows(SEQUENCE + 7, 0.1), HELD_OUT)


def test_something_is_held_out_wherever_something_is_left_to_train_on():
    assert held_out_rows(np.array([0, 0, 1]), 0.01).any()
    assert not held_out_rows(np.array([0, 0, 1]), 0.99).all()
    assert not held_out_rows(np.zeros(5, int), 0.5).any()
    assert not held_out_rows(SEQUENCE, 0.0).any()


def test_a_fit_is_in_raw_units_and_measured_on_held_out_rows(first: Fit):
    x = activations()[torch.from_numpy(HELD_OUT)]
    assert evaluate(first.sae, x).fvu == pytest.approx(first.metrics.fvu, rel=1e-3)
    assert first.metrics.fvu < 0.5
    assert not first.restarted


def test_the_same_generator_gives_the_same_fit(first: Fit):
    x, before = activations(1), Scaling.of(activations())
    one, again, other = (
        fit_next(first.sae, before, x, HELD_OUT, CONFIG, generator(seed)).sae.W_dec for seed in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_a_warm_start_keeps_what_the_latents_are(first: Fit):
    x = activations()
    warm = fit_next(first.sae, Scaling.of(x), x, HELD_OUT, CONFIG, generator())
    assert warm.log.steps == 30
    alike = (warm.sae.W_dec * first.sae.W_dec).sum(1)
    assert alike.quantile(0.25) > 0.9
    assert warm.metrics.fvu < first.metrics.fvu + 0.02


def test_growth_and_shift_of_the_activations_are_no_reason_to_relearn(first: Fit):
    x = activations()
    same, grown = (
        fit_next(first.sae, Scaling.of(x), later, HELD_OUT, CONFIG, generator()) for later in (x, 100 * x + 5)
    )
    assert grown.metrics.fvu == pytest.approx(same.metrics.fvu, abs=0.02)


def test_scaled_activations_have_mean_0_and_mean_squared_norm_d_in():
    x = 1e-6 * activations() + 3e-6
    scaling = Scaling.of(x)
    scaled = scaling.apply(x)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(WIDTH), atol=1e-4, rtol=0)
    assert scaled.square().sum(1).mean() == pytest.approx(WIDTH, rel=1e-4)
    torch.testing.assert_close(scaling.undo(scaled), x)


def test_a_warm_start_fits_a_surrogate_as_well_as_its_like(first: Fit):
    saes, snapshots = [first.sae] * 2, [activations(seed) for seed in range(2)]
    [surrogate] = null_activations(saes, snapshots, SEQUENCE, generator(5))
    fit = fit_next(first.sae, Scaling.of(snapshots[0]), surrogate, HELD_OUT, CONFIG, generator(6))
    assert fit.log.steps == 30
    assert evaluate(fit.sae, surrogate).fvu < evaluate(first.sae, surrogate).fvu + 0.01


def test_the_gate_fails_where_a_warm_start_lost_much(first: Fit):
    before = Metrics(fvu=0.2, l0=3.0, dead=0.1)
    for metrics, fails in [
        (Metrics(0.2 + 0.9 * WORSE_FVU, 3.0, 0.1), False),
        (Metrics(0.2 + 1.1 * WORSE_FVU, 3.0, 0.1), True),
        (Metrics(0.2, 3.0, 0.1 + 0.9 * WORSE_DEAD), False),
        (Metrics(0.2, 3.0, 0.1 + 1.1 * WORSE_DEAD), True),
    ]:
        assert gate_fails(replace(first, metrics=metrics), before) is fails


def test_a_cold_start_replaces_a_warm_one_only_where_it_is_much_better(first: Fit):
    warm = replace(first, metrics=Metrics(0.4, 3.0, 0.1))
    cold = replace(first, metrics=Metrics(0.3, 3.0, 0.1))
    hardly = replace(first, metrics=Metrics(0.38, 3.0, 0.1))
    assert better(warm, cold).restarted
    assert better(warm, cold).metrics == cold.metrics
    assert better(warm, hardly) is warm
