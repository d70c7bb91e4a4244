"""The small facts of a run."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
import torch

from dynamics.files import (
    DamagedError,
    RunDirectory,
    SaeRecord,
    load_level,
    load_recording,
    load_settings,
    write_level,
    write_recording,
    write_sae,
    write_settings,
)
from dynamics.files.settings import unchanged_settings
from dynamics.sae.config import SaeConfig


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run")


def add_sae(run: RunDirectory, *, imported: bool = False) -> None:
    facts = {"architecture": "relu", "fvu": 0.1, "l0": 2.0, "dead": 0.0, "imported": imported}
    record = SaeRecord(site="a", arm="chain", step=int(imported), n_latents=3, **facts)
    latents = pa.table({"latent": [0], "density": [0.5], "mean_activation": [1.0], "max_activation": [2.0]})
    write_sae(run, record, {"b_dec": torch.zeros(2)}, latents)


def test_settings_can_be_changed_until_an_sae_was_trained(run: RunDirectory) -> None:
    first, second = SaeConfig(k=4), SaeConfig(k=5)
    write_settings(run, first)
    write_settings(run, second)
    add_sae(run, imported=True)
    write_settings(run, first)
    assert load_settings(run) == first
    add_sae(run)
    with pytest.raises(ValueError, match="k is 4, given 5"):
        write_settings(run, second)
    assert load_settings(run) == first


def test_settings_that_were_changed_meanwhile_are_noticed(run: RunDirectory) -> None:
    write_settings(run, SaeConfig(k=4))
    with unchanged_settings(run, SaeConfig(k=4)):
        pass
    with pytest.raises(RuntimeError, match="changed meanwhile"), unchanged_settings(run, SaeConfig(k=5)):
        pass


def test_settings_stand_and_differences_are_named(run: RunDirectory) -> None:
    assert load_settings(run) is None
    config = SaeConfig(n_latents=64, k=4)
    write_settings(run, config)
    write_settings(run, config)
    add_sae(run)
    with pytest.raises(ValueError, match=r"other SAE settings: n_latents is 64, given 128, seed is 0, given 1; leave"):
        write_settings(run, SaeConfig(n_latents=128, k=4, seed=1))
    assert load_settings(run) == config
    with pytest.raises(ValueError, match=r"n_latents is 64, given the default, k is 4, given 2; leave"):
        write_settings(run, SaeConfig(k=2))


def test_damaged_settings_are_named(run: RunDirectory) -> None:
    (run.path / "settings.json").write_text('{"n_latents": 0}')
    with pytest.raises(DamagedError, match=r"settings\.json is damaged \(n_latents must be at least 1, got 0\)"):
        load_settings(run)
    (run.path / "settings.json").write_text("[")
    with pytest.raises(DamagedError, match="it is no JSON object"):
        load_settings(run)


def test_the_level_is_a_tenth_unless_set(run: RunDirectory) -> None:
    assert load_level(run) == 0.1
    write_level(run, 0.05)
    assert load_level(run) == 0.05
    with pytest.raises(ValueError, match=r"must lie between 0 and 1, got 1\.0"):
        write_level(run, 1.0)


def test_the_recording_marker_has_three_states(run: RunDirectory) -> None:
    assert load_recording(run) is None
    write_recording(run, closed=False)
    assert load_recording(run) is False
    write_recording(run, closed=True)
    assert load_recording(run) is True
