"""Looks: what is taken of a model at a step, and where that belongs in the history of its run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from dynamics.capture.probe import Probe
from dynamics.capture.reading import Forward, Reading, fingerprint, read_sites
from dynamics.capture.sharded import is_sharded
from dynamics.capture.sites import unwrapped
from dynamics.faults import Faults
from dynamics.files.commits import is_committed
from dynamics.files.layout import RunDirectory
from dynamics.files.snapshots import SnapshotRecord, write_snapshot
from dynamics.position import Place, Position
from dynamics.recorded import RecordedSite
from dynamics.schedule import Schedule
from dynamics.shared import Shared

Loss = float | int | Tensor | None
WRITERS = 4
"""Threads that write the sites of one snapshot; each holds the bytes of one."""
log = logging.getLogger("dynamics")


class Looks:
    """Takes the snapshots of one training, and follows it along the recorded steps of its run.

    Args:
        run: the run.
        sites: what the rows of each site are, and which of its snapshots are on record.
        probe: what is shown to the model.
        forward: how a batch of it is shown.
        schedule: when to look.
        shared: this rank's part, where all ranks look.
        faults: where what goes wrong is counted.
    """

    def __init__(
        self,
        run: RunDirectory,
        sites: Sequence[RecordedSite],
        probe: Probe,
        forward: Forward | None,
        schedule: Schedule,
        shared: Shared | None,
        faults: Faults,
    ) -> None:
        self.sites = sites
        self._run, self._probe, self._forward, self._schedule = run, probe, forward, schedule
        self._shared, self._faults = shared, faults
        marks = {place: weights for site in sites for place, weights in site.recorded.items()}
        self._position = Position(run.timelines(), marks)

    @property
    def place(self) -> Place:
        """Where the training is in the run: a branch, and the last step of it."""
        return self._position.place

    @property
    def steps(self) -> list[int]:
        """The recorded steps of the timeline that is followed, in no order."""
        return self._position.steps()

    def begin(self, model: nn.Module, step: int, place: Place | None) -> None:
        """The training starts or is resumed at ``step``; its checkpoint may have kept the ``place``.

        Raises:
            ValueError: if the run begins with other weights at that step: it is of another training.
        """
        try:
            weights = fingerprint(model)
        except Exception:
            weights = None  # a model of which no fingerprint can be taken is warned about at its snapshots
        self._position.begin(step, weights, place)
        if self._position.is_foreign(step, weights):
            spread = ", or was spread over another number of processes" if is_sharded(model) else ""
            raise ValueError(
                f"{self._run.path} holds another training: its model had other weights at step {step}{spread}; "
                "name a directory of its own for this one"
            )

    def due(self, model: nn.Module, step: int) -> bool:
        """Whether the schedule or what is on record asks for a look."""
        if self._shared is not None:  # nothing of this rank's own may decide
            return self._shared.due(step)
        return self._follow(model, step)

    def _follow(self, model: nn.Module, step: int) -> bool:
        if self._position.goes_back(step):
            self._position.begin(step, fingerprint(unwrapped(model)))
        return self._position.due(self._schedule, step)

    def take(self, model: nn.Module, facts: SnapshotRecord, loss: Loss) -> bool:
        """Writes a snapshot of every site that is not on record.

        Args:
            model: the model, without what wraps it.
            facts: what else is known; its step is the one that is looked at.
            loss: at that step; a tensor is read here.

        Returns:
            Whether any was written.
        """
        shown: dict[str, Reading] = {}
        if self._shared is not None:
            shown = self._shared.shown(model, self._probe, [site.name for site in self.sites], self._forward)
            if self._shared.share.rank > 0:
                return self._write(self.sites, shown, replace(facts, fingerprint=fingerprint(model)))
            self._follow(model, facts.step)
        weights = fingerprint(model)
        leaves = self._position.judged(facts.step, weights) == "leaves"
        wanted = [site for site in self.sites if leaves or not self._has(site, facts.step)]
        if not wanted:
            return False
        readings = shown or read_sites(model, self._probe, [site.name for site in wanted], self._forward)
        if leaves:
            self._leave()
        elif any(self._folder(site, facts.step).is_dir() for site in wanted):
            log.warning("recovered: step %d of %s was incomplete; taking it again", facts.step, self._run.path)
        value = loss.detach() if isinstance(loss, Tensor) else loss
        branch = self._position.timeline.owner(facts.step)
        facts = replace(facts, branch=branch, fingerprint=weights, loss=None if value is None else float(value))
        taken = self._write(wanted, readings, facts)
        if taken:
            self._position.took(facts.step, weights)
        return taken

    def _has(self, site: RecordedSite, step: int) -> bool:
        """Asks the disk, so that memory does not grow with the snapshots of every site."""
        return is_committed(self._folder(site, step))

    def _folder(self, site: RecordedSite, step: int) -> Path:
        return self._run.snapshot(site.name, step, self._position.timeline.owner(step))

    def _leave(self) -> None:
        """The training left its recorded history, which stays: it goes on in a branch of its own."""
        old, shared, last = self._position.timeline, self._position.shared, max(self.steps, default=-1)
        new = self._run.add_branch(old.owner(shared), shared)
        self._position.branched(new)
        since = f"after step {shared}" if shared >= 0 else "from the start"
        log.warning(
            "%s has another history %s: it is kept up to step %d as branch %s, superseded; recording branch %s",
            *(self._run.path, since, last, old.branch, new.branch),
        )

    def _write(self, sites: Sequence[RecordedSite], readings: dict[str, Reading], facts: SnapshotRecord) -> bool:
        """Whether any site was written; a disk flushes several files at once about as fast as one."""
        commit = partial(write_snapshot, self._run) if self._shared is None else self._shared.write
        with ThreadPoolExecutor(WRITERS) as writers:
            tried = [(site, writers.submit(site.write, commit, readings[site.name], facts)) for site in sites]
        for site, written in tried:
            if isinstance(error := written.exception(), Exception):
                self._faults.skip(error, f"snapshot of {site.name!r} at step {facts.step}")
        return any(written.exception() is None for _, written in tried)
