"""Doing one job: claimed, counted, and never in the way of the others."""

from __future__ import annotations

import errno
import logging
from typing import Literal

from filelock import Timeout
from threadpoolctl import threadpool_limits

from dynamics.files.atomic import lock
from dynamics.files.commits import DamagedError
from dynamics.files.layout import RunDirectory
from dynamics.pipeline import failures
from dynamics.pipeline.fits import fit_chain, fit_null, fit_seed
from dynamics.pipeline.inputs import Unusable
from dynamics.pipeline.job import Job
from dynamics.pipeline.plan import ready_jobs, site_state
from dynamics.pipeline.tracks import track_site

Outcome = Literal["done", "failed", "busy"]
NO_FAULT_OF_THE_JOB = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENOMEM)
log = logging.getLogger("dynamics")


def attempt(run: RunDirectory, job: Job) -> Outcome:
    """Does a job unless someone else is at it or has done it.

    Returns:
        ``done``; ``failed``, with the reason on record and logged; or ``busy``: another process has claimed it
        or has just done it.

    Raises:
        OSError: if the disk is full or read-only, which is not counted against the job.
    """
    try:
        with lock(run.locks / f"{job.name}.lock", timeout=0.0):
            return _attempt_claimed(run, job) if _wanted(run, job) else "busy"
    except Timeout:
        return "busy"


def _wanted(run: RunDirectory, job: Job) -> bool:
    return job in ready_jobs(run, site_state(run, job.site, job.branch))


def _attempt_claimed(run: RunDirectory, job: Job) -> Outcome:
    before = failures.known(run, job)
    try:
        return _counted(run, job, before)
    except BaseException:  # stopped on request, or the disk is full: nobody's fault
        failures.put_back(run, before)
        raise


def _counted(run: RunDirectory, job: Job, before: failures.Failure) -> Outcome:
    dead = failures.begun(run, job)
    if dead is not None:
        log.warning("%s: %s %d times (given up)", job, dead.reason, dead.deaths)
        return "failed"
    if before.at_work:
        log.warning("recovered: %s was incomplete (%s died); doing it again", job, before.by)
    try:
        work(run, job)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_FAULT_OF_THE_JOB:
            raise
        return _failed(run, job, error)
    failures.finished(run, job)
    return "done"


def work(run: RunDirectory, job: Job) -> None:
    """The job itself, a pure function of the run's files.

    On one thread: on a busy machine, threads that wait for each other made tracking seven times slower.
    """
    state = site_state(run, job.site, job.branch)
    with threadpool_limits(limits=1):
        match job.kind:
            case "chain":
                fit_chain(run, state, job.step)
            case "null":
                fit_null(run, state, job.seed)
            case "seed":
                fit_seed(run, state, job.step)
            case "track":
                track_site(run, state)


def _failed(run: RunDirectory, job: Job, error: Exception) -> Outcome:
    final = isinstance(error, (Unusable, DamagedError))
    reason = str(error) if final else f"{type(error).__name__}: {error}"
    failure = failures.failed(run, job, reason, final=final)
    fate = "left out" if final else "given up" if failure.given_up else "will be tried once more"
    log.log(logging.INFO if final else logging.WARNING, "%s: %s (%s)", job, reason, fate)
    log.debug("where it happened", exc_info=error)
    return "failed"
