"""Fails every function of ours, one at a time, once training has begun: the training must not notice.

A point is a function of the package that is called between the first look and the end, and what it raises there is what
anything inside of it could raise. Prints how many there were, and where the training came out changed:

    python tests/undisturbed/failpoints.py EVERY [plain] [lightning] [huggingface] [dying]
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from types import CodeType, FrameType
from typing import Any
from unittest import mock

import ground
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

import dynamics
import dynamics.engines.engine
from dynamics.recorder import Recorder

OURS = str(Path(dynamics.__file__).parent), str(Path(dynamics.__file__).resolve().parents[1] / "callbacks")
ERRORS: list[Exception] = [
    RuntimeError("a bug"),
    OSError(28, "No space left on device"),
    MemoryError("no memory"),
    UserWarning("a warning that is an error"),
]


class Failpoint:
    """Calls of ours from the end of the first look on; the first call of ``at``, if that is given, raises."""

    def __init__(self, at: CodeType | None = None, error: Exception | None = None) -> None:
        self.at, self.error = at, error
        self.reached: list[CodeType] = []
        self.fired = False

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        caller = frame.f_back
        if event != "call" or not _is_ours(frame) or caller is None or not _is_ours(caller):
            return  # what a framework calls can guard what is in it, not that it is called
        if frame.f_code not in self.reached:
            self.reached.append(frame.f_code)
        if frame.f_code is self.at and not self.fired:
            self.fired = True
            assert self.error is not None
            raise self.error

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Armed when the first look is over: before that, what is wrong is to be said."""
        look = Recorder.step

        def step(recorder: Recorder, *given: Any, **named: Any) -> bool:
            first = not recorder._begun
            taken = look(recorder, *given, **named)
            if first:
                sys.setprofile(self)
                threading.setprofile(self)
            return taken

        try:
            with mock.patch.object(Recorder, "step", step), warnings.catch_warnings():
                warnings.simplefilter("error")
                for quiet in ("lightning", "pytorch_lightning", "torch", "transformers"):
                    warnings.filterwarnings("ignore", module=quiet)
                yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(OURS)


Train = Callable[[bool], str]


def walk(train: Train, every: int) -> dict[str, Any]:
    """What came out changed, of how many points; each ``every``-th is tried."""
    wanted, found = train(False), Failpoint()
    with found.armed():
        whole = train(True)
    changed = [] if whole == wanted else ["no fault at all"]
    for code, error in zip(found.reached[::every], cycle(ERRORS), strict=False):
        point = Failpoint(code, error)
        try:
            with point.armed():
                got = train(True)
        except Exception as escaped:
            got = f"{type(escaped).__name__}: {escaped}"
        if got != wanted or not point.fired:
            changed.append(f"{Path(code.co_filename).name}:{code.co_qualname} {type(error).__name__}: {got[:99]}")
    return {"points": len(found.reached[::every]), "changed": changed}


def plain(tracked: bool) -> str:
    import loops

    return loops.train("", "failing" if tracked else "off")


def lightning(tracked: bool, **settings: Any) -> str:
    import lightning_trainer

    return lightning_trainer.fit(lightning_trainer.Module, "failing" if tracked else "off", **settings)


def huggingface(tracked: bool) -> str:
    import huggingface_trainer

    return huggingface_trainer.train("failing" if tracked else "off")


def dying(tracked: bool) -> str:
    """The user's own error at step 7, and checkpoints with the tracker's state in them: both come through."""
    import lightning_trainer

    class Dies(lightning_trainer.Module):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            if self.global_step == 7:
                raise KeyError("the user's own")
            return super().training_step(batch, batch_idx)

    with tempfile.TemporaryDirectory() as folder:
        saved = ModelCheckpoint(folder, every_n_train_steps=3, save_top_k=-1, save_on_exception=True)
        real, made = Trainer.__init__, []

        def init(self: Trainer, *given: Any, **named: Any) -> None:
            named["callbacks"] = [*named["callbacks"], saved]
            real(self, *given, **{**named, "enable_checkpointing": True})
            made.append(self)

        with mock.patch.object(Trainer, "__init__", init):
            try:
                lightning_trainer.fit(Dies, "failing" if tracked else "off")
            except KeyError as error:
                weights = [torch.load(path, weights_only=True)["state_dict"] for path in sorted(Path(folder).iterdir())]
                names = [path.name for path in sorted(Path(folder).iterdir())]
                return f"{error} {names} {ground.digest(made[0].lightning_module, [], weights)}"
        return "ended"


if __name__ == "__main__":
    import logging

    for name in ("lightning.pytorch", "lightning.fabric", "dynamics"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    torch.set_num_threads(1)
    trainings = {"plain": plain, "lightning": lightning, "huggingface": huggingface, "dying": dying}
    every, *names = sys.argv[1:]
    walked = {name: walk(trainings[name], int(every)) for name in names or trainings}
    print(json.dumps(walked, indent=1))
    sys.exit(any(door["changed"] for door in walked.values()))
