"""Trainings that are killed, go back and are resumed at random, held against what they themselves remember."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from torch import nn

from dynamics.files import RunDirectory
from dynamics.files.snapshots import all_snapshots, load_activations, snapshots
from dynamics.position import Place
from dynamics.recorder import Recorder
from dynamics.schedule import every

PROBE = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
EACH = 3
"""Steps between two looks."""
START = 1.0
STEPS, LUCK = st.integers(1, 9), st.integers(0, 2)


@dataclass(frozen=True)
class Trail:
    """The past of a training: its one weight after each step. The model never looks at the run directory."""

    weights: tuple[float, ...]

    @property
    def step(self) -> int:
        return len(self.weights) - 1

    @property
    def looks(self) -> list[tuple[int, float]]:
        """The steps that a recorder looks at, with the weight."""
        return [(step, weight) for step, weight in enumerate(self.weights) if step % EACH == 0]

    def after(self, luck: int) -> Trail:
        """One step on; with the same luck it is the same step again."""
        return Trail((*self.weights, float((self.weights[-1] * 31 + luck * 7 + 1) % 65521)))


class Rewinding(RuleBasedStateMachine):
    """A training with a recorder, its checkpoints, and everything that was acknowledged."""

    total = 0
    """Snapshots that all of them together were told were taken."""

    @initialize()
    def begin(self) -> None:
        """A new directory and an untrained model."""
        self.folder = Path(tempfile.mkdtemp(prefix="rewinding-"))
        self.trail = Trail((START,))
        self.saved: list[tuple[Trail, Place | None]] = [(self.trail, None)]
        self.acknowledged: set[tuple[int, float]] = set()
        self.recorder: Recorder | None = None
        self.taken = False
        self._start()

    def _start(self, place: Place | None = None) -> None:
        self._stop()
        self.recorder = Recorder(self.folder / "run", "0", PROBE, schedule=every(EACH), work="later", on_error="raise")
        if place is not None:
            self.recorder.resume(place)
        self._look()

    def _stop(self) -> None:
        if self.recorder is not None:
            self.recorder._let_go()  # what the end of a killed process does

    def _look(self) -> None:
        assert self.recorder is not None
        layer = nn.Linear(2, 1, bias=False)
        layer.weight.data.fill_(self.trail.weights[-1])
        self.taken = self.recorder.step(nn.Sequential(layer), self.trail.step)
        if self.taken:
            Rewinding.total += 1
            self.acknowledged.add((self.trail.step, self.trail.weights[-1]))

    @rule(steps=STEPS, luck=LUCK)
    def train(self, steps: int, luck: int) -> None:
        """Goes on, and saves a checkpoint after every step."""
        for _ in range(steps):
            self.trail = self.trail.after(luck)
            self._look()
            assert self.recorder is not None
            self.saved.append((self.trail, self.recorder.place))

    @rule(share=st.floats(0, 1), steps=STEPS, luck=LUCK)
    def resume(self, share: float, steps: int, luck: int) -> None:
        """A new process, after a kill, goes on from a checkpoint that says where the training was."""
        self.trail, place = self.saved[round(share * (len(self.saved) - 1))]
        self._start(place)
        self.train(steps, luck)

    @rule(share=st.floats(0, 1), killed=st.booleans(), steps=STEPS, luck=LUCK)
    def resume_untold(self, share: float, killed: bool, steps: int, luck: int) -> None:
        """One that does not say; or the same process goes back, as after a spike of the loss."""
        known = self._known()
        before, self.trail = self.trail, known[round(share * (len(known) - 1))]
        if killed or self.trail.step >= before.step:  # that a process jumps ahead is more than it can be seen to do
            self._start()
        else:
            self._look()
        self.train(steps, luck)

    def _known(self) -> list[Trail]:
        """Those whose past can be told by their weights, or is that of the current timeline."""
        current = self._timeline()
        return [
            trail
            for trail, _ in self.saved
            if trail.step % EACH == 0 or [seen for seen in current if seen[0] <= trail.step] == trail.looks
        ]

    def _run(self) -> RunDirectory:
        return RunDirectory.open(self.folder / "run")

    def _timeline(self) -> list[tuple[int, float]]:
        return [(record.step, self._weight(record)) for record in snapshots(self._run(), "0")]

    def _weight(self, record) -> float:  # type: ignore[no-untyped-def]
        return float(load_activations(self._run(), record)[0, 0]) / float(PROBE[0].sum())

    @invariant()
    def nothing_is_lost_or_doubled(self) -> None:
        """Every snapshot that was acknowledged is there, and a branch has a step once."""
        if not hasattr(self, "folder"):
            return
        records = all_snapshots(self._run(), "0")
        assert len({(record.branch, record.step) for record in records}) == len(records)
        assert {(record.step, self._weight(record)) for record in records} == self.acknowledged

    @invariant()
    def the_current_timeline_is_one_history(self) -> None:
        """After a snapshot it is the past of the training that took it, complete."""
        if not getattr(self, "taken", False):
            return
        assert self._timeline() == self.trail.looks

    def teardown(self) -> None:
        """Removes the directory."""
        if hasattr(self, "folder"):
            self._stop()
            shutil.rmtree(self.folder, ignore_errors=True)
