import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

pl = pytest.importorskip("lightning.pytorch")
from lightning.pytorch.utilities.exceptions import SIGTERMException  # noqa: E402

from dynamics.callbacks.lightning import FeatureTracker  # noqa: E402
from dynamics.files import RunDirectory, load_recording, snapshots  # noqa: E402
from dynamics.recorder import RecorderWarning  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:The .* does not have many workers"),
    pytest.mark.filterwarnings("ignore:The number of training batches"),
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec"),
    pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before the epoch"),
    pytest.mark.filterwarnings("ignore:No seed found"),
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]
PROBE = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))


def probe() -> Tensor:
    return PROBE


def forward(module: Any, batch: Tensor) -> Tensor:
    return module.net(batch)


class Module(pl.LightningModule):  # type: ignore[misc,name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.rate = 0.01
        self.net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        return self(batch[0]).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=self.rate)

    def train_dataloader(self) -> Any:
        return DataLoader(TensorDataset(torch.randn(40, 4)), batch_size=4)


def trainer_of(path: Path, *callbacks: Any, **settings: Any) -> Any:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    given = {"max_steps": 10, "max_epochs": -1, "enable_checkpointing": False, "default_root_dir": path} | quiet
    return pl.Trainer(callbacks=list(callbacks), **(given | settings))


def tracker_of(path: Path, **settings: Any) -> FeatureTracker:
    given = {"sites": "net.0", "probe": PROBE, "schedule": 3, "work": "later", "on_error": "raise"} | settings
    return FeatureTracker(str(path / "run"), **given)


def records(path: Path) -> list[Any]:
    return snapshots(RunDirectory.open(path / "run"), "net.0")


def test_a_training_is_recorded_from_before_the_first_step(tmp_path: Path) -> None:
    tracker = tracker_of(tmp_path)
    assert not (tmp_path / "run").exists()
    trainer_of(tmp_path, tracker).fit(Module())
    assert [record.step for record in records(tmp_path)] == [0, 3, 6, 9]
    assert [record.samples for record in records(tmp_path)] == [0, 12, 24, 36]
    assert records(tmp_path)[0].loss is None
    assert all(record.loss > 0 and record.epoch == 0 for record in records(tmp_path)[1:])
    assert load_recording(RunDirectory.open(tmp_path / "run")) is True
    assert tracker.recorder is None


def test_a_step_number_that_repeats_is_looked_at_once(tmp_path: Path) -> None:
    trainer_of(tmp_path, tracker_of(tmp_path), accumulate_grad_batches=2, max_steps=7).fit(Module())
    assert [(record.step, record.samples) for record in records(tmp_path)] == [(0, 0), (3, 24), (6, 48)]


def test_a_resumed_training_goes_on_and_keeps_counting(tmp_path: Path) -> None:
    first = trainer_of(tmp_path, tracker_of(tmp_path), max_steps=5)
    first.fit(Module())
    first.save_checkpoint(tmp_path / "last.ckpt")
    trainer_of(tmp_path, tracker_of(tmp_path)).fit(Module(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert [(record.step, record.samples) for record in records(tmp_path)] == [(0, 0), (3, 12), (6, 24), (9, 36)]


def test_two_trackers_of_one_trainer_keep_their_own_state(tmp_path: Path) -> None:
    trackers = [tracker_of(tmp_path / name) for name in ("a", "b")]
    trainer = trainer_of(tmp_path, *trackers)
    trainer.fit(Module())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    state = torch.load(tmp_path / "last.ckpt", weights_only=True)["callbacks"]
    assert [state[tracker.state_key] for tracker in trackers] == [{"samples": 40, "branch": "b0", "step": 9}] * 2
    assert [len(records(tmp_path / name)) for name in ("a", "b")] == [4, 4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sites": "net.9"}, "no module matches site 'net.9'"),
        ({"probe": PROBE[:0]}, "the probe is empty"),
        ({"schedule": "linear"}, "schedule must be"),
        ({"probe": "nowhere:probe"}, "names nothing that can be imported"),
    ],
)
def test_a_mistake_raises_before_the_first_step(tmp_path: Path, settings: Any, message: str) -> None:
    module = Module()
    before = [parameter.clone() for parameter in module.parameters()]
    trainer = trainer_of(tmp_path, tracker_of(tmp_path, on_error="warn", **settings))
    with pytest.raises(ValueError, match=message):
        trainer.fit(module)
    assert all(torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))


@pytest.mark.parametrize(
    ("name", "ranks", "way"),
    [
        ("FSDPStrategy", "first", 'train with strategy "auto" or "ddp", or with ModelParallelStrategy'),
        ("FSDPStrategy", "all", 'train with strategy "auto" or "ddp", or with ModelParallelStrategy'),
        ("ModelParallelStrategy", "first", 'give ranks="all"'),
    ],
)
def test_sharded_training_is_refused(tmp_path: Path, name: str, ranks: str, way: str) -> None:
    strategy = type(name, (pl.strategies.SingleDeviceStrategy,), {})(device="cpu")
    trainer = trainer_of(tmp_path, tracker_of(tmp_path, ranks=ranks), strategy=strategy, accelerator="auto")
    with pytest.raises(ValueError, match=f"{name} spreads the model over processes.*{way}"):
        trainer.fit(Module())


class Ends(pl.Callback):  # type: ignore[misc,name-defined]
    """Raises what the user's own code or the machine would, at step 4."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 4:
            raise self.error


def test_the_users_own_error_comes_through_and_the_worker_is_abandoned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[str] = []
    monkeypatch.setattr("dynamics.engines.engine.LaterEngine.abandon", lambda _: ended.append("abandon") or "")
    monkeypatch.setattr("dynamics.engines.engine.LaterEngine.close", lambda *_, **__: ended.append("close") or "")
    with pytest.raises(KeyError, match="mine"):
        trainer_of(tmp_path, tracker_of(tmp_path), Ends(KeyError("mine"))).fit(Module())
    assert [record.step for record in records(tmp_path)] == [0, 3]
    assert ended == ["abandon"]


def test_a_fault_at_the_end_replaces_neither_the_users_error_nor_the_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("disk gone")

    monkeypatch.setattr("dynamics.recorder.write_recording", fail, raising=True)
    monkeypatch.setattr("dynamics.recorder.Recorder.prepare", keeping_quiet(fail))
    saved = pl.callbacks.ModelCheckpoint(tmp_path, every_n_train_steps=2, save_top_k=-1)
    ours = tracker_of(tmp_path, on_error="warn")
    trainer = trainer_of(tmp_path, ours, saved, Ends(KeyError("mine")), enable_checkpointing=True)
    with pytest.warns(RecorderWarning, match="skipped"), pytest.raises(KeyError, match="mine"):
        trainer.fit(Module())
    assert len(list(tmp_path.glob("*.ckpt"))) >= 1


def keeping_quiet(fail: Callable[..., None]) -> Callable[..., None]:
    """A ``prepare`` that does its work although the mark of an open recording cannot be written."""
    from dynamics.files.settings import write_recording
    from dynamics.recorder import Recorder

    prepare = Recorder.prepare

    def prepared(self: Any, model: Any, **settings: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("dynamics.recorder.write_recording", write_recording)
            prepare(self, model, **settings)

    return prepared


def test_a_rehearsal_finds_mistakes_and_keeps_nothing(tmp_path: Path) -> None:
    trainer_of(tmp_path, tracker_of(tmp_path), fast_dev_run=True).fit(Module())
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="no module matches"):
        trainer_of(tmp_path, tracker_of(tmp_path, sites="nowhere"), fast_dev_run=True).fit(Module())


def test_a_search_for_a_learning_rate_is_not_recorded(tmp_path: Path) -> None:
    module = Module()
    trainer = trainer_of(tmp_path, tracker_of(tmp_path))
    pl.tuner.Tuner(trainer).lr_find(module, num_training=5, attr_name="rate", update_attr=False)
    assert not (tmp_path / "run").exists()
    trainer.fit(module)
    assert [record.step for record in records(tmp_path)] == [0, 3, 6, 9]


def test_a_search_for_a_batch_size_is_not_recorded(tmp_path: Path) -> None:
    class Sized(Module):
        batch_size = 2

        def train_dataloader(self) -> Any:
            return DataLoader(TensorDataset(torch.randn(40, 4)), batch_size=self.batch_size)

    module, trainer = Sized(), trainer_of(tmp_path, tracker_of(tmp_path))
    assert pl.tuner.Tuner(trainer).scale_batch_size(module, steps_per_trial=4, max_trials=2) > 2
    assert not (tmp_path / "run").exists()
    trainer.fit(module)
    assert [record.step for record in records(tmp_path)] == [0, 3, 6, 9]


def test_a_training_that_is_interrupted_keeps_its_snapshots_and_goes_on(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, tracker_of(tmp_path), Ends(KeyboardInterrupt()))
    with pytest.raises(SystemExit):
        trainer.fit(Module())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    trainer_of(tmp_path, tracker_of(tmp_path)).fit(Module(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert [record.step for record in records(tmp_path)] == [0, 3, 6, 9]


def test_a_training_that_is_told_to_end_keeps_its_snapshots_and_the_users_checkpoint_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Told(pl.Callback):  # type: ignore[misc,name-defined]
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == 4:
                os.kill(os.getpid(), signal.SIGTERM)

    ended: list[str] = []
    monkeypatch.setattr("dynamics.engines.engine.LaterEngine.abandon", lambda _: ended.append("abandon") or "")
    saved = pl.callbacks.ModelCheckpoint(tmp_path, filename="told", save_on_exception=True)
    trainer = trainer_of(tmp_path, tracker_of(tmp_path), saved, Told(), enable_checkpointing=True)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the command line, in another test, may have set one
    try:
        with pytest.raises(SIGTERMException):
            trainer.fit(Module())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended == ["abandon"]
    assert load_recording(RunDirectory.open(tmp_path / "run")) is True
    [checkpoint] = tmp_path.glob("*.ckpt")
    trainer_of(tmp_path, tracker_of(tmp_path)).fit(Module(), ckpt_path=checkpoint, weights_only=True)
    assert [record.step for record in records(tmp_path)] == [0, 3, 6, 9]


def test_a_training_resumed_from_an_earlier_checkpoint_is_recorded_in_a_branch(tmp_path: Path) -> None:
    saved = pl.callbacks.ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=4, save_top_k=-1)
    trainer_of(tmp_path, tracker_of(tmp_path), saved, enable_checkpointing=True).fit(Module())
    checkpoint = tmp_path / "step=4.ckpt"
    trainer_of(tmp_path, tracker_of(tmp_path)).fit(Module(), ckpt_path=checkpoint, weights_only=True)
    assert [(record.branch, record.step) for record in records(tmp_path)] == [
        *(("b0", step) for step in (0, 3)),
        *(("b1", step) for step in (6, 9)),
    ]
    assert [record.step for record in snapshots(RunDirectory.open(tmp_path / "run"), "net.0", "b0")] == [0, 3, 6, 9]


def test_a_checkpoint_between_two_looks_knows_the_superseded_branch_that_it_is_of(tmp_path: Path) -> None:
    def resumed(checkpoint: str, steps: int) -> Any:
        trainer = trainer_of(tmp_path, tracker_of(tmp_path), max_steps=steps)
        trainer.fit(Module(), ckpt_path=tmp_path / checkpoint, weights_only=True)
        return trainer

    first = trainer_of(tmp_path, tracker_of(tmp_path), max_steps=5)
    first.fit(Module())
    first.save_checkpoint(tmp_path / "5 of b0")
    resumed("5 of b0", 8).save_checkpoint(tmp_path / "8 of b0")
    resumed("5 of b0", 10)
    resumed("8 of b0", 10)
    assert [(r.branch, r.step) for r in records(tmp_path)] == [("b0", 0), ("b0", 3), ("b0", 6), ("b2", 9)]
    run = RunDirectory.open(tmp_path / "run")
    assert [(r.branch, r.step) for r in snapshots(run, "net.0", "b1")][-2:] == [("b1", 6), ("b1", 9)]


def test_the_other_package_name_runs_the_callback_too(tmp_path: Path) -> None:
    other = pytest.importorskip("pytorch_lightning")

    class Other(other.LightningModule):  # type: ignore[misc,name-defined]
        __init__ = Module.__init__
        forward, training_step = Module.forward, Module.training_step
        configure_optimizers, train_dataloader = Module.configure_optimizers, Module.train_dataloader

    trainer = other.Trainer(
        callbacks=[tracker_of(tmp_path)], max_steps=4, logger=False, enable_progress_bar=False, accelerator="cpu",
        enable_model_summary=False, enable_checkpointing=False,
    )  # fmt: skip
    Other.__init__ = lambda self: (
        other.LightningModule.__init__(self),
        vars(self).update(rate=0.01),
        setattr(self, "net", Module().net),
    )[0]
    trainer.fit(Other())
    assert [record.step for record in records(tmp_path)] == [0, 3]


def test_the_command_line_of_lightning_can_configure_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("jsonargparse")
    from lightning.pytorch.cli import LightningCLI

    (tmp_path / "config.yaml").write_text(
        f"""
        trainer:
          max_steps: 4
          logger: false
          accelerator: cpu
          enable_progress_bar: false
          enable_model_summary: false
          enable_checkpointing: false
          callbacks:
            - class_path: dynamics.callbacks.lightning.FeatureTracker
              init_args:
                run: {tmp_path / "run"}
                sites: ["net.0"]
                probe: {__name__}:probe
                forward: {__name__}:forward
                schedule: [0, 2, 4]
                sae: {{n_latents: 16, k: 4}}
                work: later
        """
    )
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # Lightning's own use of it
    monkeypatch.setattr(sys, "argv", ["train.py", "fit", "--config", str(tmp_path / "config.yaml")])
    LightningCLI(Module, save_config_callback=None)
    assert [record.step for record in records(tmp_path)] == [0, 2, 4]
