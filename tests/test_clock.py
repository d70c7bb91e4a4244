"""A clock that jumps decides nothing: order is by step, and who waits for time to pass does not wait for ever."""

from __future__ import annotations

import os
import time
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from torch import nn

from dynamics.files.layout import RunDirectory
from dynamics.files.results import tracking_record, write_tracking
from dynamics.files.snapshots import snapshots
from dynamics.pipeline.publishing import publish_if_due
from dynamics.recorder import Recorder
from dynamics.schedule import every
from dynamics.store.store import query
from tests.small_runs import MakeRun, add_snapshot

HOUR = 3600.0


@pytest.fixture
def backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the clock shows an hour less."""
    now, hours = time.time(), count()
    monkeypatch.setattr(time, "time", lambda: now - HOUR * next(hours))


@pytest.mark.usefixtures("backwards")
def test_snapshots_are_in_the_order_of_their_steps(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    for steps in (range(3), range(3, 6)):
        with Recorder(tmp_path / "run", "0", torch.ones(4, 3), schedule=every(1), work="later") as recorder:
            for step in steps:
                nn.init.constant_(model[0].weight, step)
                recorder.step(model, step)
    found = snapshots(RunDirectory.open(tmp_path / "run"), "0")
    assert [(record.branch, record.step) for record in found] == [("b0", step) for step in range(6)]


@pytest.mark.usefixtures("backwards")
def test_the_newest_result_is_the_one_that_came_last(make_run: MakeRun) -> None:
    run = make_run(0)
    for inputs in ("z", "a", "m"):
        write_tracking(run, "blocks.0", inputs, {"tracks": pa.table({"track": [1]})}, [])
        newest = tracking_record(run, "blocks.0")
        assert newest is not None
        assert newest.inputs == inputs


def test_what_was_published_in_the_future_is_published_again(make_run: MakeRun) -> None:
    run = make_run(1)
    assert publish_if_due(run)
    later = time.time() + HOUR
    os.utime(run.history, (later, later))
    add_snapshot(run, "blocks.0", 10)
    assert publish_if_due(run)
    assert query(run, "select count(*) as n from checkpoints").to_pylist() == [{"n": 2}]
