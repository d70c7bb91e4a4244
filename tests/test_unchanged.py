"""A network that does not change between checkpoints has no events, whatever retraining its SAEs does."""

from __future__ import annotations

from pathlib import Path

import pytest

import dynamics
from studies.planted.config import WorldConfig, preset
from studies.planted.runs import Settings, analyzed
from studies.planted.worlds import World

SMALL = {"features": 32, "rows": 2500, "checkpoints": 8, "active": 3.0, "d": 24, "topics": 6}


def world(name: str) -> World:
    config: WorldConfig = preset(name, **SMALL)
    return World(config, seed=3)


@pytest.mark.parametrize("name", ["still", "nothing"])
def test_a_network_that_does_not_change_has_no_events(name: str, tmp_path: Path) -> None:
    """``still``: the same rows at every checkpoint; ``nothing``: the same features, all noise fresh."""
    run = analyzed(world(name), tmp_path, Settings(latents=2.0)).run
    assert run.sql("select * from events").num_rows == 0
    assert run.sql("select count(*) as n from event_candidates where arm = 'null'").to_pylist()[0]["n"] > 0
    links = run.sql("select avg(links) as links from pairs where arm = 'chain' and candidates > 100").to_pylist()
    assert links[0]["links"] > 0.6 * SMALL["features"]  # the features go on; the other latents fire on noise


def test_the_same_detector_finds_what_does_change(tmp_path: Path) -> None:
    run = analyzed(world("hard"), tmp_path, Settings(latents=2.0)).run
    found = run.sql("select kind, count(*) as n from events group by kind").to_pylist()
    assert sum(row["n"] for row in found) > 0, found
    assert dynamics.open(run.path).sql("select max(q_value) as q from events").to_pylist()[0]["q"] <= 0.1
