"""Which jobs a run still wants, by looking at its files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from dynamics.files.branches import Timeline
from dynamics.files.layout import RunDirectory
from dynamics.files.results import tracking_record
from dynamics.files.saes import SaeRecord, sae_records
from dynamics.files.snapshots import SnapshotRecord, snapshots
from dynamics.pipeline.failures import given_up
from dynamics.pipeline.job import Job

NULL_STEPS = 5
"""Surrogate checkpoints of a null chain after its start: births are looked for over as many checkpoints."""
FEWEST_NULL_STEPS = 3
"""With fewer checkpoints after its start there is no null chain; with fewer than all it grows as they come."""
SEED_POSITIONS = (3, 12, 48)
"""Checkpoints, counted from 0, that get an independent second SAE."""
GROWTH = 1.25
"""While training goes on, a site is tracked again when its chain has grown by this factor."""

SURROGATES = 1
"""Counts up when surrogate snapshots are made by other rules, so that null chains over the old ones are made anew."""
TRACKING = 5
"""Counts up when tracking says something else of the same SAEs, so that every run is tracked again."""


@dataclass(frozen=True)
class SiteState:
    """What there is of one site in one timeline."""

    site: str
    snapshots: list[SnapshotRecord]
    """Ascending by step, those without usable activations left out."""
    chain: list[SaeRecord]
    others: list[SaeRecord]
    """The SAEs of the null and seed arms."""
    failed: frozenset[Job]
    timeline: Timeline

    @property
    def branch(self) -> str:
        return self.timeline.branch

    @property
    def pruned(self) -> bool:
        """Whether activations were removed for good: then nothing more can be made of the site."""
        return any(record.pruned for record in self.snapshots)

    @property
    def steps(self) -> list[int]:
        return [record.step for record in self.snapshots]

    @property
    def chain_steps(self) -> list[int]:
        return [record.step for record in self.chain]

    @property
    def inputs_digest(self) -> str:
        """Names what tracking would read and say: SAEs, and steps left out. First comes the number of checkpoints."""
        parts = [f"{r.arm} {r.step} {r.seed} {r.fvu} {r.l0}" for r in (*self.chain, *self.others)]
        parts += [f"without {job.step}" for job in self.failed if job.kind == "chain"]
        names = "\n".join([f"rules {TRACKING}", *sorted(parts)])
        return f"{len(self.chain):06d}-{hashlib.sha256(names.encode()).hexdigest()[:16]}"

    def null_chain(self, seed: int) -> list[SaeRecord]:
        """The SAEs that null chain number ``seed`` has after its start, ascending by step."""
        return sorted((r for r in self.others if (r.arm, r.seed) == ("null", seed)), key=lambda r: r.step)

    def snapshot(self, step: int) -> SnapshotRecord:
        return next(record for record in self.snapshots if record.step == step)

    def job(self, kind: str, step: int, seed: int = 0) -> Job:
        return _job(self.timeline, kind, self.site, step, seed)


def _job(timeline: Timeline, kind: str, site: str, step: int, seed: int = 0) -> Job:
    """A fit of one step is for every timeline that shares it; a null chain and a tracking go over many steps."""
    branch = timeline.owner(step) if kind in ("chain", "seed") else timeline.branch
    return Job(kind, site, step, seed, branch)  # type: ignore[arg-type]


def site_state(run: RunDirectory, site: str, branch: str | None = None) -> SiteState:
    """What there is of a site in the timeline that ends in ``branch``, by default in the current one."""
    timeline = run.timeline(branch)
    mine = (job for job in given_up(run) if job == _job(timeline, job.kind, site, job.step, job.seed))
    failed = frozenset(mine)
    left_out = {job.step for job in failed if job.kind == "chain"}
    usable = [s for s in snapshots(run, site, timeline.branch) if s.step not in left_out]
    records = sae_records(run, site, branch=timeline.branch)
    return _without_stale_nulls(
        SiteState(
            site=site,
            snapshots=usable,
            chain=[r for r in records if r.arm == "chain" and r.step in {s.step for s in usable}],
            others=[r for r in records if r.arm != "chain"],
            failed=failed,
            timeline=timeline,
        )
    )


def _without_stale_nulls(state: SiteState) -> SiteState:
    """Leaves out null chains that would run over other checkpoints now, or over surrogates made by other rules."""
    fresh = []
    for seed in range(len(null_starts(len(state.chain)))):
        made, span = state.null_chain(seed), null_span(state, seed)[1:]
        if [(r.step, r.rules) for r in made] == [(r.step, SURROGATES) for r in span[: len(made)]]:
            fresh += made
    return replace(state, others=[*fresh, *(r for r in state.others if r.arm != "null")])


def missing_jobs(run: RunDirectory, *, growing: bool = False) -> list[Job]:
    """Every job of the current timeline that could be done now, the most urgent first.

    Args:
        growing: more checkpoints are on their way, so tracking waits until it has enough new ones.
    """
    states = [site_state(run, site) for site in run.sites()]
    return sorted((job for state in states for job in ready_jobs(run, state, growing)), key=lambda job: job.priority)


def ready_jobs(run: RunDirectory, state: SiteState, growing: bool = False) -> list[Job]:
    """The jobs of one site that could be done now."""
    if state.pruned:
        return []
    jobs = (*_ready_fits(state), *_due_tracking(run, state, growing))
    return [job for job in jobs if job not in state.failed]


def remaining(run: RunDirectory) -> int:
    """How many jobs the current timeline still wants, those included whose inputs are not there yet."""
    states = [site_state(run, site) for site in run.sites()]
    return sum(len(open_fits(state)) + _wants_tracking(run, state) for state in states if not state.pruned)


def open_fits(state: SiteState) -> list[Job]:
    """Every fit that the site's snapshots ask for, is not done and not given up."""
    wanted = [state.job("chain", step) for step in state.steps]
    wanted += [state.job("null", state.steps[start], seed) for seed, start in enumerate(null_starts(len(state.steps)))]
    wanted += [state.job("seed", step) for step in _seed_steps(state.steps)]
    done = done_fits(state)
    return [job for job in wanted if job not in done and job not in state.failed]


def null_starts(checkpoints: int) -> list[int]:
    """Positions where null chains start: 0, 5, 15, 25, … as far as there are checkpoints for the first of its steps.

    About half as many fits as the chain's. More checkpoints only ever add starts and steps: what was made stays valid.
    """
    starts = [0, *range(NULL_STEPS, checkpoints, 2 * NULL_STEPS)]
    return [start for start in starts if start + FEWEST_NULL_STEPS < checkpoints]


def null_span(state: SiteState, seed: int) -> list[SaeRecord]:
    """The chain's SAEs over which null chain number ``seed`` runs: its start, then what is there of its steps."""
    start = null_starts(len(state.chain))[seed]
    return state.chain[start : start + NULL_STEPS + 1]


def _ready_fits(state: SiteState) -> Iterator[Job]:
    missing = [step for step in state.steps if step not in set(state.chain_steps)]
    if missing:
        yield state.job("chain", missing[0])
    steps, done = state.chain_steps, done_fits(state)
    nulls = [state.job("null", steps[start], seed) for seed, start in enumerate(null_starts(len(steps)))]
    yield from (job for job in (*nulls, *(state.job("seed", s) for s in _seed_steps(steps))) if job not in done)


def _seed_steps(steps: list[int]) -> list[int]:
    return [steps[position] for position in SEED_POSITIONS if position < len(steps)]


def done_fits(state: SiteState) -> set[Job]:
    """Every fit whose commit records are there."""
    have = {(record.arm, record.step, record.seed) for record in state.others}
    nulls = {
        state.job("null", null_span(state, seed)[0].step, seed)
        for seed in range(len(null_starts(len(state.chain))))
        if have.issuperset(("null", record.step, seed) for record in null_span(state, seed)[1:])
    }
    seeds = {state.job("seed", step, seed) for arm, step, seed in have if arm == "seed"}
    return {state.job("chain", step) for step in state.chain_steps} | nulls | seeds


def _due_tracking(run: RunDirectory, state: SiteState, growing: bool) -> Iterator[Job]:
    if not state.chain or open_fits(state) or not _wants_tracking(run, state):
        return
    if not growing or _grown_enough(run, state):
        yield state.job("track", state.chain_steps[-1])


def _wants_tracking(run: RunDirectory, state: SiteState) -> bool:
    if not state.steps or state.job("track", state.steps[-1]) in state.failed:
        return False
    record = tracking_record(run, state.site, state.branch)
    return record is None or record.inputs != state.inputs_digest


def _grown_enough(run: RunDirectory, state: SiteState) -> bool:
    record = tracking_record(run, state.site, state.branch)
    return record is None or len(state.chain) >= GROWTH * _checkpoints(record.inputs)


def tracked_step(run: RunDirectory, state: SiteState) -> int | None:
    """The newest step that the site's tracking result knows of, if there is one."""
    record = tracking_record(run, state.site, state.branch)
    steps = state.chain_steps[: _checkpoints(record.inputs)] if record else []
    return steps[-1] if steps else None


def _checkpoints(digest: str) -> int:
    return int(digest.split("-")[0])
