"""Engines: the same work in this process, in a background worker, on an executor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dynamics.engines.engine import engine
from dynamics.engines.executor import ExecutorEngine
from dynamics.engines.inline import InlineEngine, work_off
from dynamics.engines.worker import WorkerEngine
from dynamics.files.atomic import lock
from dynamics.files.layout import RunDirectory
from dynamics.files.results import tracking_record
from dynamics.files.saes import sae_records
from dynamics.pipeline.job import Job
from dynamics.pipeline.plan import missing_jobs
from tests.small_runs import MakeRun, add_snapshot

SITE = "blocks.0"


def chain(run: RunDirectory, site: str = SITE) -> list[int]:
    return [record.step for record in sae_records(run, site, "chain")]


def until(true: Callable[[], bool], seconds: float = 600) -> None:
    """As long as it takes on a busy machine: who waits in vain waits longer than anybody works."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_an_unknown_engine_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(ValueError, match='work must be "worker", "inline", "later" or an executor'):
        engine(make_run(0), "wroker")


def test_later_leaves_everything_and_says_how_it_goes_on(make_run: MakeRun) -> None:
    run = make_run(2)
    chosen = engine(run, "later")
    chosen.snapshots_written()
    assert f"`dynamics analyze {run.path}`" in chosen.close()
    assert chain(run) == []


@pytest.mark.usefixtures("quick_arms")
def test_inline_fits_as_snapshots_come_and_makes_the_database_at_the_end(make_run: MakeRun) -> None:
    run = make_run(2)
    chosen = engine(run, "inline")
    assert isinstance(chosen, InlineEngine)
    chosen.snapshots_written()
    assert chain(run) == [0, 10]
    assert not run.history.exists()
    chosen.close(progress=False)
    assert run.history.exists()
    assert missing_jobs(run) == []


@pytest.mark.usefixtures("quick_arms")
def test_work_stops_between_jobs_when_told(make_run: MakeRun) -> None:
    run = make_run(5)
    assert work_off(run, stopped=lambda: len(chain(run)) >= 2).done == 2


@pytest.mark.usefixtures("quick_arms")
def test_an_executor_does_every_job_once(make_run: MakeRun) -> None:
    run = make_run(4, ("a", "b"))
    submitted: list[object] = []

    class Counting(ThreadPoolExecutor):
        def submit(self, function, /, *args, **named):  # type: ignore[no-untyped-def]
            submitted.append(args)
            return super().submit(function, *args, **named)

    with Counting(2) as executor:
        chosen = engine(run, executor)
        assert isinstance(chosen, ExecutorEngine)
        chosen.snapshots_written()
        chosen.snapshots_written()
        assert chosen.close(wait=True, progress=False) == "everything is done"
    assert chain(run, "a") == chain(run, "b") == [0, 10, 20, 30]
    assert missing_jobs(run) == []
    assert len({str(args) for args in submitted}) == len(submitted)


def test_looking_for_jobs_takes_an_executor_a_hundredth_of_the_training_at_most(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, looks = [0.0], []

    def look(run: RunDirectory, *, growing: bool) -> list[Job]:
        looks.append(now[0])
        now[0] += 2.0
        return []

    monkeypatch.setattr("dynamics.engines.executor.missing_jobs", look)
    monkeypatch.setattr("dynamics.engines.executor.time.monotonic", lambda: now[0])
    with ThreadPoolExecutor(1) as executor:
        chosen = engine(make_run(0), executor)
        for seconds in (0, 50, 201, 203, 300, 410):
            now[0] = seconds
            chosen.snapshots_written()
    assert looks == [0, 203, 410]


@pytest.mark.usefixtures("quick_arms")
def test_an_executor_goes_on_after_closing(make_run: MakeRun) -> None:
    run = make_run(3)
    with ThreadPoolExecutor(1) as executor:
        assert "jobs left; the executor goes on" in engine(run, executor).close()
    assert missing_jobs(run) == []


def test_a_worker_in_its_own_session_with_low_priority_follows_training_drains_and_ends(make_run: MakeRun) -> None:
    run = make_run(1)
    worker = WorkerEngine(run)
    worker.snapshots_written()
    assert worker.pid is not None
    assert os.getsid(worker.pid) == worker.pid
    assert os.getpriority(os.PRIO_PROCESS, worker.pid) == 10
    until(lambda: chain(run) == [0])
    if (session := Path(f"/proc/{worker.pid}/autogroup")).exists():
        assert session.read_text().endswith("nice 10\n")
    add_snapshot(run, SITE, 10)
    worker.snapshots_written()
    until(lambda: chain(run) == [0, 10])
    add_snapshot(run, SITE, 20)
    assert worker.close(wait=True, progress=False) == "everything is done"
    assert chain(run) == [0, 10, 20]
    assert run.history.exists()
    assert ended(worker.pid)


def test_a_worker_stops_when_training_dies(make_run: MakeRun) -> None:
    """However late the death comes: it cannot get past a job that somebody else has claimed."""
    run = make_run(40)
    script = (
        "import sys, time; from dynamics.files.layout import RunDirectory;"
        "from dynamics.engines.worker import WorkerEngine;"
        f"w = WorkerEngine(RunDirectory.open({str(run.path)!r})); w.snapshots_written();"
        "print(w.pid, flush=True); time.sleep(600)"
    )
    with (
        lock(run.locks / f"{Job('chain', SITE, 200).name}.lock"),
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as training,
    ):
        assert training.stdout is not None
        pid = int(training.stdout.readline())
        until(lambda: len(chain(run)) >= 2)
        training.kill()
        training.wait()
        until(lambda: ended(pid))
    assert 2 <= len(chain(run)) <= 20
    assert not any(run.failed.glob("*.json"))


@pytest.mark.parametrize("end", ["close", "abandon"])
def test_a_worker_that_hangs_is_left_behind(make_run: MakeRun, end: str) -> None:
    """Were it waited for, nothing would ever end here."""
    run = make_run(3)
    worker = WorkerEngine(run)
    worker.snapshots_written()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        worker.snapshots_written()
        said = worker.close() if end == "close" else worker.abandon()
        assert f"`dynamics analyze {run.path}`" in said
        assert not ended(worker.pid)
    finally:
        os.kill(worker.pid, signal.SIGKILL)


def test_a_dead_worker_is_started_again(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    run = make_run(1)
    worker = WorkerEngine(run)
    worker.snapshots_written()
    until(lambda: chain(run) == [0])
    first = worker.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    add_snapshot(run, SITE, 10)

    def restarted() -> bool:
        worker.snapshots_written()
        return worker.pid != first

    until(restarted)
    assert "the worker ended (signal 9, likely out of memory); starting it again" in caplog.text
    assert worker.close(wait=True, progress=False) == "everything is done"
    assert chain(run) == [0, 10]


WORKER = """
import os, sys, time
from pathlib import Path
from dynamics.cli import main
from dynamics.pipeline import execution

run, work = Path(sys.argv[1]), execution.work

def work_when_both_are_at_work(*given):
    (run / f"at-work-{os.getpid()}").touch()
    while len(list(run.glob("at-work-*"))) < 2:
        time.sleep(0.01)
    work(*given)

execution.work = work_when_both_are_at_work
sys.exit(main(["work", str(run)]))
"""


def test_two_workers_share_a_run_without_doing_a_job_twice(make_run: MakeRun) -> None:
    run = make_run(8, ("a", "b"))
    command = [sys.executable, "-c", WORKER, str(run.path)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [worker.communicate()[0] for worker in workers]
    done = [int(output.split()[0]) for output in outputs]
    assert sum(done) == sum(jobs_done(run, site) for site in ("a", "b")), outputs
    assert min(done) > 0
    assert chain(run, "a") == chain(run, "b") == list(range(0, 80, 10))


def jobs_done(run: RunDirectory, site: str) -> int:
    fits = len({(r.arm, r.seed if r.arm == "null" else r.step) for r in sae_records(run, site)})
    return fits + (tracking_record(run, site) is not None)


def ended(pid: int | None) -> bool:
    """Also true of a process that ended and was not waited for."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True
