"""Gradients against autograd, planted directions found, the same seed the same SAE, input with nothing in it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from scipy.sparse import csc_array
from torch import Tensor
from torch.nn.functional import normalize

from dynamics.sae import SaeConfig, SparseAutoencoder, dense, evaluate, initial, refresh, train
from dynamics.sae.batches import Batch, SparseBatch
from dynamics.sae.config import Architecture
from dynamics.sae.dense import DenseBatch
from dynamics.sae.refresh import refreshed
from dynamics.sae.scaling import Scaling
from dynamics.sae.sparsity import OwnThresholds, WholeBatch
from dynamics.sae.threads import Crew
from dynamics.sae.training import _Trainer

SMALL = SaeConfig(n_latents=48, k=4, batch_size=256, steps=300)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def directions(count: int, width: int, seed: int = 0) -> Tensor:
    return normalize(torch.randn(count, width, generator=seeded(seed)))


def planted(truth: Tensor, *, rows: int = 4000, active: int = 3, seed: int = 1) -> Tensor:
    """Rows of a few planted directions each, the later ones rarer, plus noise; scaled to mean 0, E‖x‖² = d_in."""
    generator = seeded(seed)
    weights = (1 / torch.arange(1.0, len(truth) + 1) ** 0.5).expand(rows, -1)
    chosen = torch.multinomial(weights, active, generator=generator)
    sizes = 0.5 + torch.rand(rows, active, generator=generator)
    x = torch.zeros(rows, len(truth)).scatter_(1, chosen, sizes) @ truth
    x += 0.02 * torch.randn(x.shape, generator=generator)
    x -= x.mean(0)
    return x * (x.shape[1] / x.square().sum(1).mean()).sqrt()


def fit(x: Tensor, config: SaeConfig = SMALL, seed: int = 0) -> SparseAutoencoder:
    generator = seeded(seed)
    return train(initial(x, config, generator), x, config, steps=config.steps, generator=generator)[0]


def firing(batch: Batch) -> Tensor:
    if isinstance(batch, DenseBatch):
        return batch.codes > 0
    assert isinstance(batch, SparseBatch)
    latents = len(batch.starts) - 1
    return torch.from_numpy(
        csc_array((batch.values > 0, batch.rows, batch.starts), shape=(len(batch.x), latents)).toarray()
    )


def best_cosines(truth: Tensor, sae: SparseAutoencoder) -> Tensor:
    return (truth @ sae.W_dec.T).amax(1)


EVERY_WAY = [(kind, 1.0) for kind in get_args(Architecture)] + [("relu", 0.0)]
"""Each architecture, and the densities from which on dense products are taken."""


@pytest.mark.parametrize(("architecture", "crowded"), EVERY_WAY)
def test_gradients_are_those_of_autograd(
    architecture: Architecture, crowded: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "CROWDED", crowded)
    config = SaeConfig(architecture=architecture, n_latents=24, k=4, l1=0.7)
    x = torch.randn(60, 10, generator=seeded())
    start = replace(initial(x, config, seeded()), b_dec=torch.randn(10, generator=seeded(3)))
    start = replace(start, b_enc=torch.randn(24, generator=seeded(4)))
    trainer = _Trainer(start, x, config, 1, seeded(), Crew(None), warm=True)
    batch = trainer._seen(x)
    [shard] = trainer.shards
    ours, said = shard.gradients(batch, trainer.l1)
    ours.append(2 * batch.error[:, 0].mean(0) - said.pull)

    encoder, b_enc, decoder, b_dec = (p.clone().requires_grad_() for p in trainer.parameters)
    f = torch.relu((x - b_dec) @ encoder.T + b_enc) * firing(batch)
    ends = (1, 3, 6, 12, 24) if architecture == "matryoshka" else (24,)
    errors = [(f[:, :end] @ decoder[:end] + b_dec - x).square().sum(1).mean() for end in ends]
    weights = 0.7 ** torch.arange(len(ends) - 1, -1, -1.0)
    loss = torch.stack(errors) @ weights / weights.sum() + (0.7 * f.sum(1).mean() if architecture == "relu" else 0.0)
    theirs = list(torch.autograd.grad(loss, [encoder, b_enc, decoder, b_dec]))
    theirs[2] = theirs[2] - (theirs[2] * decoder).sum(1, keepdim=True) * decoder
    for mine, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, expected.detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["batch_topk", "jump_relu", "matryoshka"])
def test_k_latents_fire_on_a_row_in_the_mean(architecture: Architecture) -> None:
    truth = directions(32, 24)
    x = planted(truth)
    sae = fit(x[:3000], replace(SMALL, architecture=architecture))
    found = evaluate(sae, x[3000:])
    assert found.l0 == pytest.approx(4, rel=0.1)
    assert found.fvu < 0.1
    assert float(best_cosines(truth, sae).mean()) > (0.85 if architecture == "matryoshka" else 0.93)
    counts = np.diff(sae.encode_sparse(x).indptr)
    assert counts.min() < 4 < counts.max(), "rows differ in how many latents fire"


def test_thresholds_are_one_for_all_or_learned_by_each() -> None:
    x = planted(directions(32, 24))
    common, own = (fit(x, replace(SMALL, architecture=kind)).threshold for kind in ("batch_topk", "jump_relu"))
    assert common is not None
    assert own is not None
    assert float(common.std()) < 1e-6 < 1e-3 < float(own.std() / own.mean())
    assert float(own.min()) > 0


def test_a_threshold_rises_where_faint_codes_are_worth_less() -> None:
    rule = OwnThresholds(1.0, torch.ones(2))
    x = torch.tensor([[1.01, 0.0], [0.0, 1.01], [1.01, 0.0], [0.0, 1.01]])
    codes = rule.codes(x, torch.eye(2), torch.zeros(2), Crew(None))
    batch = SparseBatch.of(x, codes, torch.eye(2), torch.zeros(2, dtype=torch.int32), Crew(None))
    rule.learn(batch, torch.tensor([-1.0, -1.0, 0.0, 0.0]), 0.1)
    assert rule.relative[0] < 1 < rule.relative[1]


def test_where_fewer_are_positive_all_of_them_fire() -> None:
    rule = WholeBatch(2.0, torch.ones(3))
    x = torch.tensor([[0.1, -1.0, -1.0], [-1.0, 0.2, 3.0]])
    assert rule.codes(x, torch.eye(3), torch.zeros(3), Crew(None)).toarray().tolist() == x.clamp_min(0).tolist()


def test_nested_latents_put_what_matters_first() -> None:
    truth = directions(32, 24)
    x = planted(truth)
    sae = fit(x, replace(SMALL, architecture="matryoshka", n_latents=64))
    density = np.bincount(sae.encode_sparse(x).indices, minlength=64) / len(x)
    assert density[:16].mean() > 2 * density[16:].mean()


@pytest.mark.parametrize("architecture", ["batch_topk", "jump_relu", "matryoshka"])
def test_at_first_each_row_has_its_own_strongest_latents(architecture: Architecture) -> None:
    x = planted(directions(32, 24))
    start = initial(x, replace(SMALL, architecture=architecture), seeded())
    for warm, done in ((False, 0), (False, 50), (True, 0)):
        trainer = _Trainer(start, x, SMALL, 100, seeded(), Crew(None), warm=warm)
        trainer.losses = [0.0] * done
        counts = firing(trainer._seen(x[:256])).sum(1)
        assert bool((counts == 4).all()) == (not warm and done == 0)
        assert float(counts.float().mean()) == pytest.approx(4, rel=0.01)


def test_features_that_are_often_together_are_found_under_a_common_threshold() -> None:
    truth = directions(96, 48)
    generator = seeded(1)
    amounts = (torch.rand(8192, 96, generator=generator) < 0.1) * (0.5 + torch.rand(8192, 96, generator=generator))
    x = amounts @ truth + 0.05 * torch.randn(8192, 48, generator=generator)
    x = Scaling.of(x).apply(x)
    config = SaeConfig(architecture="batch_topk", n_latents=192, k=10, batch_size=512, steps=400)
    found = best_cosines(truth, fit(x, config))
    assert float(found.mean()) > 0.88, "0.94; 0.77 where the whole batch decides from the first step on"


def test_imported_thresholds_are_trained_at_the_sparsity_that_they_have() -> None:
    x = planted(directions(32, 24))
    start = replace(fit(x, replace(SMALL, architecture="jump_relu")), k=None)
    sae, _ = train(start, x, SMALL, steps=20, generator=seeded())
    assert evaluate(sae, x).l0 == pytest.approx(evaluate(start, x).l0, rel=0.05)
    assert sae.k is None


def test_planted_directions_are_found() -> None:
    truth = directions(32, 24)
    x = planted(truth)
    sae = fit(x)
    assert float(best_cosines(truth, sae).mean()) > 0.97
    assert evaluate(sae, x).fvu < 0.1
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(48))


def test_relu_finds_planted_directions_and_its_penalty_makes_codes_sparse() -> None:
    truth = directions(32, 24)
    x = planted(truth)
    weak, strong = (fit(x, replace(SMALL, architecture="relu", l1=l1)) for l1 in (0.1, 2.0))
    assert evaluate(x=x, sae=strong).l0 < 0.7 * evaluate(weak, x).l0
    assert float(best_cosines(truth, strong).mean()) > 0.9


def test_a_warm_start_finds_what_is_new_and_keeps_what_is_not() -> None:
    truth = directions(32, 24)
    sae = fit(planted(truth), replace(SMALL, steps=400))
    changed = truth.clone()
    changed[::10] = directions(4, 24, seed=5)
    config = replace(SMALL, steps=100)
    x = planted(changed)
    start, _ = refreshed(sae, x, seeded())
    warm, _ = train(start, x, config, steps=config.steps, generator=seeded(), warm=True)
    cosines = best_cosines(changed, warm)
    assert float(cosines[::10].mean()) > 0.9
    assert float(cosines[::10].min()) > 0.7
    assert float(cosines.mean()) > 0.97
    home = (sae.W_dec @ truth.T).amax(0).gt(0.95)
    home[::10] = False
    stays = (sae.W_dec * warm.W_dec).sum(1)[(sae.W_dec @ truth.T).argmax(0)[home]]
    assert float(stays.median()) > 0.95, "latents keep their index"


def silenced(sae: SparseAutoencoder, which: Tensor, bias: float) -> SparseAutoencoder:
    return replace(sae, b_enc=torch.where(which, bias, sae.b_enc))


def test_silent_latents_start_anew_where_features_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    truth = directions(32, 24)
    x = planted(truth)
    start = silenced(initial(x, SMALL, seeded()), torch.arange(48) < 24, -100.0)
    sae, log = train(start, x, SMALL, steps=300, generator=seeded())
    assert log.revived > 0
    assert float(best_cosines(truth, sae).mean()) > 0.93
    monkeypatch.setattr(refresh, "TELLING", math.inf)
    left, log = train(start, x, SMALL, steps=300, generator=seeded())
    assert log.revived == 0
    assert float(best_cosines(truth, left).mean()) < 0.9


def test_silent_latents_are_woken_unless_the_start_is_a_warm_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refresh, "TELLING", math.inf)
    x = planted(directions(32, 24))
    start = silenced(initial(x, SMALL, seeded()), torch.arange(48) < 24, -6.0)
    assert evaluate(start, x).dead > 0.4
    woken, _ = train(start, x, SMALL, steps=400, generator=seeded())
    assert evaluate(woken, x).dead < 0.1
    left, _ = train(start, x, SMALL, steps=400, generator=seeded(), warm=True)
    assert evaluate(left, x).dead > 0.3


def test_dense_and_sparse_products_train_the_same_sae(monkeypatch: pytest.MonkeyPatch) -> None:
    x = planted(directions(32, 24))
    config = replace(SMALL, architecture="relu", k=24)
    fits = []
    for crowded in (0.0, 0.3, 1.0):
        monkeypatch.setattr(dense, "CROWDED", crowded)
        start = initial(x, config, seeded())
        fits.append(train(start, x, config, steps=20, generator=seeded()))
    for sae, log in fits[1:]:
        torch.testing.assert_close(sae.W_dec, fits[0][0].W_dec, atol=1e-3, rtol=0)
        assert log.losses == pytest.approx(fits[0][1].losses, rel=1e-4)


def test_where_many_latents_fire_products_are_dense() -> None:
    x = planted(directions(32, 24))
    for k, kind in ((2, SparseBatch), (24, DenseBatch)):
        start = initial(x, replace(SMALL, architecture="relu", k=k), seeded())
        assert type(_Trainer(start, x, SMALL, 1, seeded(), Crew(None), warm=False)._seen(x[:256])) is kind


@pytest.mark.parametrize(("architecture", "crowded"), EVERY_WAY)
def test_the_seed_decides_and_nothing_else(
    architecture: Architecture, crowded: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "CROWDED", crowded)
    monkeypatch.setattr("dynamics.sae.threads.WORTH_SHARING", 0)
    x = planted(directions(32, 24))
    config = replace(SMALL, steps=40, architecture=architecture)
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    try:
        first = fit(x, config)
        torch.set_num_threads(2)
        second = fit(x, config)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(torch.random.get_rng_state(), state)
    for name, tensor in first.tensors().items():
        assert torch.equal(tensor, second.tensors()[name])
    assert not torch.equal(first.W_dec, fit(x, config, seed=1).W_dec)


def test_the_start_is_left_as_it_was_and_steps_are_told() -> None:
    x = planted(directions(32, 24))
    start = initial(x, SMALL, seeded())
    before, told = start.W_dec.clone(), list[int]()
    _, log = train(start, x, SMALL, steps=5, generator=seeded(), on_step=told.append)
    assert torch.equal(start.W_dec, before)
    assert told == [1, 2, 3, 4, 5]
    assert log.steps == len(log.losses) == 5


@pytest.mark.parametrize("architecture", get_args(Architecture))
@pytest.mark.parametrize("kind", ["zeros", "constant", "rank one", "one row", "tiny"])
def test_input_with_little_in_it_gives_finite_numbers(architecture: Architecture, kind: str) -> None:
    line = torch.linspace(-1, 1, 50)[:, None] * torch.ones(8)
    cases = {"zeros": 0 * line, "constant": 0 * line + 3, "rank one": line, "one row": line[:1], "tiny": 1e-25 * line}
    x = cases[kind]
    config = SaeConfig(architecture=architecture, n_latents=16, k=2, steps=30)
    metrics = evaluate(fit(x, config), x)
    assert all(torch.isfinite(torch.tensor([metrics.fvu, metrics.l0, metrics.dead])))
    assert metrics.l0 <= (2 if architecture == "topk" else 16)


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [(kind, {"learning_rate": 1e30}) for kind in get_args(Architecture)]
    + [("topk", {"learning_rate": 1e6}), ("relu", {"learning_rate": 1e6}), ("relu", {"l1": 1e6})],
)
def test_a_mad_setting_ends_in_finite_weights(architecture: Architecture, settings: dict[str, float]) -> None:
    config = SaeConfig(architecture=architecture, n_latents=48, k=4, steps=20, **settings)
    sae = fit(planted(directions(32, 24)), config)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in sae.tensors().values())


def test_what_cannot_be_trained_is_refused() -> None:
    x = planted(directions(32, 24))
    start = initial(x, SMALL, seeded())
    with pytest.raises(ValueError, match="SAE expects width 24, activations have 8"):
        train(start, torch.zeros(4, 8), SMALL, steps=1, generator=seeded())
    with pytest.raises(ValueError, match="NaN or infinite numbers"):
        train(start, x * torch.inf, SMALL, steps=1, generator=seeded())
    with pytest.raises(ValueError, match="0 rows"):
        initial(x[:0], SMALL, seeded())
