"""Losses with reconstructions in a site's place: exact ones cost nothing, none cost as much as zeros."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from dynamics.capture import Probe, fingerprint, loss_recovered, read_activations
from dynamics.sae import SaeConfig, SparseAutoencoder, initial, train
from dynamics.sae.scaling import Scaling

D = 16


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, D)
        self.block = nn.TransformerEncoderLayer(D, 2, 32, dropout=0.1, batch_first=True, norm_first=True)
        self.head = nn.Linear(D, 11)

    def forward(self, ids: Tensor) -> Tensor:
        mask = torch.full((ids.shape[1], ids.shape[1]), float("-inf")).triu(1)
        return self.head(self.block(self.embedding(ids), src_mask=mask))


def next_id(model: Any, ids: Tensor) -> Tensor:
    return cross_entropy(model(ids)[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


@pytest.fixture(scope="module")
def trained() -> tuple[Transformer, Tensor]:
    """A transformer that knows that the next number is one more, and such rows of numbers."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Transformer()
        ids = (torch.randint(11, (70, 1)) + torch.arange(9)) % 11
        adam = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(60):
            adam.zero_grad()
            next_id(model, ids).backward()
            adam.step()
    return model, ids


def identity() -> SparseAutoencoder:
    both = torch.cat([torch.eye(D), -torch.eye(D)])
    tensors = {"W_enc": both.T, "b_enc": torch.zeros(2 * D), "W_dec": both, "b_dec": torch.zeros(D)}
    return SparseAutoencoder.from_tensors(tensors, "relu")


def silent() -> SparseAutoencoder:
    return SparseAutoencoder.from_tensors({**identity().tensors(), "b_enc": torch.full((2 * D,), -1e6)}, "relu")


def test_what_is_exact_costs_nothing_and_what_is_silent_all(trained: tuple[Transformer, Tensor]) -> None:
    model, ids = trained
    probe = Probe.freeze(ids)
    exact, nothing = (loss_recovered(model, "block", sae, probe, next_id) for sae in (identity(), silent()))
    assert exact.ce_loss_score == pytest.approx(1, abs=1e-4)
    assert nothing.ce_loss_score == 0
    model.eval()
    assert exact.ce_loss_without_sae == pytest.approx(next_id(model, ids).item(), rel=1e-5)
    model.head.weight.data, kept = 0 * model.head.weight, model.head.weight.data
    assert exact.ce_loss_with_ablation == pytest.approx(next_id(model, ids).item(), rel=1e-5)
    model.head.weight.data = kept


def test_a_trained_sae_recovers_most_and_a_fresh_one_less(trained: tuple[Transformer, Tensor]) -> None:
    model, ids = trained
    probe = Probe.freeze(ids)
    x = read_activations(model, probe, ["block"])["block"]
    scaling = Scaling.of(x)
    config, generator = SaeConfig(n_latents=12, k=1, batch_size=128), torch.Generator().manual_seed(0)
    start = initial(scaling.apply(x), config, generator)
    fitted, _ = train(start, scaling.apply(x), config, steps=300, generator=generator)
    scores = [
        loss_recovered(model, "block", sae.to_raw(scaling.mean, scaling.scale), probe, next_id).ce_loss_score
        for sae in (start, fitted)
    ]
    assert scores[0] < scores[1] - 0.01, scores
    assert 0.8 < scores[1] <= 1.01


def test_the_model_is_left_as_it_was_and_masked_rows_too(trained: tuple[Transformer, Tensor]) -> None:
    model, ids = trained
    model.train()
    before, state = fingerprint(model), torch.random.get_rng_state()
    mask = torch.zeros(ids.shape, dtype=torch.bool)
    mask[:, 0] = True
    some = loss_recovered(model, "block", silent(), Probe.freeze(ids, mask=mask), next_id)
    whole = loss_recovered(model, "block", silent(), Probe.freeze(ids), next_id)
    assert some.ce_loss_without_sae < some.ce_loss_with_sae < 0.5 * whole.ce_loss_with_sae
    assert fingerprint(model) == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training
    assert not model.block._forward_hooks


def test_images_and_tuples_are_spliced_too() -> None:
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, int]:
            return torch.relu(x), 7

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pair = Pair()

        def forward(self, x: Tensor) -> Tensor:
            found, seven = self.pair(x)
            assert seven == 7
            return found

    probe = Probe.freeze(torch.randn(5, D, 3, 2, generator=torch.Generator().manual_seed(0)))
    found = loss_recovered(Model(), "pair", identity(), probe, lambda model, x: (model(x) - x).square().mean())
    assert found.ce_loss_score == pytest.approx(1, abs=1e-5)
    assert found.ce_loss_with_ablation == pytest.approx(float(torch.cat(probe.batches).square().mean()))


def test_what_cannot_be_spliced_is_refused(trained: tuple[Transformer, Tensor]) -> None:
    model, ids = trained
    probe = Probe.freeze(ids)
    with pytest.raises(ValueError, match=r"no module matches site \"?'blok'.*did you mean 'block'"):
        loss_recovered(model, "blok", identity(), probe, next_id)
    with pytest.raises(ValueError, match="one site is wanted, '\\*' matches embedding, block, head"):
        loss_recovered(model, "*", identity(), probe, next_id)
    with pytest.raises(ValueError, match="SAE expects width 16, activations have 11"):
        loss_recovered(model, "head", identity(), probe, next_id)
    with pytest.raises(ValueError, match="the site was not called"):
        loss_recovered(model, "head", identity(), probe, lambda model, ids: model.embedding(ids).sum())
    with pytest.raises(ValueError, match="it does not depend on this site"):
        loss_recovered(model, "block", identity(), probe, lambda model, ids: 0 * model(ids).sum())
