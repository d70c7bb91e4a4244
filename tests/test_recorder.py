import inspect
import json
import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import dynamics
from dynamics.capture import Probe
from dynamics.capture.share import Share
from dynamics.faults import skipped
from dynamics.files import (
    RunDirectory,
    load_activations,
    load_probe,
    load_recording,
    load_settings,
    snapshots,
    write_recording,
)
from dynamics.recorder import Recorder, RecorderWarning
from dynamics.requirements import require_words
from dynamics.sae.config import SaeConfig
from dynamics.schedule import at, every
from dynamics.summary import status_text

X = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))


def model_of(width: int = 5) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))


def recorder_of(path: Path, **settings: Any) -> Recorder:
    given = {"sites": ["0", "2"], "probe": X, "schedule": every(2), "work": "later", "on_error": "raise"} | settings
    return Recorder(path / "run", given.pop("sites"), given.pop("probe"), **given)


def steps(path: Path, site: str = "0") -> list[int]:
    return [record.step for record in snapshots(RunDirectory.open(path / "run"), site)]


def test_snapshots_are_what_the_model_puts_out(tmp_path: Path) -> None:
    model = model_of()
    with recorder_of(tmp_path, text=list("abcdefgh"), concepts={"low": X[:, 0] < 0}) as recorder:
        assert recorder.step(model, 0, loss=torch.tensor(2.5, requires_grad=True), epoch=0.0, samples=0)
        with torch.no_grad():
            model[0].weight.mul_(2)
        assert [recorder.step(model, step, loss=1, epoch=0.5, samples=16) for step in (1, 2)] == [False, True]
    run = RunDirectory.open(tmp_path / "run")
    first, second = snapshots(run, "0")
    assert (first.step, first.loss, first.epoch, first.samples, first.d_in) == (0, 2.5, 0.0, 0, 5)
    assert (second.step, second.loss, second.epoch, second.samples) == (2, 1.0, 0.5, 16)
    assert first.fingerprint != second.fingerprint
    assert torch.equal(load_activations(run, second), model[0](X).detach())
    assert torch.equal(load_activations(run, snapshots(run, "2")[1]), model(X).detach())
    rows = load_probe(run, first.probe)
    assert rows.text == list("abcdefgh")
    assert rows.masks["low"].tolist() == (X[:, 0] < 0).tolist()


def test_a_step_may_be_any_whole_number(tmp_path: Path) -> None:
    recorder, model = recorder_of(tmp_path), model_of()
    for step in (np.int64(0), torch.tensor(2), np.array(4), True + 5):
        assert recorder.step(model, step)
    assert steps(tmp_path) == [0, 2, 4, 6]


@pytest.mark.parametrize("step", [0.0, np.float32(2), torch.tensor(2.5), torch.tensor([1, 2]), "3", None])
def test_a_step_that_is_no_whole_number_is_said(tmp_path: Path, step: Any) -> None:
    unchecked = inspect.unwrap(Recorder.step)  # as outside of tests, where nobody checks types
    recorder, model = recorder_of(tmp_path, on_error="warn"), model_of()
    with pytest.raises(TypeError, match=r"a whole number, got .*; count them, or pass int\(step\)"):
        unchecked(recorder, model, step)
    recorder.step(model, 0)
    with pytest.warns(RecorderWarning, match="skipped .TypeError: step is the number of optimiser steps"):
        assert not unchecked(recorder, model, step)
    assert steps(tmp_path) == [0]


def test_a_step_below_0_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least 0, got -1"):
        recorder_of(tmp_path).step(model_of(), -1)


def test_a_step_that_was_passed_counts_and_a_repeated_one_does_not(tmp_path: Path) -> None:
    recorder, model = recorder_of(tmp_path, schedule=at(0, 5, 6, 20)), model_of()
    taken = [step for step in (0, 0, 3, 3, 7, 7, 9, 30, 31) if recorder.step(model, step)]
    assert taken == [0, 7, 30]


def test_a_resumed_run_goes_on_where_it_was(tmp_path: Path) -> None:
    model = model_of()
    with recorder_of(tmp_path) as recorder:
        for step in range(5):
            recorder.step(model, step)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "snapshots").rglob("*.json")}
    with recorder_of(tmp_path) as recorder:
        assert [step for step in range(3, 9) if recorder.step(model, step)] == [6, 8]
    assert steps(tmp_path) == [0, 2, 4, 6, 8]
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_snapshot_that_a_killed_process_left_half_done_is_taken_again_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_of()
    for restart in range(2):
        with recorder_of(tmp_path) as recorder:
            assert [step for step in range(5) if recorder.step(model, step)] == ([0, 2, 4] if restart == 0 else [2])
        (tmp_path / "run" / "snapshots" / "b0" / "step_00000002" / "0" / "commit.json").unlink(missing_ok=restart > 0)
    told = [message for message in caplog.messages if "recovered" in message]
    assert told == [f"recovered: step 2 of {tmp_path / 'run'} was incomplete; taking it again"]


def test_another_training_in_the_same_directory_is_refused(tmp_path: Path) -> None:
    model = model_of()
    with recorder_of(tmp_path) as recorder:
        recorder.step(model, 0)
        model[0].weight.data.mul_(2)
        recorder.step(model, 2)
    again = recorder_of(tmp_path, on_error="warn")
    again.prepare(model)  # as adapters do
    with pytest.raises(ValueError, match="holds another training: its model had other weights at step 0; name a dir"):
        again.step(model, 0)
    assert not recorder_of(tmp_path).step(model, 2)  # resumed there
    assert not recorder_of(tmp_path).step(model_of(), 0)  # the same training once more
    assert recorder_of(tmp_path).step(model, 4)


def test_what_a_directory_holds_already_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "dynamics")
    recorder_of(tmp_path).step(model_of(), 0)
    assert "it has snapshots" not in caplog.text
    recorder_of(tmp_path).step(model_of(), 0)
    assert "it has snapshots up to step 0, and goes on after that" in caplog.text


def test_a_site_that_is_added_later_is_recorded_beside_the_others(tmp_path: Path) -> None:
    model = model_of()
    recorder_of(tmp_path, sites="0").step(model, 0)
    assert recorder_of(tmp_path, sites=["0", "2"]).step(model, 0)
    assert steps(tmp_path, "2") == [0]


def test_the_run_says_whether_it_is_being_recorded(tmp_path: Path) -> None:
    recorder = recorder_of(tmp_path)
    run = RunDirectory.open(tmp_path / "run")
    assert load_recording(run) is None
    recorder.prepare(model_of())
    assert load_recording(run) is False
    assert load_settings(run) == SaeConfig()
    recorder.close()
    assert load_recording(run) is True


def test_a_closed_recorder_takes_nothing_more(tmp_path: Path) -> None:
    recorder, model = recorder_of(tmp_path), model_of()
    recorder.step(model, 0)
    recorder.close()
    assert not recorder.step(model, 2)
    recorder.close()


def test_the_size_is_said_at_the_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "dynamics")
    recorder_of(tmp_path, probe=torch.randn(2500, 6), schedule=every(10)).prepare(model_of(width=97), until=100)
    assert "recording 2 sites to" in caplog.text
    assert "1.0 MB per snapshot, 11 of them until step 100: 11.0 MB" in caplog.text


def test_too_little_disk_is_warned_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100})())
    with pytest.warns(RecorderWarning, match="has 0.1 kB free, but the snapshots will take"):
        recorder_of(tmp_path).prepare(model_of())


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "misspelt site": ({"sites": "1.weight"}, "no module matches site '1.weight'"),
    "empty probe": ({"probe": X[:0]}, "the probe is empty"),
    "NaN in the probe": ({"probe": X * float("nan")}, "NaN or infinity"),
    "text of another length": ({"text": ["a", "b"]}, "text has 2 entries, but the probe has 8 rows"),
    "concept of another length": ({"concepts": {"c": [True]}}, r"concept 'c' has shape \[1\]"),
    "text beside a frozen probe": ({"probe": Probe.freeze(X), "text": ["a"] * 8}, "give them to Probe.freeze"),
    "called twice": ({"sites": "0", "forward": lambda m, x: m(x) + m(x)}, "site '0' was called 2 times"),
    "never called": ({"sites": "2", "forward": lambda m, x: m[0](x)}, "site '2' was not called"),
}


@pytest.mark.parametrize(("settings", "message"), [pytest.param(*case, id=name) for name, case in MISTAKES.items()])
def test_a_mistake_raises_before_the_first_step(settings: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        recorder_of(tmp_path, **{"on_error": "warn", **settings}).step(model_of(), 0)
    assert not list(tmp_path.rglob("commit.json"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"schedule": 5}, r"schedule must be every\(n\), .*got 5"), ({"sae": {"k": 4}}, "sae must be a SaeConfig, .*got")],
)
def test_an_argument_of_another_kind_raises_at_once(settings: Any, message: str, tmp_path: Path) -> None:
    unchecked = inspect.unwrap(Recorder.__init__)
    with pytest.raises(TypeError, match=message):
        unchecked(Recorder.__new__(Recorder), tmp_path / "run", "*", X, **settings)
    assert not (tmp_path / "run").exists()


def test_a_directory_that_cannot_be_used_raises_at_once(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(NotADirectoryError, match="is a file"):
        recorder_of(tmp_path)


def test_a_run_recorded_with_another_probe_is_refused(tmp_path: Path) -> None:
    recorder_of(tmp_path).step(model_of(), 0)
    with pytest.raises(ValueError, match="was recorded with another probe"):
        recorder_of(tmp_path, probe=X.flip(0)).prepare(model_of())


def test_a_run_with_other_sae_settings_is_refused(tmp_path: Path) -> None:
    quick = SaeConfig(steps=2)
    recorder_of(tmp_path, sae=SaeConfig(steps=3)).step(model_of(), 0)
    recorder_of(tmp_path, sae=quick, work="inline").step(model_of(), 2)  # nothing was trained before
    with pytest.raises(ValueError, match="other SAE settings: seed is 0, given 1"):
        recorder_of(tmp_path, sae=replace(quick, seed=1)).step(model_of(), 4)


def test_a_run_of_another_width_is_refused(tmp_path: Path) -> None:
    recorder_of(tmp_path).step(model_of(), 0)
    with pytest.raises(ValueError, match="site '0' has width 7, but 5 at step 0"):
        recorder_of(tmp_path).prepare(model_of(7))


def test_a_forward_that_writes_to_the_model_is_refused(tmp_path: Path) -> None:
    def forward(model: Any, batch: Tensor) -> Tensor:
        model[0].bias.data = model[0].bias.data + 0
        with torch.no_grad():
            model[0].bias.mul_(1)
        return model(batch)

    with pytest.raises(RuntimeError, match=r"wrote to 0\.bias"):
        recorder_of(tmp_path, forward=forward, on_error="warn").prepare(model_of())


def test_inline_work_is_refused_where_several_processes_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Share, "here", lambda: Share(0, 2))
    with pytest.raises(ValueError, match='work="inline" would keep the other training processes waiting'):
        recorder_of(tmp_path, work="inline").prepare(model_of())


def test_a_model_that_one_rank_cannot_show_the_probe_to_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flattened = nn.Sequential(nn.Sequential())
    flattened[0].add_module("_fsdp_wrapped_module", model_of())
    with pytest.raises(ValueError, match=r"spread the model with fully_shard \(FSDP2\) and give ranks=\"all\""):
        recorder_of(tmp_path, ranks="all").prepare(flattened)
    monkeypatch.setattr("dynamics.requirements.is_sharded", lambda model: True)
    with pytest.raises(ValueError, match='none can show it the probe alone; give ranks="all"'):
        recorder_of(tmp_path).prepare(model_of())
    with pytest.raises(ValueError, match=r"""ranks must be "first" or "all", got 'both'"""):
        require_words(ranks=("both", "first", "all"))


def test_other_ranks_do_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Share, "here", lambda: Share(1, 2))
    recorder = recorder_of(tmp_path, sites="nothing")
    assert not recorder.step(model_of(), 0)


def test_faults_are_warned_about_once_per_kind_and_counted(tmp_path: Path) -> None:
    model, broken = model_of(), [False]

    def forward(model: Any, batch: Tensor) -> Tensor:
        if broken[0]:
            raise RuntimeError("out of memory")
        return model(batch)

    recorder = recorder_of(tmp_path, forward=forward, on_error="warn")
    recorder.step(model, 0)
    broken[0] = True
    with pytest.warns(RecorderWarning) as caught:
        assert not any(recorder.step(model, step) for step in (2, 4, 6))
    broken[0] = False
    assert recorder.step(model, 8)
    expected = "snapshot at step 2 skipped (RuntimeError: out of memory); training goes on, 1 skipped so far"
    assert [str(warning.message) for warning in caught] == [expected]
    assert recorder.skipped == {"RuntimeError": 3}
    assert steps(tmp_path) == [0, 8]
    assert skipped(recorder.directory.skipped) == [
        f"snapshot at step {step}: RuntimeError: out of memory" for step in (2, 4, 6)
    ]
    recorder.close()
    said = status_text(dynamics.open(recorder.run))
    assert f"skipped while recording: 3, all in {recorder.directory.skipped}; the last: snapshot at step 6" in said


def test_a_list_of_faults_that_cannot_be_written_is_no_fault_of_the_training(tmp_path: Path) -> None:
    recorder = recorder_of(tmp_path, on_error="warn")
    recorder.prepare(model_of())
    recorder.directory.skipped.mkdir()
    with pytest.warns(RecorderWarning, match="snapshot at step 0 skipped"):
        assert not recorder.step(nn.Linear(6, 5), 0)
    assert recorder.skipped.total() == 1


def test_warnings_as_errors_do_not_reach_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = model_of()
    recorder = recorder_of(tmp_path, on_error="warn")
    recorder.prepare(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not recorder.step(nn.Linear(6, 5), 0)
    assert "snapshot at step 0 skipped (KeyError" in caplog.text


def test_faults_reach_tests_that_ask_for_them(tmp_path: Path) -> None:
    recorder = recorder_of(tmp_path)
    recorder.prepare(model_of())
    with pytest.raises(KeyError):
        recorder.step(nn.Linear(6, 5), 0)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda m: m[0].bias.data[2].fill_(float("nan")), "20.00% of the activations are NaN or infinite"),
        (lambda m: m.__setitem__(0, nn.Linear(6, 9)), r"activations are \(8, 9\), at the start they were \(8, 5\)"),
    ],
)
def test_one_site_that_went_wrong_does_not_cost_the_others(
    tmp_path: Path, spoil: Callable[..., Any], message: str
) -> None:
    model = model_of()
    forward = lambda m, x: (m[0](x), m[2](torch.ones(8, 5)))  # noqa: E731
    recorder = recorder_of(tmp_path, forward=forward, on_error="warn")
    recorder.step(model, 0)
    spoil(model)
    with pytest.warns(RecorderWarning, match=f"snapshot of '0' at step 2 skipped .*{message}"):
        assert recorder.step(model, 2)
    assert (steps(tmp_path, "0"), steps(tmp_path, "2")) == ([0], [0, 2])
    assert recorder.skipped == {"UnusableActivationsError": 1}


def test_a_full_disk_costs_snapshots_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, recorder = model_of(), recorder_of(tmp_path, on_error="warn")
    recorder.step(model, 0)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("dynamics.looks.write_snapshot", full)
        with pytest.warns(
            RecorderWarning, match="No space left on device.*, and recording when there is room, 1 skipped"
        ):
            assert not recorder.step(model, 2)
    assert recorder.step(model, 4)
    assert recorder.skipped == {"OSError": 2}
    assert steps(tmp_path) == [0, 4]


class FakeEngine:
    """Notes what it is asked."""

    def __init__(self, *_: Any) -> None:
        self.asked: list[str] = []

    def snapshots_written(self) -> None:
        self.asked.append("snapshots_written")

    def close(self, *, wait: bool = False, progress: bool = True) -> str:
        self.asked.append(f"close {wait}")
        return ""

    def abandon(self) -> str:
        self.asked.append("abandon")
        return ""


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    engine = FakeEngine()
    monkeypatch.setattr("dynamics.engines.engine.engine", lambda *_: engine)
    return engine


def test_the_engine_hears_of_every_checkpoint_and_the_end(tmp_path: Path, fake: FakeEngine) -> None:
    recorder, model = recorder_of(tmp_path), model_of()
    for step in range(4):
        recorder.step(model, step)
    recorder.close(wait=True)
    assert fake.asked == ["snapshots_written", "snapshots_written", "close True"]


def test_the_engine_hears_of_a_training_that_died(tmp_path: Path, fake: FakeEngine) -> None:
    def train() -> None:
        with recorder_of(tmp_path) as recorder:
            recorder.step(model_of(), 0)
            raise KeyError("the user's own")

    with pytest.raises(KeyError, match="the user's own"):
        train()
    assert fake.asked == ["snapshots_written", "abandon"]


def test_an_engine_that_fails_costs_no_snapshot(tmp_path: Path, fake: FakeEngine) -> None:
    def fail() -> None:
        raise OSError("no more processes")

    recorder, model = recorder_of(tmp_path, on_error="warn"), model_of()
    fake.snapshots_written = fail  # type: ignore[method-assign]
    with pytest.warns(RecorderWarning, match="analysis .*dynamics analyze .* skipped"):
        assert recorder.step(model, 0)
    assert steps(tmp_path) == [0]


def test_saved_checkpoints_give_the_snapshots_of_a_live_run(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model, saved = model_of(), {}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with recorder_of(tmp_path / "live") as recorder:
        for step in range(7):
            if recorder.step(model, step):
                saved[step] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
            optimizer.zero_grad()
            model(X).square().sum().backward()
            optimizer.step()
    with recorder_of(tmp_path / "afterwards") as recorder:
        for step, state in saved.items():
            model.load_state_dict(state)
            recorder.step(model, step)
    assert list(saved) == [0, 2, 4, 6]
    for site in ("0", "2"):
        assert digests(tmp_path / "live", site) == digests(tmp_path / "afterwards", site)


def digests(path: Path, site: str) -> list[Any]:
    run = RunDirectory.open(path / "run")
    return [
        json.loads((run.snapshot(site, record.step) / "commit.json").read_text()) for record in snapshots(run, site)
    ]


def test_a_recorder_that_died_does_not_close_the_run(tmp_path: Path) -> None:
    recorder = recorder_of(tmp_path)
    recorder.prepare(model_of())
    del recorder
    run = RunDirectory.open(tmp_path / "run")
    assert load_recording(run) is False
    write_recording(run, closed=True)
