"""A case from training to scores: recorded, analysed by the command, held against W."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

import dynamics
from studies.planted.dictionary import Dictionary
from studies.planted.matching import Assignments
from studies.planted.report import Report, Row, from_run
from studies.planted.runs import assigned, chain, command
from studies.planted.scoring import Scores, score
from studies.planted.truth import CORE_KINDS, Event, Truth
from studies.superposition import truth
from studies.superposition.cases import Case
from studies.superposition.training import SITE, probe_inputs, record

CANDIDATES = f"""
    select kind, step, from_step, to_step, parents, children, parent_tracks, child_tracks, score, p_value, q_value,
        reason, evidence
    from event_candidates where site = '{SITE}' and arm = 'chain' and (reason is null or reason = 'q')
"""


@dataclass(frozen=True)
class Watched:
    """Networks that were recorded and analysed, with what is asked of a planted world: steps, truth, oracle."""

    case: Case
    seed: int
    run: Any
    """The opened :class:`dynamics.Run`."""
    weights: Mapping[int, NDArray[np.float64]]
    """W [instances, hidden, features] at every checkpoint."""

    @property
    def steps(self) -> list[int]:
        """Of the checkpoints."""
        return list(self.weights)

    @cached_property
    def truth(self) -> Truth:
        """What happened to the columns of W."""
        return truth.truth(self.case, self.weights)

    @cached_property
    def _paths(self) -> dict[int, str]:
        return dict(self.run.sql(f"select step, path from snapshots where site = '{SITE}'", "rows"))

    def activations(self, i: int) -> NDArray[np.float32]:
        """What the recorder saw at checkpoint i: [rows, d_in]."""
        return np.asarray(load_file(self.run.path / self._paths[self.steps[i]])["activations"])

    def oracle(self, i: int) -> Dictionary:
        """The perfect dictionary at checkpoint i, without pairs that are just parting or joining.

        A latent that is no feature there is scored as what its track is at the nearest checkpoint on the same side.
        """
        W = self.weights[self.steps[i]]
        state = truth.carried(self.case, self.weights)[i] - truth.between(self.case, W)
        return truth.perfect(self.case, state, W, probe_inputs(self.case, self.seed).double().numpy())

    @cached_property
    def assignments(self) -> Assignments:
        """Which feature each latent is."""
        return assigned(self, chain(self.run, self, SITE))

    @cached_property
    def report(self) -> Report:
        """What the run says."""
        return from_run(self.run, SITE)

    @cached_property
    def scores(self) -> Scores:
        """How right it is."""
        return score(self.truth, self.assignments, self.report)

    @cached_property
    def considered(self) -> list[Row]:
        """Everything that the tracker claimed or would have, had the evidence reached the level."""
        return list(self.run.sql(CANDIDATES).to_pylist())

    def candidates(self, event: Event) -> list[Row]:
        """Those about a true event's features, the surest first, whatever their date."""
        alone = Truth(self.truth.steps, self.truth.features, (event,), ())
        rows = [row for row in self.considered if row["kind"] == event.kind]
        found = []
        while rows:  # each pass pairs the event with one claim; the others come back as wrong
            scored = score(alone, self.assignments, Report(rows, (), self.report.history), len(self.steps))
            others = [{name: row[name] for name in row if name != "features"} for row in scored.wrong]
            if len(others) == len(rows):
                break
            found += [row for row in rows if row not in others]
            rows = others
        return sorted(found, key=lambda row: (row["p_value"], -row["score"]))

    def shown(self, feature: int) -> list[int]:
        """Indices of the checkpoints at which some latent is this feature."""
        return [i for i, step in enumerate(self.steps) if feature in self.assignments[step].principal]


def watched(case: Case, seed: int, folder: Path) -> Watched:
    """Trains, records and analyses.

    Raises:
        RuntimeError: if the analysis fails, with what it said.
    """
    weights = record(case, seed, folder)
    command("analyze", folder)
    return Watched(case, seed, dynamics.open(folder), weights)


def kinds(outcomes: Sequence[Watched]) -> list[str]:
    """Kinds of event that really happened or were reported."""
    return [kind for kind in CORE_KINDS if any(o.truth.of_kind(kind) or o.scores.kinds[kind].false for o in outcomes)]
