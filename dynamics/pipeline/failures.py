"""Jobs that did not work out: RUN/failed/<job>.json, with the reason and how often it was tried."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dynamics.files.atomic import make_folder, write_json
from dynamics.files.layout import RunDirectory
from dynamics.files.settings import this_process
from dynamics.pipeline.job import Job

TRIES = 2
"""Errors after which a job is given up."""
DEATHS = 3
"""Ends of the process without a word after which a job is given up; one more, as the cause may lie outside."""


@dataclass(frozen=True)
class Failure:
    """What is known of a job that failed, or was begun and not finished."""

    job: Job
    errors: int = 0
    deaths: int = 0
    reason: str = ""
    final: bool = False
    at_work: bool = False
    """The last of the deaths was counted in advance, and nobody knows yet whether it came."""
    by: str = "its process"
    """Who began it last."""

    @property
    def given_up(self) -> bool:
        return self.final or self.errors >= TRIES or (self.deaths >= DEATHS and not self.at_work)


def failures(run: RunDirectory) -> list[Failure]:
    """Every job that failed or was begun and not finished, by name."""
    return [found for path in sorted(run.failed.glob("*.json")) for found in _read(path)]


def given_up(run: RunDirectory) -> dict[Job, Failure]:
    """The failures of jobs that are not tried again."""
    return {failure.job: failure for failure in failures(run) if failure.given_up}


def begun(run: RunDirectory, job: Job) -> Failure | None:
    """Counts a death in advance: a process that is killed cannot do it. :func:`finished` takes it back.

    To be called by whoever has claimed the job: only then is it certain that those before are dead.

    Returns:
        Nothing, or why the job must not be begun again: too many processes died of it.
    """
    before = known(run, job)
    if before.deaths >= DEATHS:
        dead = replace(before, at_work=False)
        _write(run, dead)
        return dead
    reason = before.reason or "its process ended at work"
    _write(run, replace(before, deaths=before.deaths + 1, reason=reason, at_work=True, by=this_process()))
    return None


def finished(run: RunDirectory, job: Job) -> None:
    """The job is done: nothing to remember."""
    _path(run, job).unlink(missing_ok=True)


def put_back(run: RunDirectory, before: Failure) -> None:
    """Remembers of a job what was known before it was begun, as if it had not been."""
    if before == Failure(before.job):
        finished(run, before.job)
    else:
        _write(run, before)


def failed(run: RunDirectory, job: Job, reason: str, *, final: bool = False) -> Failure:
    """Remembers an error. ``final``: trying again cannot help."""
    before = known(run, job)
    alive = replace(before, deaths=before.deaths - before.at_work, at_work=False)
    after = replace(alive, errors=alive.errors + 1, reason=reason, final=final)
    _write(run, after)
    return after


def forgive(run: RunDirectory) -> int:
    """Forgets every failure, so that each job is tried anew. Returns how many were given up."""
    forgotten = given_up(run)
    for failure in failures(run):
        finished(run, failure.job)
    return len(forgotten)


def known(run: RunDirectory, job: Job) -> Failure:
    """What is known of one job: nothing where it never failed."""
    return next(_read(_path(run, job)), Failure(job))


def _read(path: Path) -> Iterator[Failure]:
    """Nothing where the record is gone (its job is done) or damaged: then the job is simply tried again."""
    try:
        fields = json.loads(path.read_text())
        yield Failure(**{**fields, "job": Job(**fields["job"])})
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return


def _write(run: RunDirectory, failure: Failure) -> None:
    make_folder(run.failed)
    write_json(_path(run, failure.job), asdict(failure))


def _path(run: RunDirectory, job: Job) -> Path:
    return run.failed / f"{job.name}.json"
