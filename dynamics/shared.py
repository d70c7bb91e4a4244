"""Recording by every rank of a training: each shows its share of the probe, and the first commits what is complete."""

from __future__ import annotations

import time
from collections import deque

from torch import Tensor, nn

from dynamics.capture.probe import Probe
from dynamics.capture.reading import Forward, Reading, fingerprint, read_sites
from dynamics.capture.share import Share
from dynamics.faults import Faults, OutOfStepError
from dynamics.files.layout import RunDirectory
from dynamics.files.shards import Shard, clear_shards, join_shards, remove_shards, write_shard
from dynamics.files.snapshots import SnapshotRecord
from dynamics.schedule import Schedule

WAITING = 16
"""Snapshots of a site that are kept although a rank's rows are missing."""
PATIENCE = 2.0
"""Seconds to wait for them at the end of a training."""
POLL = 0.02


class IncompleteSnapshotError(RuntimeError):
    """Rows of a snapshot are missing, which another rank was to write."""


class Shared:
    """What one rank does of the looks of all, without ever waiting for another.

    When to look follows from the schedule and the steps alone, and so is the same on every rank, whatever went wrong
    on one.

    Args:
        run: the run, on a disk that all ranks see.
        share: which rank this is.
        schedule: when to look.
        collective: a forward pass takes all ranks, and what each has of the weights is its own.
        faults: where what goes wrong is counted.
    """

    def __init__(self, run: RunDirectory, share: Share, schedule: Schedule, collective: bool, faults: Faults) -> None:
        self.share, self.collective = share, collective
        self._run, self._schedule, self._faults = run, schedule, faults
        self._looked: int | None = None
        self._at = -1
        self._looks = 0
        self._mark = ""
        self._waiting: deque[tuple[SnapshotRecord, Shard]] = deque()

    def due(self, step: int) -> bool:
        """Whether to look: a step is scheduled, or one was passed since the last look."""
        if self._looked is None or step < self._at:
            self._looked = step - 1
        self._at = step
        if not self._schedule.due(self._looked, step):
            return False
        self._looked, self._looks = step, self._looks + 1
        return True

    def shown(self, model: nn.Module, probe: Probe, sites: list[str], forward: Forward | None) -> dict[str, Reading]:
        """This rank's share, read before anything else is done: the others may be waiting in the same forward pass.

        Raises:
            OutOfStepError: if that failed, and they do.
        """
        try:
            readings = read_sites(model, probe, sites, forward, share=self.share)
        except Exception as error:
            if not self.collective:
                raise
            raise OutOfStepError(
                f"rank {self.share.rank} could not show its share of the probe at step {self._at} "
                f"({type(error).__name__}: {error}), and the others wait for it; training ends"
            ) from error
        self.mark(model)
        return readings

    def mark(self, model: nn.Module) -> None:
        """Says which weights this look has seen; where each rank has a part of them, the looks are counted too."""
        alike = fingerprint(model, spread=False)
        self._mark = f"look {self._looks} of {alike}" if self.collective else alike

    def write(self, record: SnapshotRecord, rows: Tensor) -> None:
        """Puts this rank's rows beside those of the others; to be joined on the first rank, which has the facts."""
        shard = Shard(self.share, record.probe, self._mark)
        write_shard(self._run, record, shard, rows)
        self._waiting.append((record, shard))

    def join(self) -> bool:
        """Commits what is complete; on other ranks than the first, only sees to it that no more than some waits.

        Returns:
            Whether anything was committed. Never raises: training goes on.
        """
        waiting = len(self._waiting)
        try:
            if self.share.rank == 0:
                self._waiting = deque(each for each in self._waiting if not join_shards(self._run, *each))
        except Exception as error:
            self._faults.skip(error, "joining what the ranks wrote")
        joined = len(self._waiting) < waiting
        sites = len({record.site for record, _ in self._waiting})
        for _ in range(len(self._waiting) - WAITING * sites):
            record, _ = self._waiting.popleft()
            remove_shards(self._run, record.site, record.step)
            self._give_up(record)
        return joined

    def _give_up(self, record: SnapshotRecord) -> None:
        if self.share.rank == 0:
            missing = IncompleteSnapshotError(
                "another rank did not write its rows, or with other weights: BatchNorm's are of each rank's own, and "
                'want ranks="first"'
            )
            self._faults.skip(missing, f"snapshot of {record.site!r} at step {record.step}")

    def close(self, *, wait: bool) -> None:
        """On the first rank, waits a little for what the others are still writing, and gives up the rest."""
        if self.share.rank > 0:
            return
        until = time.monotonic() + PATIENCE
        while wait and self._waiting and time.monotonic() < until:
            self.join()
            time.sleep(POLL)
        clear_shards(self._run)
        for record, _ in self._waiting if wait else ():
            self._give_up(record)
