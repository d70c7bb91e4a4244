"""A training that goes back, or that somebody else records at the same time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from dynamics.files import RunDirectory, load_activations, snapshots
from dynamics.recorder import Recorder
from dynamics.schedule import every
from dynamics.summary import status_text

X = torch.ones(4, 3)


def model_of(value: float) -> nn.Sequential:
    model = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 2))
    for parameter in model.parameters():
        nn.init.constant_(parameter, value)
    return model


def recorder_of(path: Path, **settings: Any) -> Recorder:
    given = {"sites": "0", "schedule": every(10), "work": "later", "on_error": "raise"} | settings
    return Recorder(path / "run", given.pop("sites"), X, **given)


def record(recorder: Recorder, values: dict[int, float]) -> list[int]:
    return [step for step, value in values.items() if recorder.step(model_of(value), step)]


def values(path: Path, branch: str | None = None) -> dict[int, float]:
    run = RunDirectory.open(path / "run")
    return {r.step: float(load_activations(run, r)[0, 0]) / 3 for r in snapshots(run, "0", branch)}


def test_a_training_resumed_from_an_earlier_step_is_recorded_in_a_branch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with recorder_of(tmp_path) as recorder:
        record(recorder, {step: float(step) for step in range(0, 60, 10)})
    with recorder_of(tmp_path) as recorder:
        taken = record(recorder, {25: 2.5, 30: 30.0, 40: 4.5, 50: 5.5, 60: 6.5})
    assert taken == [40, 50, 60]
    assert values(tmp_path) == {0: 0.0, 10: 10.0, 20: 20.0, 30: 30.0, 40: 4.5, 50: 5.5, 60: 6.5}
    assert values(tmp_path, "b0") == {step: float(step) for step in range(0, 60, 10)}
    said = "has another history after step 30: it is kept up to step 50 as branch b0, superseded; recording branch b1"
    assert said in caplog.text


def test_a_loop_that_keeps_the_place_goes_on_from_a_superseded_branch(tmp_path: Path) -> None:
    with recorder_of(tmp_path) as recorder:
        record(recorder, {step: float(step) for step in (0, 10, 20, 25)})
        kept = recorder.place  # beside the weights of step 25, at which nobody looked
        record(recorder, {30: 30.0})
    with recorder_of(tmp_path) as recorder:
        record(recorder, {15: 1.5, 20: 2.5, 30: 3.5})
    with recorder_of(tmp_path) as recorder:
        recorder.resume(kept)
        assert record(recorder, {25: 25.0, 30: 30.5}) == [30]
    assert kept == ("b0", 20)
    assert values(tmp_path) == {0: 0.0, 10: 10.0, 20: 20.0, 30: 30.5}
    assert values(tmp_path, "b1") == {0: 0.0, 10: 10.0, 20: 2.5, 30: 3.5}
    assert values(tmp_path, "b0") == {0: 0.0, 10: 10.0, 20: 20.0, 30: 30.0}


def test_other_weights_at_the_step_of_the_resume_are_a_branch_too(tmp_path: Path) -> None:
    with recorder_of(tmp_path) as recorder:
        record(recorder, {0: 1.0, 10: 2.0, 20: 3.0})
    with recorder_of(tmp_path) as recorder:
        assert record(recorder, {20: 3.5}) == [20]
    assert values(tmp_path) == {0: 1.0, 10: 2.0, 20: 3.5}
    assert values(tmp_path, "b0")[20] == 3.0


def test_a_process_that_loads_an_earlier_checkpoint_goes_on_in_a_branch(tmp_path: Path) -> None:
    with recorder_of(tmp_path) as recorder:
        record(recorder, {0: 1.0, 10: 2.0, 20: 3.0})
        assert record(recorder, {11: 2.1, 20: 2.5, 30: 2.75}) == [20, 30]
    assert values(tmp_path) == {0: 1.0, 10: 2.0, 20: 2.5, 30: 2.75}


def test_a_site_that_is_added_on_a_resume_is_recorded_where_the_training_repeats(tmp_path: Path) -> None:
    with recorder_of(tmp_path) as recorder:
        record(recorder, {0: 1.0, 10: 2.0, 20: 3.0})
    with recorder_of(tmp_path, sites=["0", "1"]) as recorder:
        assert record(recorder, {10: 2.0, 20: 3.5}) == [10, 20]
    run = RunDirectory.open(tmp_path / "run")
    assert [(r.branch, r.step) for r in snapshots(run, "1")] == [("b0", 10), ("b1", 20)]


def test_a_branch_that_cannot_be_begun_costs_a_snapshot_and_is_begun_at_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recorder_of(tmp_path) as recorder:
        record(recorder, {0: 1.0, 10: 2.0, 20: 3.0})

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with recorder_of(tmp_path, on_error="warn") as recorder:
        with monkeypatch.context() as patch:
            patch.setattr(RunDirectory, "add_branch", full)
            with pytest.warns(UserWarning, match="snapshot at step 10 skipped"):
                record(recorder, {10: 2.5})
        assert record(recorder, {20: 3.5}) == [20]
    assert values(tmp_path) == {0: 1.0, 20: 3.5}


def test_the_status_says_what_was_overtaken(tmp_path: Path) -> None:
    import dynamics

    with recorder_of(tmp_path) as recorder:
        record(recorder, {0: 1.0, 10: 2.0, 20: 3.0})
    assert "branch" not in status_text(dynamics.open(tmp_path / "run"))
    with recorder_of(tmp_path) as recorder:
        record(recorder, {10: 2.5, 20: 3.0})
    assert "branch b1, which left b0 after step 0" in status_text(dynamics.open(tmp_path / "run"))


def test_two_recorders_of_one_run_are_refused(tmp_path: Path) -> None:
    first, second = recorder_of(tmp_path), recorder_of(tmp_path)
    first.step(model_of(1.0), 0)
    with pytest.raises(RuntimeError, match=r"in this process already: close\(\) the other Recorder, or give all"):
        second.step(model_of(1.0), 0)
    first.close()
    assert second.step(model_of(2.0), 10)


def test_a_recorder_that_refuses_a_training_does_not_hold_the_run(tmp_path: Path) -> None:
    with recorder_of(tmp_path) as recorder:
        record(recorder, {0: 1.0})
    refused = recorder_of(tmp_path)
    with pytest.raises(ValueError, match="holds another training"):
        refused.step(model_of(2.0), 0)
    with pytest.raises(ValueError, match="no module matches"):
        recorder_of(tmp_path, sites="nowhere").step(model_of(1.0), 0)
    assert recorder_of(tmp_path).step(model_of(1.5), 10)


def test_a_run_that_another_process_records_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "import sys; from tests.test_recorder_rewound import *;"
        "r = recorder_of(Path(sys.argv[1])); r.step(model_of(1.0), 0); print('ready', flush=True); sys.stdin.read()"
    )
    monkeypatch.setattr("dynamics.files.settings._PATIENCE", 0.0)
    command = [sys.executable, "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(RuntimeError, match=rf"recorded by process {other.pid} on .*: wait for its end, or name"):
            recorder_of(tmp_path).step(model_of(1.0), 0)
        other.kill()
    assert recorder_of(tmp_path).step(model_of(1.5), 10)
