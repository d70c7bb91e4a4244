"""Trainings with workers and readers beside them, killed at random moments and resumed from random checkpoints."""

from __future__ import annotations

import random
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from dynamics.capture.reading import fingerprint
from dynamics.engines.inline import work_off
from dynamics.files import RunDirectory, settings
from dynamics.files.snapshots import all_snapshots
from dynamics.maintenance import check
from dynamics.recorder import Recorder
from dynamics.schedule import every
from dynamics.store.queries import query
from studies.faults.cases import SAE, WIDTH, probe
from studies.faults.injection import Child, Outcome, in_a_child
from studies.faults.rewinding import EACH, START, Trail

LONGEST = 1.5
"""Seconds after which everybody is dead."""
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Round:
    """One life of a training, with two workers and a reader."""

    killed: int
    acknowledged: int
    """Snapshots so far."""
    wrong: tuple[str, ...]


@dataclass
class Soak:
    """One run directory through many lives."""

    folder: Path
    seed: int
    acknowledged: set[tuple[int, str]] = field(default_factory=set)
    saved: list[Trail] = field(default_factory=lambda: [Trail((START,))])

    def rounds(self, count: int) -> Iterator[Round]:
        """Lives and deaths; at the end everything is worked off, and nothing may be wrong."""
        chance = random.Random(self.seed)
        for _ in range(count):
            yield self._round(chance)
        ended = in_a_child(lambda tell: self._finish(tell))
        yield Round(0, len(self.acknowledged), (*ended.acknowledged, *([ended.said] if ended.said else [])))

    def _round(self, chance: random.Random) -> Round:
        start, lucks = chance.choice(self.saved), [chance.randrange(3) for _ in range(4 * EACH)]
        trainer = Child(lambda tell: self._train(start, lucks, tell))
        others = [Child(self._work), Child(self._work), Child(self._read)]
        end = time.monotonic() + LONGEST
        for child in chance.sample([trainer, *others], 4):
            time.sleep(max(0.0, (end - time.monotonic()) * chance.random()))
            child.kill()
        told, outcomes = trainer.outcome(), [child.outcome() for child in others]
        self._remember(start, lucks, told)
        wrong = [o.said for o in (told, *outcomes) if o.said]
        wrong += in_a_child(self._check).acknowledged
        return Round(sum(o.died for o in (told, *outcomes)), len(self.acknowledged), tuple(wrong))

    def _train(self, start: Trail, lucks: list[int], tell: Tell) -> None:
        settings._PATIENCE = LONGEST
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            recorder = Recorder(
                self.folder / "run", "0", probe(), schedule=every(EACH), sae=SAE, work="later", on_error="raise"
            )
            for trail in _trails(start, lucks):
                model = _model(trail)
                if recorder.step(model, trail.step):
                    tell(f"snapshot {trail.step} {fingerprint(model)}")
                tell(f"at {trail.step}")
                time.sleep(0.01)

    def _remember(self, start: Trail, lucks: list[int], told: Outcome) -> None:
        """Only checkpoints whose past can be told by their weights: see the limits in README."""
        for line in told.acknowledged:
            match line.split():
                case ["snapshot", step, weights]:
                    self.acknowledged.add((int(step), weights))
                case ["at", step] if int(step) % EACH == 0:
                    self.saved.append(next(t for t in _trails(start, lucks) if t.step == int(step)))

    def _work(self, tell: Tell) -> None:
        torch.set_num_threads(1)
        while not (self.folder / "run" / "run.json").exists():
            time.sleep(0.01)
        while True:
            work_off(RunDirectory.open(self.folder / "run"), growing=True)
            time.sleep(0.01)

    def _read(self, tell: Tell) -> None:
        history = self.folder / "run" / "history.duckdb"
        while True:
            if history.exists():
                run = RunDirectory.open(self.folder / "run")
                [found] = query(
                    run,
                    "select (select count(*) from saes) as saes, (select count(*) from latents) as latents, "
                    "(select count(*) from (select site, step from snapshots group by all having count(*) > 1)) as two",
                ).to_pylist()
                assert found["latents"] == found["saes"] * SAE.n_latents, f"a mixed state: {found}"  # type: ignore[operator]
                assert found["two"] == 0, "a step twice"
            time.sleep(0.01)

    def _check(self, tell: Tell) -> None:
        if (self.folder / "run" / "run.json").exists():
            run = RunDirectory.open(self.folder / "run")
            there = {(r.step, r.fingerprint) for r in all_snapshots(run, "0")}
            for step, weights in self.acknowledged - there:
                tell(f"acknowledged and lost: snapshot {step} {weights}")
            for finding in check(run):
                tell(f"{finding.fact} -> {finding.remedy}")

    def _finish(self, tell: Tell) -> None:
        run = RunDirectory.open(self.folder / "run")
        tally = work_off(run)
        if tally.failed:
            tell(f"{tally.failed} jobs failed")
        self._check(tell)


def _trails(start: Trail, lucks: list[int]) -> Iterator[Trail]:
    yield start
    for luck in lucks:
        start = start.after(luck)
        yield start


def _model(trail: Trail) -> nn.Module:
    """Features that stay, turned a little by the trail's weight."""
    fixed = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0))
    moved = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(int(trail.weights[-1])))
    layer = nn.Linear(WIDTH, WIDTH, bias=False)
    layer.weight.data = fixed + 0.05 * moved
    return nn.Sequential(layer)
