"""What the settings resolve to, and what they refuse."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dynamics.sae import SaeConfig


@pytest.mark.parametrize(("d_in", "n_latents", "k"), [(64, 512, 16), (128, 1024, 32), (512, 4096, 32), (2, 16, 1)])
def test_defaults_follow_the_width(d_in: int, n_latents: int, k: int) -> None:
    resolved = SaeConfig().resolved(d_in)
    assert (resolved.n_latents, resolved.k) == (n_latents, k)


def test_what_was_given_is_kept() -> None:
    assert SaeConfig(n_latents=40, k=5).resolved(64) == SaeConfig(n_latents=40, k=5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_latents": 0}, "n_latents must be at least 1, got 0"),
        ({"steps": -1}, "steps must be at least 1, got -1"),
        ({"n_latents": 4, "k": 8}, "n_latents must be at least k, got n_latents 4 and k 8"),
        ({"chain_share": 0.0}, "chain_share in"),
        ({"held_out": 1.0}, "held_out in"),
        ({"l1": -1.0}, "l1 >= 0"),
        ({"learning_rate": 0.0}, "learning_rate > 0"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SaeConfig(**settings)


def test_a_misspelt_architecture_is_told_the_nearest() -> None:
    unchecked: Any = SimpleNamespace(architecture="top_k")  # the type checker of the tests would speak first
    with pytest.raises(ValueError, match=r"unknown architecture 'top_k'; did you mean 'topk'\? There are: topk, relu"):
        SaeConfig.__post_init__(unchecked)


def test_fewer_latents_than_the_default_k_are_refused_once_the_width_is_known() -> None:
    with pytest.raises(ValueError, match="n_latents must be at least k"):
        SaeConfig(n_latents=4).resolved(128)
