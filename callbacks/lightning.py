"""Tracks a Lightning training: ``Trainer(callbacks=[FeatureTracker(...)])``."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from dynamics.capture.batches import count_examples
from dynamics.faults import Faults
from dynamics.position import Place
from dynamics.recorder import SAE, Recorder
from dynamics.sae.config import SaeConfig

from .arguments import named, probe_of, schedule_of
from .guard import guarded
from .scalars import Scalars

SHARDED = ("FSDPStrategy", "DeepSpeedStrategy", "XLAFSDPStrategy")
FULLY_SHARDED = "ModelParallelStrategy"
"""The strategy of FSDP2, which takes ``ranks="all"``."""


class FeatureTracker(Callback):
    """Records a run with a :class:`dynamics.recorder.Recorder`, on rank 0 unless told, from before the first step on.

    It runs in trainers of ``lightning.pytorch`` and ``pytorch_lightning``, whose classes differ, hence ``Any`` below.
    Results are in the run directory, not in this object. ``trainer.test`` and ``validate`` record nothing, nor do the
    searches for a learning rate or a batch size; ``fast_dev_run`` checks the configuration and keeps nothing. While
    training goes on, what becomes known of earlier checkpoints (live, dead, births, deaths, drift beyond the null, FVU)
    goes to the trainer's loggers at the current step, with ``dynamics/step`` beside it; not so with ``work="inline"``
    and ``"later"``, which publish after the end.
    """

    def __init__(
        self,
        run: str,
        sites: str | list[str],
        probe: Any,
        text: list[Any] | None = None,
        mask: Any = None,
        concepts: dict[str, Any] | None = None,
        forward: Any = None,
        schedule: Any = "log",
        sae: SaeConfig = SAE,
        work: Any = "worker",
        ranks: Literal["first", "all"] = "first",
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        """Keeps the arguments; everything is made when training starts.

        They are those of ``Recorder``, and so that a configuration file can hold them, ``probe`` may be
        ``"package.module:function"``, which returns the probe, ``forward`` too, and ``schedule`` ``"log"``, a number n
        (every n steps) or a list of steps. Site names are those of the LightningModule.
        """
        self._run, self._probe, self._forward, self._schedule = str(run), probe, forward, schedule
        self._settings: dict[str, Any] = {
            "sites": sites, "text": text, "mask": mask, "concepts": concepts, "sae": sae, "work": work,
            "ranks": ranks, "on_error": on_error,
        }  # fmt: skip
        self._recorder: Recorder | None = None
        self._scalars: Scalars | None = None
        self._rehearsal: TemporaryDirectory[str] | None = None
        self._samples = 0
        self._place: Place | None = None
        self._left: Place = ("", -1)
        self._state_key = self._generate_state_key(run=self._run, sites=sites)
        self.faults = Faults(on_error == "raise")

    @property
    def state_key(self) -> str:
        """Differs between two trackers of one trainer, so that a checkpoint keeps both."""
        return self._state_key

    @property
    def recorder(self) -> Recorder | None:
        """The recorder while training runs on this rank."""
        return self._recorder

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Makes the recorder, checks the configuration, and looks at the untrained (or resumed) model."""
        alone = self._settings["ranks"] == "first"
        _require_whole_model(type(trainer.strategy).__name__, alone)
        if alone and not trainer.is_global_zero:
            return
        self._close(drain=False)
        self._recorder = Recorder(
            self._directory(bool(trainer.fast_dev_run)),
            probe=probe_of(self._probe),
            forward=named(self._forward),
            schedule=schedule_of(self._schedule),
            **self._settings,
        )
        if self._place is not None:
            self._recorder.resume(self._place)
            self._place = None
        self._recorder.prepare(pl_module, until=_last_step(trainer))
        if trainer.is_global_zero:
            self._scalars = Scalars(self._recorder.directory.scalars)
        self._step(trainer, pl_module, None)

    def _directory(self, rehearsal: bool) -> str:
        """A rehearsal of one batch finds mistakes too, but is no training: it leaves nothing in the run directory."""
        if not rehearsal:
            return self._run
        self._rehearsal = TemporaryDirectory(prefix="dynamics-", ignore_cleanup_errors=True)
        return self._rehearsal.name

    @guarded
    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Looks where a scheduled step was passed: the number repeats while gradients accumulate."""
        if self._recorder is not None:
            self._samples += _examples(batch) * trainer.world_size
            self._step(trainer, pl_module, outputs)
            self._log(trainer)

    def _log(self, trainer: Any) -> None:
        """One checkpoint's numbers, where there are new ones: a logger's fault is not to end training either."""
        values = self._scalars.next() if self._scalars and trainer.loggers else None
        for logger in trainer.loggers if values else ():
            with contextlib.suppress(Exception):
                logger.log_metrics(values, step=trainer.global_step)

    def _step(self, trainer: Any, pl_module: Any, outputs: Any) -> None:
        assert self._recorder is not None
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        self._recorder.step(
            pl_module,
            trainer.global_step,
            loss=loss if isinstance(loss, float | int) or _is_scalar(loss) else None,
            epoch=trainer.current_epoch,
            samples=self._samples,
        )

    @guarded
    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        """Says that no more will come: what is left is analysed in the background."""
        self._close(drain=True)

    @guarded
    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        """Training died: the worker stops after the job in hand."""
        self._close(drain=False)

    @guarded
    def teardown(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Closes what neither an end nor an exception has closed."""
        self._close(drain=False)

    def _close(self, *, drain: bool) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            self._left = recorder.place
            recorder.close(drain=drain and self._rehearsal is None)
        if self._rehearsal is not None:
            self._rehearsal.cleanup()
            self._rehearsal = None

    @guarded
    def state_dict(self) -> dict[str, Any]:
        """Plain values only: anything else breaks a resume that loads weights alone."""
        branch, step = self._left if self._recorder is None else self._recorder.place
        return {"samples": self._samples, "branch": branch, "step": step}

    @guarded
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on where the checkpoint was: with counting examples, and in the branch of the run."""
        self._samples = int(state_dict.get("samples", 0))
        self._place = str(state_dict.get("branch", "")), int(state_dict.get("step", -1))


def _require_whole_model(strategy: str, alone: bool) -> None:
    """Raises ValueError where the ranks that are to show the probe cannot."""
    if strategy in SHARDED:
        way = 'train with strategy "auto" or "ddp", or with ModelParallelStrategy (FSDP2) and ranks="all"'
    elif strategy == FULLY_SHARDED and alone:
        way = 'give ranks="all"'
    else:
        return
    raise ValueError(
        f"{strategy} spreads the model over processes, and one alone cannot show it the probe; {way}, or record saved "
        "checkpoints afterwards with a Recorder"
    )


def _is_scalar(loss: Any) -> bool:
    return isinstance(loss, Tensor) and loss.numel() == 1


def _examples(batch: Any) -> int:
    """Length of the first tensor; of an unusual batch nothing is known, and counting must never end a training."""
    try:
        return count_examples(batch)
    except Exception:
        return 0


def _last_step(trainer: Any) -> int | None:
    """Where training will end, if that is known."""
    try:
        steps = trainer.estimated_stepping_batches
    except Exception:
        return None
    return int(steps) if torch.tensor(float(steps)).isfinite() and steps > 0 else None
