"""What every training in this folder shares: data, models, trackers, and the digest that must not change.

These run as scripts of their own: under pytest the run-time type checker draws from Python's random state.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

from dynamics.recorder import Recorder, RecorderWarning
from dynamics.sae.config import SaeConfig
from dynamics.schedule import at

STEPS = 12
PROBE = torch.randn(64, 8, generator=torch.Generator().manual_seed(9))
SAE = SaeConfig(n_latents=16, k=4, steps=20, batch_size=32)
LOOKS = (0, 2, 4, 8, 12)
Run = Callable[[str], str]


class Drawing(Dataset[tuple[Tensor, Tensor]]):
    """Draws from every global random state for each example."""

    def __len__(self) -> int:
        return 8 * STEPS // 2

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        x = torch.randn(8) + random.random() + np.random.rand()  # noqa: NPY002
        return x, x[:2].sum() + index / 10


class Net(nn.Module):
    """Dropout, BatchNorm and LayerNorm; ``form`` adds what a training may have besides."""

    def __init__(self, form: str = "") -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.3))
        self.second = nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 16), nn.ReLU(), nn.Dropout(0.3))
        self.third = nn.Sequential(nn.Linear(16, 16), nn.ReLU())
        self.last = nn.Linear(16, 1)
        self.form = form
        if form == "tied":
            self.third[0].weight = self.second[1].weight
        if form == "layer norms":
            self.first[1] = nn.LayerNorm(16)
        if form == "frozen":
            self.first.eval().requires_grad_(False)
        if form == "bf16":
            self.to(torch.bfloat16)
        if form in ("aot_eager", "inductor"):
            self.second = torch.compile(self.second, backend=form)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = checkpoint(self.second, x, use_reentrant=False) if self.form == "checkpointed" else self.second(x)
        return self.last(self.third(x)).squeeze(-1)


def seeded() -> None:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    torch.manual_seed(1)


def loader(workers: int = 0) -> DataLoader[Any]:
    return DataLoader(Drawing(), batch_size=4, shuffle=True, num_workers=workers, persistent_workers=workers > 0)


def digest(model: nn.Module, optimizers: list[torch.optim.Optimizer], losses: list[Any]) -> str:
    """SHA-256 over weights, buffers, flags, optimiser states, random states and losses."""
    states = [model.state_dict(), [module.training for module in model.modules()]]
    states += [optimizer.state_dict() for optimizer in optimizers]
    states += [random.getstate(), np.random.get_state(), torch.get_rng_state(), losses]  # noqa: NPY002
    found = hashlib.sha256()
    for leaf in _leaves(states):
        found.update(leaf)
    return found.hexdigest()


def _leaves(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, list | tuple):
        for entry in value:
            yield from _leaves(entry)
    elif isinstance(value, Tensor):
        value = value.to_local() if hasattr(value, "to_local") else value  # what this rank has of it
        yield value.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    else:
        yield value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()


class Naive:
    """A tracker without any guard: it shows the probe as the model stands."""

    def __init__(self) -> None:
        self.probe = PROBE

    def step(self, model: nn.Module, step: int, **_: Any) -> None:
        if step in LOOKS:
            model(self.probe.to(next(model.parameters()).dtype))

    def prepare(self, model: nn.Module) -> None: ...


class Nothing:
    def step(self, model: nn.Module, step: int, **_: Any) -> None: ...

    def prepare(self, model: nn.Module) -> None: ...


FAULTS = {
    "MemoryError": MemoryError("no memory"),
    "OSError": OSError(28, "No space left on device"),
    "OutOfMemoryError": torch.OutOfMemoryError("CUDA out of memory"),
    "UserWarning": UserWarning("a warning that is an error"),
    "AssertionError": AssertionError(),
}
POINTS = {
    "reading": "dynamics.looks.read_sites",
    "fingerprint": "dynamics.looks.fingerprint",
    "writing": "dynamics.looks.write_snapshot",
    "random states": "torch.set_rng_state",
    "handing over": "dynamics.engines.engine.LaterEngine.snapshots_written",
    "closing": "dynamics.engines.engine.LaterEngine.close",
}


@contextmanager
def failing(mode: str) -> Iterator[None]:
    """In mode ``fault/point/error`` that point raises from when training has begun, and one warning says so."""
    _, point, error = mode.split("/")

    def fail(*_: Any, **__: Any) -> None:
        raise FAULTS[error]

    with ExitStack() as stack:
        caught = stack.enter_context(warnings.catch_warnings(record=True))
        warnings.simplefilter("always", RecorderWarning)
        prepare = Recorder.prepare

        def prepare_and_break(self: Recorder, model: nn.Module, *, until: int | None = None) -> None:
            fresh = self._looks is None
            prepare(self, model, until=until)
            if fresh:
                stack.enter_context(mock.patch(POINTS[point], fail))

        stack.enter_context(mock.patch.object(Recorder, "prepare", prepare_and_break))
        yield
        said = [str(warning.message) for warning in caught if warning.category is RecorderWarning]
        assert len(said) == 1, said
        assert "skipped" in said[0], said


@contextmanager
def tracker(mode: str) -> Iterator[Any]:
    """No tracker (``off``), one without guards (``naive``), or a Recorder with that ``work``."""
    if mode in ("off", "naive"):
        yield Nothing() if mode == "off" else Naive()
        return
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        sites = one_if_inline(mode, "first", "*")
        with behaviour(mode) as settings, Recorder(folder, sites, PROBE, schedule=at(*LOOKS), **settings) as recorder:
            yield recorder
        require_snapshots(folder, mode)


def one_if_inline(mode: str, one: str, all: str) -> str:
    """Which sites are looked at: analysed in the training process, each takes seconds, and one says as much as all."""
    return one if mode == "inline" else all


@contextmanager
def behaviour(mode: str) -> Iterator[dict[str, Any]]:
    """Settings of a tracker whose mode is an engine or a fault."""
    if mode.startswith("fault/"):
        with failing(mode):
            yield {"sae": SAE, "work": "later", "on_error": "warn"}
    else:
        walked = mode == "failing"  # by failpoints.py
        yield {"sae": SAE, "work": "later" if walked else mode, "on_error": "warn" if walked else "raise"}


def require_snapshots(folder: str | Path, mode: str) -> None:
    """A training that is the same because nothing was looked at proves nothing."""
    if mode == "failing" or mode.startswith("fault/"):
        return
    taken = {path.parent.parent.name for path in Path(folder).glob("snapshots/*/*/*/commit.json")}
    assert taken == {f"step_{step:08d}" for step in LOOKS}, taken


def main(trainings: dict[str, Run]) -> None:
    """Prints the digest of each training in each mode asked for: ``name:mode,mode`` arguments."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # the frameworks' own; what ours say is tested elsewhere
    found: dict[str, dict[str, str]] = {}
    for argument in sys.argv[1:]:
        name, _, modes = argument.partition(":")
        found[name] = {mode: trainings[name](mode) for mode in modes.split(",")}
    print(json.dumps(found))
