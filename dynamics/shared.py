"""Recording by every rank of a training: each shows its share of the probe, and the first commits what is complete."""

from __future__ import annotations

import time
from collections import deque

from torch import Tensor, nn

from dynamics.capture.reading import fingerprint
from dynamics.capture.share import Share
from dynamics.files.layout import RunDirectory
from dynamics.files.shards import Shard, join_shards, remove_shards, write_shard
from dynamics.files.snapshots import SnapshotRecord
from dynamics.schedule import Schedule

WAITING = 16
"""Snapshots of a site that are kept although a rank's rows are missing."""
PATIENCE = 2.0
"""Seconds to wait for them at the end of a training."""
POLL = 0.02


class Shared:
    """What one rank does of the looks of all, without ever waiting for another.

    When to look follows from the schedule and the steps alone, and so is the same on every rank, whatever went wrong
    on one.

    Args:
        run: the run, on a disk that all ranks see.
        share: which rank this is.
        schedule: when to look.
        collective: a forward pass takes all ranks, and what each has of the weights is its own.
    """

    def __init__(self, run: RunDirectory, share: Share, schedule: Schedule, collective: bool) -> None:
        self.share, self.collective = share, collective
        self._run, self._schedule = run, schedule
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

    def mark(self, model: nn.Module) -> None:
        """Says which weights this look has seen; where each rank has a part of them, the looks are counted too."""
        alike = fingerprint(model, spread=False)
        self._mark = f"look {self._looks} of {alike}" if self.collective else alike

    def write(self, record: SnapshotRecord, rows: Tensor) -> None:
        """Puts this rank's rows beside those of the others; to be joined on the first rank, which has the facts."""
        shard = Shard(self.share, record.probe, self._mark)
        write_shard(self._run, record.site, record.step, shard, rows)
        self._waiting.append((record, shard))

    def join(self) -> tuple[bool, list[SnapshotRecord]]:
        """Commits what is complete; on other ranks than the first, only sees to it that no more than some waits.

        Returns:
            Whether anything was committed, and what is given up since a rank's rows are still missing.
        """
        waiting = len(self._waiting)
        if self.share.rank == 0:
            self._waiting = deque(each for each in self._waiting if not join_shards(self._run, *each))
        joined = len(self._waiting) < waiting
        sites = len({record.site for record, _ in self._waiting})
        late = [self._waiting.popleft()[0] for _ in range(len(self._waiting) - WAITING * sites)]
        for record in late:
            remove_shards(self._run, record.site, record.step)
        return joined, late if self.share.rank == 0 else []

    def join_last(self) -> list[SnapshotRecord]:
        """Waits a little for what the other ranks are still writing. Returns what stays incomplete."""
        until = time.monotonic() + PATIENCE
        while self._waiting and time.monotonic() < until:
            self.join()
            time.sleep(POLL)
        return [record for record, _ in self._waiting]
