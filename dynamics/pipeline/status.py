"""How far a run is, by its files."""

from __future__ import annotations

from dataclasses import dataclass

from dynamics.files.layout import RunDirectory
from dynamics.files.snapshots import snapshots
from dynamics.pipeline.failures import Failure, given_up
from dynamics.pipeline.plan import SiteState, done_fits, open_fits, site_state, tracked_step

ARMS = ("chain", "null", "seed")


@dataclass(frozen=True)
class Count:
    """Jobs of one arm; a null chain is one job."""

    done: int
    queued: int
    failed: int


@dataclass(frozen=True)
class SiteStatus:
    """How far one site is."""

    site: str
    snapshots: int
    arms: dict[str, Count]
    tracked: int | None
    """Newest step that the tracking result knows of."""
    left: list[Failure]
    """What was given up, with the reason."""


def site_statuses(run: RunDirectory) -> list[SiteStatus]:
    """Every site of the current timeline, in natural order."""
    return [_site_status(run, site_state(run, site)) for site in run.sites()]


def _site_status(run: RunDirectory, state: SiteState) -> SiteStatus:
    left = [failure for job, failure in given_up(run).items() if job in state.failed]
    arms = {
        arm: Count(
            done=sum(job.kind == arm for job in done_fits(state)),
            queued=sum(job.kind == arm for job in open_fits(state)),
            failed=sum(job.kind == arm for job in state.failed),
        )
        for arm in ARMS
    }
    count = len(snapshots(run, state.site, state.branch))
    return SiteStatus(state.site, count, arms, tracked_step(run, state), left)
