"""The recorder: looks at a model while it trains, writes what it saw, and hands it over to be analysed."""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, SupportsIndex

from filelock import BaseFileLock
from torch import nn

from dynamics.answers import counted, size
from dynamics.capture.guard import aside
from dynamics.capture.probe import Probe, Text
from dynamics.capture.reading import Forward, read_sites
from dynamics.capture.sharded import is_sharded
from dynamics.capture.share import WHOLE, Share
from dynamics.capture.sites import match_sites, site_modules, unwrapped
from dynamics.faults import Faults, RecorderWarning, show_messages
from dynamics.files.layout import BRANCH, RunDirectory
from dynamics.files.probes import write_probe
from dynamics.files.settings import only_recorder, require_settings, write_recording, write_settings
from dynamics.files.shards import clear_shards, own_fingerprint
from dynamics.files.snapshots import SnapshotRecord
from dynamics.looks import Looks, Loss
from dynamics.position import Place
from dynamics.recorded import RecordedSite
from dynamics.requirements import Ranks, require_kinds, require_ranks, require_words, whole
from dynamics.sae.config import SaeConfig
from dynamics.schedule import Schedule, log_spaced
from dynamics.shared import Shared

if TYPE_CHECKING:
    from dynamics.engines.engine import Engine

__all__ = ["SAE", "Recorder", "RecorderWarning"]

SCHEDULE = log_spaced()
SAE = SaeConfig()
log = logging.getLogger("dynamics")


class Recorder:
    """Takes snapshots of a model's activations at scheduled steps, without changing or breaking its training.

    Mistakes in the configuration raise when the recorder is made or when it first sees the model (:meth:`prepare`).
    From then on nothing raises into training: what goes wrong is warned about once per kind and counted in ``skipped``.
    As a context manager it is closed at the end; where the body raises, the worker stops after the job in hand.

    Args:
        run: directory of the run, made or opened; snapshots that it holds already are not taken again.
        sites: names of modules whose output is read, or patterns of them (``"blocks.*.mlp"``).
        probe: inputs to show at every checkpoint, as for :meth:`Probe.freeze`, or a ``Probe``.
        text: text of each row of the probe; this and the next two as for :meth:`Probe.freeze`.
        mask: which positions of the probe count.
        concepts: named row masks.
        forward: ``forward(model, batch)`` shows a batch of the probe to the model; default ``model(batch)``,
            ``model(*batch)`` or ``model(**batch)`` by the batch's type.
        schedule: the steps to look at.
        sae: settings of the autoencoders, which stay the same for the whole run.
        work: who analyses the snapshots: ``"worker"`` (a background process), ``"inline"``, ``"later"``
            (``dynamics analyze``), or an executor with ``submit()``.
        ranks: who shows the probe where several processes train: the ``"first"``, or ``"all"``, each its share of the
            batches, to a run directory that all of them see. A model that FSDP2 (``fully_shard``) spreads over the
            ranks takes all; there a rank on which the forward pass fails ends the training, as it would in training.
        on_error: ``"raise"`` lets faults during training through, for tests.

    Raises:
        ValueError, TypeError: if the probe or an argument is wrong.
        OSError: if the directory cannot be made or written, or holds something else.
    """

    def __init__(
        self,
        run: str | Path,
        sites: str | Sequence[str],
        probe: Any,
        *,
        text: Text | None = None,
        mask: Any = None,
        concepts: Mapping[str, Any] | None = None,
        forward: Forward | None = None,
        schedule: Schedule = SCHEDULE,
        sae: SaeConfig = SAE,
        work: Any = "worker",
        ranks: Ranks = "first",
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        require_kinds(schedule, sae)
        require_words(on_error=(on_error, "warn", "raise"), ranks=(ranks, "first", "all"))
        show_messages()
        self.probe: Probe = _frozen(probe, text=text, mask=mask, concepts=concepts)
        self._directory = RunDirectory.create(run)
        self._patterns, self._forward, self._schedule, self._sae = sites, forward, schedule, sae
        self._work, self._ranks = work, ranks
        self._faults = Faults(on_error == "raise", self._directory.skipped)
        self._looks: Looks | None = None
        self._engine: Engine | None = None
        self._shared: Shared | None = None
        self._resumed: Place | None = None
        self._held: BaseFileLock | None = None
        self._begun = self._closed = False

    @property
    def run(self) -> Path:
        """The run directory."""
        return self._directory.path

    @property
    def directory(self) -> RunDirectory:
        """Where things are in it."""
        return self._directory

    @property
    def skipped(self) -> Counter[str]:
        """How many snapshots were not taken, by what went wrong."""
        return self._faults.counts

    @property
    def place(self) -> Place:
        """Where the training is in the run, for a checkpoint to keep: a branch, and the last step of it."""
        return (BRANCH, -1) if self._looks is None else self._looks.place

    def resume(self, place: Place) -> None:
        """Says, before the first step, which ``place`` the checkpoint has kept that training is resumed from.

        Without it the weights tell, but only at a step that is on record.
        """
        self._resumed = place

    def prepare(self, model: nn.Module, *, until: int | None = None) -> None:
        """Checks everything that can only be checked with the model, by showing it the probe once, and says the size.

        Called by the first :meth:`step` where it was not called before; call it before the first training step.

        Args:
            model: the model, wrapped or not.
            until: last training step, where it is known; only for the size that is said.

        Raises:
            ValueError: if a site does not exist or gives no rows, text or concepts do not fit the rows, the run was
                recorded with another probe or other settings, or ``work`` is unknown or impossible here.
            RuntimeError: if another process records the run.
            DisturbedModelError: if showing the probe writes to the model.
        """
        model, here = unwrapped(model), Share.here()
        require_ranks(model, self._ranks)
        if self._looks is not None or (here.rank > 0 and self._ranks == "first"):
            return
        if self._ranks == "all" and here.of > 1:
            self._shared = Shared(self._directory, here, self._schedule, is_sharded(model), self._faults)
        from dynamics.engines.engine import engine  # late: it brings the database's library, which importing need not

        made = engine(self._directory, self._work)
        if self._work == "inline" and here.of > 1:
            raise ValueError('work="inline" would keep the other training processes waiting; use "worker" or "later"')
        if here.rank > 0:  # what is refused on the first is so on each, by itself: none waits for one that has ended
            sites = self._seen(model)
            require_settings(self._directory, self._sae)
            self._looks = self._looking(sites)
            return
        held = only_recorder(self._directory)
        try:
            self._looks = self._looking(self._settled(model))
        except BaseException:
            held.release()
            raise
        self._held, self._engine = held, made
        self._say_size(self._looks, until)

    def _looking(self, sites: list[RecordedSite]) -> Looks:
        schedule, faults = self._schedule, self._faults
        return Looks(self._directory, sites, self.probe, self._forward, schedule, self._shared, faults)

    def _seen(self, model: nn.Module) -> list[RecordedSite]:
        with aside():
            names = match_sites(site_modules(model), self._patterns)
            readings = read_sites(model, self.probe, names, self._forward, share=self._share)
            weights = partial(own_fingerprint, share=self._share, spread=is_sharded(model))
            sites = [
                RecordedSite.of(name, read, self.probe, self._directory, weights) for name, read in readings.items()
            ]
        for site in sites:
            self._sae.resolved(site.d_in)
        return sites

    def _settled(self, model: nn.Module) -> list[RecordedSite]:
        if self._shared is None or self._shared.collective:
            clear_shards(self._directory)  # before another rank can write one: its forward pass waits for ours
        sites = self._seen(model)
        write_settings(self._directory, self._sae)
        for site in sites:
            write_probe(self._directory, site.probe, self.probe.rows(site.positions))
        write_recording(self._directory, closed=False)
        return sites

    @property
    def _share(self) -> Share:
        return WHOLE if self._shared is None else self._shared.share

    def _say_size(self, looks: Looks, until: int | None) -> None:
        each, last = sum(site.expected_bytes(self.probe) for site in looks.sites), max(looks.steps, default=-1)
        count = 1 if until is None else len([step for step in self._schedule.steps(until) if step > last])
        total = f", {count} of them until step {until}: {size(each * count)}" if until is not None else ""
        names = counted(len(looks.sites), "site")
        known = f"; it has snapshots up to step {last}, and goes on after that" if last >= 0 else ""
        log.info("recording %s to %s: %s per snapshot%s%s", names, self.run, size(each), total, known)
        free = shutil.disk_usage(self.run).free
        if free < each * count:
            self._faults.warn(f"{self.run} has {size(free)} free, but the snapshots will take {size(each * count)}")

    def step(
        self,
        model: nn.Module,
        step: SupportsIndex,
        *,
        loss: Loss = None,
        epoch: float | int | None = None,
        samples: int | None = None,
    ) -> bool:
        """Takes a snapshot of every site if a scheduled step was reached or passed since the last look.

        Call it before the first training step with 0, then after every optimiser step. Where training was resumed, or
        goes back, to an earlier step, what it repeats is not taken again; from where it goes on otherwise, it is
        recorded in a new branch, and what that took the place of is kept. Under data-parallel training
        call it on any rank: only rank 0 looks, or with ``ranks="all"`` all do, at the same steps. A tensor as ``loss``
        is read only when a snapshot is taken.

        Args:
            model: the model, wrapped or not.
            step: optimiser steps done, a whole number of any kind (Python's, NumPy's, a tensor of one integer).
            loss: training loss at that step.
            epoch: epochs done.
            samples: training examples seen.

        Returns:
            Whether a snapshot was taken.

        Raises:
            ValueError, TypeError: only on the first call, as :meth:`prepare`, if that has no whole number as step, or
                if the run begins with other weights at that step: it is of another training.
            OutOfStepError: if showing the probe takes all ranks, and failed on this one.
        """
        if not self._begun:
            self._begin(model, whole(step))
        try:
            return self._look(model, step, loss, epoch, samples)
        except Exception as error:
            self._faults.skip(error, f"snapshot at step {step}")
            return False

    def _begin(self, model: nn.Module, step: int) -> None:
        """Raises ValueError where the run began with other weights: it is of another training."""
        self.prepare(model)
        if self._looks is not None:
            try:
                self._looks.begin(unwrapped(model), step, self._resumed)
            except ValueError:
                self._let_go()
                raise
        self._begun = True

    def _look(self, model: nn.Module, step: Any, loss: Loss, epoch: float | int | None, samples: int | None) -> bool:
        number = whole(step)
        self._join()
        if self._looks is None or self._closed or not self._looks.due(model, number):
            return False
        with aside():
            epochs = None if epoch is None else float(epoch)
            facts = SnapshotRecord(site="", step=number, probe="", epoch=epochs, samples=samples)
            taken = self._looks.take(unwrapped(model), facts, loss)
            if taken:
                self._join() if self._shared else self._hand_over()
        return taken

    def _join(self) -> None:
        """Commits what other ranks have completed meanwhile."""
        if self._shared is not None and self._shared.join():
            self._hand_over()

    def _hand_over(self) -> None:
        try:
            assert self._engine is not None
            self._engine.snapshots_written()
        except Exception as error:
            self._faults.skip(error, f"analysis (`dynamics analyze {self.run}` does it)")

    def close(self, wait: bool = False, *, drain: bool = True) -> None:
        """Says that no more snapshots will come.

        Args:
            wait: return only when everything is analysed, with a progress bar; else the worker goes on by itself.
            drain: false where training died: the worker stops after the job in hand.
        """
        if self._closed or self._looks is None:
            return
        self._closed = True
        try:
            if self._shared is not None:
                self._shared.close(wait=drain)
            if self._engine is not None:
                self._end(self._engine, wait, drain)
            self._faults.sum_up(self.run)
        except Exception as error:
            self._faults.skip(error, "closing the run")

    def _end(self, engine: Engine, wait: bool, drain: bool) -> None:
        try:
            with aside():
                write_recording(self._directory, closed=True)
                line = engine.close(wait=wait) if drain else engine.abandon()
            log.info("%s (%s on disk)", line, counted(len(self._looks.steps if self._looks else ()), "checkpoint"))
        finally:
            self._let_go()

    def _let_go(self) -> None:
        """Lets others record the run."""
        if self._held is not None:
            self._held.release()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close(drain=kind is None)
        except Exception as fault:
            self._faults.skip(fault, "closing the run")


def _frozen(probe: Any, **rows: Any) -> Probe:
    if not isinstance(probe, Probe):
        return Probe.freeze(probe, **rows)
    if any(value is not None for value in rows.values()):
        raise ValueError("text, mask and concepts are part of a Probe that is frozen; give them to Probe.freeze")
    return probe
