"""What the rows of a site are, fixed for the whole run, and which of its snapshots were there at the start."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from dynamics.capture.probe import Probe
from dynamics.capture.reading import Reading
from dynamics.files.layout import RunDirectory
from dynamics.files.snapshots import SnapshotRecord, all_snapshots

Commit = Callable[[SnapshotRecord, Tensor], object]
Weights = Callable[[SnapshotRecord], str | None]


@dataclass(frozen=True)
class RecordedSite:
    """What the rows of a site are, fixed for the whole run."""

    name: str
    rows: int
    """Those that this process reads: all, where it does not share the probe with others."""
    d_in: int
    positions: int | None
    probe: str
    recorded: dict[tuple[str, int], str | None]
    """Branches and steps of which there was a snapshot at the start, with the fingerprint of the model."""

    @classmethod
    def of(cls, name: str, reading: Reading, probe: Probe, run: RunDirectory, weights: Weights) -> RecordedSite:
        """A site as the model has just shown it; ``weights`` says what a snapshot's fingerprint is on this rank.

        Raises:
            ValueError: if text or concepts do not fit the rows, or the run has snapshots that do not.
        """
        probe.rows(reading.positions)
        rows, d_in = reading.activations.shape
        records = all_snapshots(run, name)
        recorded = {(record.branch, record.step): weights(record) for record in records}
        site = cls(name, rows, d_in, reading.positions, probe.rows_digest(reading.positions), recorded)
        for record in records:
            site.require_same(record, run.path)
        return site

    def expected_bytes(self, probe: Probe) -> int:
        """Size of a snapshot, of which other ranks may write a part."""
        return probe.layout(self.positions).n_rows * self.d_in * torch.float32.itemsize

    def require_same(self, record: SnapshotRecord, run: Path) -> None:
        """Raises ValueError where a snapshot has other rows or another width than the model gives now, or is pruned."""
        if record.pruned:
            raise ValueError(f"{run} was pruned, so that it cannot be gone on with; name another run directory")
        if record.probe != self.probe:
            raise ValueError(
                f"{run} was recorded with another probe ({record.probe[:8]}, now {self.probe[:8]}), so that features "
                "before and after could not be compared; give the same probe, text, mask and concepts, or another run"
            )
        if record.d_in != self.d_in:
            raise ValueError(
                f"site {self.name!r} has width {self.d_in}, but {record.d_in} at step {record.step} of {run}; "
                "use another run directory"
            )

    def write(self, commit: Commit, reading: Reading, facts: SnapshotRecord) -> None:
        """Commits what was read, unless it cannot be used."""
        self.require_rows(reading)
        commit(replace(facts, site=self.name, probe=self.probe), reading.activations)

    def require_rows(self, reading: Reading) -> None:
        """Raises UnusableActivationsError where a reading has another shape than at the start, or is not finite."""
        shape = tuple(reading.activations.shape)
        if shape != (self.rows, self.d_in) or reading.positions != self.positions:
            raise UnusableActivationsError(f"activations are {shape}, at the start they were {(self.rows, self.d_in)}")
        if torch.isfinite(reading.activations.sum()):
            return  # quicker than looking at each, which a sum that overflows calls for too
        finite = torch.isfinite(reading.activations)
        if not finite.all():
            share = 1 - float(finite.float().mean())
            raise UnusableActivationsError(f"{share:.2%} of the activations are NaN or infinite")


class UnusableActivationsError(ValueError):
    """The activations of one site at one step cannot be used."""
