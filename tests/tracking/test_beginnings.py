from __future__ import annotations

import numpy as np
import pytest

from dynamics.tracking.beginnings import SEEN, Beginnings, beginnings
from dynamics.tracking.timeline import Timeline
from tests.tracking import gallery


def timeline(name: str) -> Timeline:
    f = gallery.followed(name)
    return Timeline(f.carrying, f.tracks)


def of_latent(t: Timeline, index: int, latent: int) -> tuple[Beginnings, int]:
    position = int(np.flatnonzero(t.carrying.series[t.place(index)].latents == latent)[0])
    return beginnings(t, index), position


def real_score() -> float:
    """What a birth scores."""
    found, n = of_latent(timeline("birth"), 3, 0)
    return float(found.score[n])


@pytest.mark.parametrize(
    ("name", "latent", "first_seen", "date"),
    [
        ("birth", 0, 3, 3),
        ("late_birth", 0, 4, 3),
        ("growth", 0, 4, 3),
        ("seedling", 0, 2, 3),
        ("transient", 0, 2, 2),
        ("bud", 1, 3, 3),
    ],
)
def test_a_feature_begins_where_the_model_begins_to_carry_it(
    name: str, latent: int, first_seen: int, date: int
) -> None:
    found, n = of_latent(timeline(name), first_seen, latent)
    assert found.date[n] == date
    assert found.score[n] == found.score.max() > 2 * np.delete(found.score, n).max()
    assert found.before[n] < 0.2
    assert found.after[n] > 0.8


def test_read_backwards_an_end_is_a_beginning() -> None:
    t = timeline("death").flipped()
    found, n = of_latent(t, 3, 0)
    assert t.place(3) == 3
    assert t.place(int(found.date[n])) == 3
    assert found.score[n] == found.score.max() > 2 * np.delete(found.score, n).max()


@pytest.mark.parametrize("name", ["still", "noise", "space_turn", "rescaled", "rotation", "drift"])
@pytest.mark.parametrize("backwards", [False, True])
def test_nothing_begins_or_ends_where_features_go_on(name: str, backwards: bool) -> None:
    t = timeline(name).flipped() if backwards else timeline(name)
    for index in range(1, len(t)):
        assert beginnings(t, index).score.max() < real_score() / 2


@pytest.mark.parametrize(("name", "latents"), [("duplicate", [1, 2]), ("torn", [1, 2]), ("split", [1, 2])])
def test_a_latent_that_the_dictionary_adds_to_what_was_there_is_no_beginning(name: str, latents: list[int]) -> None:
    t = timeline(name)
    for latent in latents:
        found, n = of_latent(t, 3, latent)
        assert found.score[n] < real_score() / 2


class Told(Timeline):
    """A single latent that goes on from place 3 to the next, with presences as told: rows its places, columns all."""

    def __init__(self, presence: dict[int, list[float]]) -> None:
        self.told = presence

    def __len__(self) -> int:
        return len(self.told[3])

    def presence(self, source: int, target: int) -> np.ndarray:
        return np.array([self.told[source][target] if source in self.told else 0.0])

    def position_at(self, index: int, other: int) -> np.ndarray:
        return np.array([0 if other in self.told else -1])

    def blur(self, index: int) -> np.ndarray:
        return np.array([0.25])


def test_a_latent_that_fits_noise_at_two_checkpoints_is_no_beginning() -> None:
    """At its own checkpoint anything is wholly present; what it fits there is told by the others."""
    fits_noise = Told({3: [0.1, 0.1, 0.1, 1, 0.4, 0.1], 4: [0.1, 0.1, 0.1, 0.4, 1, 0.1]})
    feature = Told({3: [0.1, 0.1, 0.1, 1, 0.9, 0.9], 4: [0.1, 0.1, 0.1, 0.9, 1, 0.9]})
    assert beginnings(fits_noise, 3).after < 0.5
    assert beginnings(feature, 3).after == pytest.approx(0.9)


@pytest.mark.parametrize("name", gallery.NAMES)
def test_scores_are_numbers_and_dates_are_places_nearby(name: str) -> None:
    t = timeline(name)
    for reading in (t, t.flipped()):
        for index in range(1, len(reading)):
            found = beginnings(reading, index)
            assert len(found.score) == len(reading.track_of(index))
            assert np.isfinite([found.score, found.before, found.after]).all()
            assert np.all((found.date >= 0) & (found.date <= min(index + SEEN, len(reading) - 1)))
            assert np.all(found.score >= 0)
