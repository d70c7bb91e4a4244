from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

transformers = pytest.importorskip("transformers")
from transformers import Trainer  # noqa: E402 - at once: after marimo, which the explorer's tests import, it wants IPython

from dynamics.callbacks.huggingface import FeatureTracker  # noqa: E402
from dynamics.callbacks.scalars import Scalars  # noqa: E402
from dynamics.files import RunDirectory, load_probe, load_recording, snapshots  # noqa: E402

IDS = torch.randint(0, 10, (6, 5), generator=torch.Generator().manual_seed(0))
MASK = torch.ones(6, 5, dtype=torch.long)
MASK[:, 3:] = 0


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(10, 8)
        self.mlp = nn.Linear(8, 8)
        self.head = nn.Linear(8, 10)

    def forward(self, input_ids: Tensor, attention_mask: Any = None, labels: Any = None) -> dict[str, Tensor]:
        logits = self.head(torch.relu(self.mlp(self.embed(input_ids))))
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()), "logits": logits}


def train(path: Path, tracker: FeatureTracker, model: nn.Module | None = None, **settings: Any) -> Any:
    arguments = transformers.TrainingArguments(
        output_dir=str(path / "out"), use_cpu=True, disable_tqdm=True, per_device_train_batch_size=2,
        **({"max_steps": 6, "save_strategy": "no", "logging_steps": 1, "report_to": []} | settings),
    )  # fmt: skip
    data = [{"input_ids": row, "labels": row} for row in torch.randint(0, 10, (12, 5))]
    trainer = Trainer(model or Model(), arguments, train_dataset=data, callbacks=[tracker])
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return trainer


def tracker_of(path: Path, **settings: Any) -> FeatureTracker:
    probe = {"input_ids": IDS, "attention_mask": MASK}
    given = {"sites": "mlp", "probe": probe, "schedule": 2, "work": "later", "on_error": "raise"} | settings
    return FeatureTracker(str(path / "run"), **given)


def test_a_training_is_recorded_from_before_the_first_step(tmp_path: Path) -> None:
    tracker = tracker_of(tmp_path)
    assert not (tmp_path / "run").exists()
    train(tmp_path, tracker)
    run = RunDirectory.open(tmp_path / "run")
    found = snapshots(run, "mlp")
    assert [(record.step, record.samples) for record in found] == [(0, 0), (2, 4), (4, 8), (6, 12)]
    assert found[0].loss is None
    assert all(record.loss is not None and record.loss > 0 for record in found[1:])
    assert load_recording(run) is True


@pytest.mark.parametrize(("every", "logged_at"), [(1, [2, 4, 6]), (3, [None, 3, 6])])
def test_the_loss_is_the_last_one_logged_that_of_the_step_included(
    tmp_path: Path, every: int, logged_at: list[int | None]
) -> None:
    history = train(tmp_path, tracker_of(tmp_path), logging_steps=every).state.log_history
    losses = {entry["step"]: entry["loss"] for entry in history if "loss" in entry}
    found = snapshots(RunDirectory.open(tmp_path / "run"), "mlp")
    assert [record.step for record in found] == [0, 2, 4, 6]
    assert [record.loss for record in found[1:]] == [None if step is None else losses[step] for step in logged_at]


def test_padding_is_left_out_of_the_rows(tmp_path: Path) -> None:
    train(tmp_path, tracker_of(tmp_path), max_steps=1)
    run = RunDirectory.open(tmp_path / "run")
    record = snapshots(run, "mlp")[0]
    assert record.rows == 18
    assert set(load_probe(run, record.probe).position.tolist()) == {0, 1, 2}


def test_a_resumed_training_goes_on(tmp_path: Path) -> None:
    train(tmp_path, tracker_of(tmp_path), max_steps=3, save_strategy="steps", save_steps=3)
    resume(tmp_path, "out/checkpoint-3", max_steps=6)
    assert [record.step for record in snapshots(RunDirectory.open(tmp_path / "run"), "mlp")] == [0, 2, 4, 6]


def resume(path: Path, checkpoint: str, **settings: Any) -> None:
    begin = Trainer.train

    def resumed(self: Any) -> Any:
        return begin(self, resume_from_checkpoint=str(path / checkpoint))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "train", resumed)
        train(path, tracker_of(path), **settings)


def test_a_checkpoint_between_two_looks_knows_the_superseded_branch_that_it_is_of(tmp_path: Path) -> None:
    saving: dict[str, Any] = {"save_strategy": "steps", "save_steps": 1, "lr_scheduler_type": "constant"}
    train(tmp_path, tracker_of(tmp_path), max_steps=3, **saving)
    resume(tmp_path, "out/checkpoint-3", max_steps=5, **saving)
    (tmp_path / "out").rename(tmp_path / "first")
    torch.manual_seed(1)  # other data
    resume(tmp_path, "first/checkpoint-3", max_steps=6, lr_scheduler_type="constant")
    resume(tmp_path, "first/checkpoint-5", max_steps=6, lr_scheduler_type="constant")
    run = RunDirectory.open(tmp_path / "run")
    assert [(r.branch, r.step) for r in snapshots(run, "mlp")] == [("b0", 0), ("b0", 2), ("b0", 4), ("b2", 6)]
    assert [(r.branch, r.step) for r in snapshots(run, "mlp", "b1")][-2:] == [("b1", 4), ("b1", 6)]


def test_a_mistake_raises_before_the_first_step(tmp_path: Path) -> None:
    model = Model()
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(ValueError, match="no module matches site 'mpl'; did you mean 'mlp'"):
        train(tmp_path, tracker_of(tmp_path, sites="mpl", on_error="warn"), model)
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


@pytest.fixture
def board(tmp_path: Path, analysed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where TensorBoard's files go, in a training that looks for numbers in a run that is analysed already."""
    pytest.importorskip("tensorboard", reason="no tensorboard: pip install -e '.[dev]'")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    published = RunDirectory.open(analysed).scalars
    monkeypatch.setattr("dynamics.callbacks.huggingface.Scalars", lambda _: Scalars(published, seconds=0.0))
    return tmp_path / "board"


def scalars_in(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a folder: (step, value) by name."""
    from tensorboard.backend.event_processing import event_accumulator

    shown = event_accumulator.EventAccumulator(str(folder))
    shown.Reload()
    return {name: [(one.step, one.value) for one in shown.Scalars(name)] for name in shown.Tags()["scalars"]}


def test_numbers_go_to_tensorboard_at_the_current_step(tmp_path: Path, board: Path) -> None:
    train(tmp_path, tracker_of(tmp_path), max_steps=12, report_to=["tensorboard"])
    found = scalars_in(next(board.rglob("events.*")).parent)
    assert [step for step, _ in found["train/loss"]] == list(range(1, 13))
    assert found["train/dynamics/step"] == [(step, 10.0 * (step - 1)) for step in range(1, 9)]
    assert {f"train/dynamics/blocks.0/{name}" for name in ("live", "dead", "births", "deaths", "fvu")} <= found.keys()


def test_a_reporter_that_raises_is_no_fault_of_the_training(
    tmp_path: Path, board: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, asked = tracker_of(tmp_path), []

    def broken(self: Any, *given: Any, logs: dict[str, float], **named: Any) -> None:
        asked.append(logs)
        if "dynamics/step" in logs:
            raise OSError("disk full")

    monkeypatch.setattr(transformers.integrations.TensorBoardCallback, "on_log", broken)
    assert train(tmp_path, tracker, report_to=["tensorboard"]).state.global_step == 6
    assert sum("dynamics/step" in logs for logs in asked) == 6
    assert not tracker.faults.counts
