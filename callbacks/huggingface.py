"""Tracks a Hugging Face training: ``Trainer(callbacks=[FeatureTracker(...)])``."""

from __future__ import annotations

import contextlib
import traceback
from typing import Any, Literal

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK
from transformers.trainer_callback import CallbackHandler

from dynamics.faults import Faults
from dynamics.position import Place
from dynamics.recorder import SAE, Recorder
from dynamics.sae.config import SaeConfig

from .arguments import named, probe_of, schedule_of
from .guard import guarded
from .scalars import Scalars


class FeatureTracker(TrainerCallback):
    """Records a run with a :class:`dynamics.recorder.Recorder`, on the first process unless told, step 0 included.

    The trainer shows a callback no loss but what it logs: the mean since it logged last. So the loss that is kept is
    that of the step itself with ``logging_steps=1``, and else the last mean, of this step or of one before it.

    While training goes on, what becomes known of earlier checkpoints (live, dead, births, deaths, drift beyond the
    null, FVU) goes to whatever the trainer reports to (``report_to``), at the current step, with ``dynamics/step``
    beside it; the integrations put ``train/`` before these names as before all others.
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

        They are those of ``Recorder``; ``probe``, ``forward`` and ``schedule`` may be plain values as in
        ``dynamics.callbacks.lightning``. A tokenizer's output is a probe: its ``attention_mask`` leaves padding out.
        """
        self._run, self._probe, self._forward, self._schedule = str(run), probe, forward, schedule
        self._settings: dict[str, Any] = {
            "sites": sites, "text": text, "mask": mask, "concepts": concepts, "sae": sae, "work": work,
            "ranks": ranks, "on_error": on_error,
        }  # fmt: skip
        self._recorder: Recorder | None = None
        self._kept = f"dynamics {self._run}"
        self._scalars: Scalars | None = None
        self._reporters: list[TrainerCallback] = []
        self.faults = Faults(on_error == "raise")

    @property
    def recorder(self) -> Recorder | None:
        """The recorder while training runs on this process."""
        return self._recorder

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Makes the recorder, checks the configuration, and looks at the untrained (or resumed) model."""
        if getattr(args, "fsdp", None) or getattr(args, "deepspeed", None):
            raise ValueError(
                "FSDP and DeepSpeed spread the model over processes, and one alone cannot show it the probe; train "
                "without, or record saved checkpoints afterwards with a Recorder"
            )
        if self._settings["ranks"] == "first" and not state.is_world_process_zero:
            return
        if self._recorder is not None:
            self._recorder.close(drain=False)
        self._recorder = Recorder(
            self._run,
            probe=probe_of(self._probe),
            forward=named(self._forward),
            schedule=schedule_of(self._schedule),
            **self._settings,
        )
        if (place := self._place_in(state)) is not None:
            self._recorder.resume(place)
        self._recorder.prepare(kwargs["model"], until=state.max_steps if state.max_steps > 0 else None)
        self._scalars, self._reporters = Scalars(self._recorder.directory.scalars), _reporters()
        self._look(args, state, control, **kwargs)

    def _place_in(self, state: TrainerState) -> Place | None:
        """Where the run was when the checkpoint was written that this training is resumed from, if it says so."""
        try:
            states: Any = state.stateful_callbacks
            kept = states[self._kept]["attributes"]
            return str(kept["branch"]), int(kept["step"])
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    @guarded
    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Looks where a scheduled step was passed; where its loss is about to be logged, when that is done."""
        if not control.should_log:
            self._look(args, state, control, **kwargs)
        self._keep_place(state)
        self._report(args, state, control, **kwargs)

    def _report(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """One checkpoint's numbers, where there are new ones: what a reporter raises is not to end training either."""
        values = self._scalars.next() if self._scalars and self._reporters else None
        for reporter in self._reporters if values else ():
            with contextlib.suppress(Exception):
                reporter.on_log(args, state, control, logs=dict(values or {}), model=kwargs.get("model"))

    @guarded
    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Looks where a scheduled step was passed: nothing was trained since the end of the step."""
        self._look(args, state, control, **kwargs)
        self._keep_place(state)

    def _look(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._recorder is not None:
            logged = next((entry["loss"] for entry in reversed(state.log_history) if "loss" in entry), None)
            samples = state.global_step * args.train_batch_size * args.gradient_accumulation_steps * args.world_size
            self._recorder.step(kwargs["model"], state.global_step, loss=logged, epoch=state.epoch, samples=samples)

    def _keep_place(self, state: TrainerState) -> None:
        """Puts it where the trainer writes it into its checkpoints, in the form that those have."""
        if self._recorder is not None:
            branch, step = self._recorder.place
            states: Any = state.stateful_callbacks
            states[self._kept] = {"args": {}, "attributes": {"branch": branch, "step": step}}

    @guarded
    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Says that no more will come: what is left is analysed in the background."""
        self._look(args, state, control, **kwargs)  # where the last step was to be logged and was not
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.close()


def _reporters() -> list[TrainerCallback]:
    """The trainer's own callbacks of ``report_to``. A callback is given no trainer: it is among those who call it."""
    kinds: Any = tuple(INTEGRATION_TO_CALLBACK.values())
    for frame, _ in traceback.walk_stack(None):
        handler = frame.f_locals.get("self")
        if isinstance(handler, CallbackHandler):
            return [callback for callback in handler.callbacks if isinstance(callback, kinds)]
    return []
