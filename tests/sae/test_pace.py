"""How large the steps of a training are, and what is done about silent latents at which of them."""

from __future__ import annotations

import pytest

from dynamics.sae import SaeConfig
from dynamics.sae.pace import Pace, default_learning_rate


def test_the_learning_rate_falls_with_the_root_of_the_latents() -> None:
    assert default_learning_rate(4096) == pytest.approx(2 * default_learning_rate(4 * 4096))
    assert default_learning_rate(1) == 3e-2
    assert default_learning_rate(1, warm=True) == 1e-2


@pytest.mark.parametrize("warm", [False, True])
def test_the_rate_rises_to_its_peak_and_falls_to_nearly_nothing(warm: bool) -> None:
    pace = Pace.of(SaeConfig(learning_rate=0.1), 64, 1000, warm=warm)
    rates = [pace.rate(done) for done in range(1000)]
    assert max(rates) == pytest.approx(0.025 if warm else 0.1, rel=0.01)
    peak = rates.index(max(rates))
    assert rates[:peak] == sorted(rates[:peak])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
    assert 0 < rates[-1] < 0.01 * max(rates)


@pytest.mark.parametrize("steps", [1, 7, 1500])
def test_silent_latents_start_anew_in_the_first_half_and_are_woken_in_the_second(steps: int) -> None:
    pace = Pace.of(SaeConfig(), 64, steps, warm=False)
    looks = [done for done in range(steps + 1) if pace.looks(done)]
    assert len(looks) == min(10, steps // 2)
    assert all(done <= steps / 2 for done in looks)
    assert all((pace.urge(done) > 0) == (done >= steps / 2) for done in range(steps))


def test_a_warm_start_leaves_silent_latents_as_they_are() -> None:
    pace = Pace.of(SaeConfig(), 64, 100, warm=True)
    assert not any(pace.looks(done) or pace.urge(done) for done in range(101))
