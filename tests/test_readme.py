"""The README's code runs, and its tree of files is the one that is there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader

import dynamics
from dynamics.cli import main
from dynamics.recorder import SAE
from dynamics.sae.config import SaeConfig

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
STEPS = 24
pytestmark = pytest.mark.filterwarnings(
    "ignore:.*does not have many workers", "ignore:.*isinstance.treespec, LeafSpec."
)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)


class TinyBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(8, 8), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp(x)


class TinyModel(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(TinyBlock(), TinyBlock())

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)

    def training_step(self, batch: Tensor, _index: int) -> Tensor:
        return (self(batch) - batch.roll(1, -1)).square().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def train_step(model: TinyModel, batch: Tensor) -> Tensor:
    loss = model.training_step(batch, 0)
    for parameter, gradient in zip(
        model.parameters(), torch.autograd.grad(loss, list(model.parameters())), strict=True
    ):
        parameter.data -= 0.1 * gradient
    return loss.detach()


def quiet_trainer(**options: Any) -> pl.Trainer:
    return pl.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False, **options)


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the README's reader has already: a model, data, a probe, saved checkpoints, activations of their own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(vars(SAE), "steps", 60)  # the settings that are used where none are given
    monkeypatch.setattr("dynamics.run.SaeConfig", partial(SaeConfig, steps=60))
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    loader = DataLoader(torch.randn(STEPS * 16, 8), batch_size=16)
    saving = ModelCheckpoint("checkpoints", every_n_train_steps=8, save_top_k=-1)
    quiet_trainer(max_epochs=1, callbacks=[saving]).fit(TinyModel(), loader)
    Path("snapshots").mkdir()
    for step in (0, 10, 20):
        save_file({"activations": torch.randn(200, 8)}, f"snapshots/step_{step}.safetensors")
    yield {
        "model": TinyModel(),
        "loader": loader,
        "probe_inputs": torch.randn(200, 8),
        "train_step": train_step,
        "Trainer": lambda **options: quiet_trainer(enable_checkpointing=False, **options),
    }
    torch.set_num_threads(threads)


def test_code_and_commands_of_the_readme_run(surroundings: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), surroundings)
    assert list(surroundings["counts"].columns) == ["site", "kind", "n", "q"]
    assert Path("report.html").read_text(encoding="utf-8").lstrip().lower().startswith("<!doctype html>")
    assert surroundings["run"].sites() == ["blocks.0.mlp", "blocks.1.mlp"]

    capsys.readouterr()
    commands = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("dynamics ")]
    assert len(commands) >= 8
    for command in commands:
        assert main(shlex.split(command)[1:]) in (0, None), f"{command}\n{capsys.readouterr().err}"
    assert Path("imported.html").exists()
    dynamics.open("runs/plain").analyze(progress=False)  # or its worker would go on after the test


def test_saved_checkpoints_give_the_steps_of_their_names(surroundings: dict[str, Any]) -> None:
    block = next(block for block in blocks("python") if "load_state_dict" in block)
    exec(compile(block, "README.md", "exec"), surroundings)
    steps = dynamics.open("runs/afterwards").sql("select step from checkpoints", format="rows")
    assert steps == [(8,), (16,), (24,)]


def listed() -> dict[str, str]:
    """Path and line of each file in the README's tree."""
    [tree] = re.findall(r"^## Files\n.*?^```\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
    found: dict[str, str] = {}
    folders: list[str] = []
    for line in tree.splitlines():
        name, _, what = line.strip().partition(" ")
        depth = (len(line) - len(line.lstrip())) // 2
        folders = [*folders[:depth], name]
        if not name.endswith("/"):
            found["".join(folders)] = what.strip()
    return found


def test_tree_lists_every_source_file_and_no_other() -> None:
    sources = {
        path.relative_to(ROOT).as_posix()
        for folder in ("dynamics", "callbacks", "studies", "notebooks")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".sql", ".ipynb", ".png", ".md") and "dynamics/callbacks/" not in path.as_posix()
    }
    sources = {path for path in sources if not path.endswith("__init__.py") or (ROOT / path).stat().st_size > 300}
    tree = listed()
    missing, gone = sources - set(tree), {path for path in tree if not (ROOT / path).exists()}
    assert not missing, f"not in the README's tree: {sorted(missing)}"
    assert not gone, f"in the README's tree, but not there: {sorted(gone)}"
    assert all(tree.values()), f"without a line: {[path for path, what in tree.items() if not what]}"


def test_code_comes_within_thirty_lines() -> None:
    assert "```python" in README.splitlines()[:30]


def test_no_figure_is_left_to_do() -> None:
    assert "TODO-FIGURE" not in README
