from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from dynamics.tracking import Checkpoint, Series, live_checkpoint
from dynamics.tracking.checkpoint import fewest_rows


@pytest.mark.parametrize(("rows", "fewest"), [(10, 3), (6_000, 3), (10_000, 5), (20_000, 10), (1_000_000, 10)])
def test_a_latent_is_tracked_from_one_row_in_two_thousand_on(rows: int, fewest: int) -> None:
    assert fewest_rows(rows) == fewest


def made(fires: list[int], rows: int = 50) -> Checkpoint:
    """A checkpoint whose latents fire on so many rows each."""
    z = np.zeros((rows, len(fires)))
    for latent, count in enumerate(fires):
        z[:count, latent] = latent + 1
    decoder = np.eye(len(fires), 8, dtype=np.float32)
    return live_checkpoint(7, np.zeros((rows, 8), np.float32), sp.csr_array(z), decoder, 2.0)


def test_only_live_latents_are_kept_and_map_back() -> None:
    found = made([0, 3, 2, 50])
    assert found.latents.tolist() == [1, 3]
    assert (found.step, found.scale, found.n_live, found.n_rows) == (7, 2.0, 2, 50)
    assert found.codes.shape == (50, 2)
    assert found.codes.dtype == np.float32
    assert found.codes.toarray().max(axis=0).tolist() == [2, 4]
    assert found.decoder.tolist() == np.eye(4, 8)[[1, 3]].tolist()


def test_a_dictionary_may_have_no_live_latent_or_no_latent_at_all() -> None:
    assert made([0, 1, 2]).n_live == 0
    assert made([]).n_live == 0


def test_memory_counts_activations_and_codes() -> None:
    assert made([10]).n_bytes == 50 * 8 * 4 + 10 * 4 + 10 * 4


class Loads:
    """Makes checkpoints and remembers which."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, index: int) -> Checkpoint:
        self.asked.append(index)
        return made([5], rows=50 + index)


def test_a_series_loads_a_checkpoint_when_it_is_asked_for_and_keeps_it() -> None:
    loads = Loads()
    series = Series([0, 10, 20], loads)
    assert len(series) == 3
    assert series.steps == [0, 10, 20]
    assert loads.asked == []
    assert [c.n_rows for c in series] == [50, 51, 52]
    assert [c.n_rows for c in series] == [50, 51, 52]
    assert loads.asked == [0, 1, 2]


def test_a_series_drops_what_was_not_used_for_longest_but_keeps_four() -> None:
    loads = Loads()
    series = Series(range(6), loads, memory=0.0)
    for index in (0, 1, 2, 3, 0, 4):
        series[index]
    for index in (0, 2, 3, 4):
        series[index]
    assert loads.asked == [0, 1, 2, 3, 4]
    series[1]
    assert loads.asked == [0, 1, 2, 3, 4, 1]
