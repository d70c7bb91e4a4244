"""A background process that works while training goes on: its parent's side."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from typing import IO

from tqdm import tqdm

from dynamics.answers import counted
from dynamics.engines.inline import work_off
from dynamics.engines.priority import leave_the_processor_to_training
from dynamics.files.layout import RunDirectory
from dynamics.pipeline.plan import remaining

RESTARTS = 3
"""How often a worker that died is started again; a job that kills it is given up before that is spent."""
POLL = 0.5
"""Seconds between two looks at a worker that is waited for."""
LOG = "worker.log"
log = logging.getLogger("dynamics")


class WorkerEngine:
    """Keeps one ``dynamics work RUN --follow`` running; its standard input is a pipe, so it notices when we die."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0

    @property
    def pid(self) -> int | None:
        """Process id of the worker, if one was started."""
        return self._process.pid if self._process else None

    def _start(self) -> None:
        """Starts the worker; it lives in a session of its own, so that Ctrl-C here does not reach it."""
        self._starts += 1
        with (self._run.path / LOG).open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "dynamics", "work", str(self._run.path), "--follow"],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env={**os.environ, **one_thread()},
                start_new_session=True,
            )
        leave_the_processor_to_training(self._process.pid)  # at once: what it imports takes it seconds

    def snapshots_written(self) -> None:
        """Nothing to say to a worker that is alive: it looks for itself. One that died is started again."""
        if self._process is None:
            self._start()
        elif (code := self._process.poll()) is not None and self._starts <= RESTARTS:
            log.warning("the worker ended (%s); starting it again: %s has more", _how(code), self._run.path / LOG)
            self._hang_up()
            self._start()

    def close(self, *, wait: bool = False, progress: bool = True) -> str:
        """Tells the worker to drain what is left and end by itself, or waits for that."""
        alive = self._process is not None and self._process.poll() is None
        self._send(b"close\n")
        self._hang_up()
        if wait:
            self._await(progress)
        else:
            self._reap()
        left = remaining(self._run)
        jobs = f"{counted(left, 'job')} left"
        again = f"`dynamics analyze {self._run.path}`"
        if not left:
            return "everything is done"
        if alive and not wait:
            return f"{jobs}; the worker (pid {self.pid}) goes on, {again} waits for the end"
        return f"{jobs} and the worker has ended; {again} does the rest"

    def _await(self, progress: bool) -> None:
        """Until the worker ends; where it has died, the rest is done here."""
        total = remaining(self._run)
        with tqdm(total=total, desc="jobs", unit="job", disable=not (progress and total), dynamic_ncols=True) as bar:
            while self._process is not None and self._process.poll() is None:
                bar.update(total - remaining(self._run) - bar.n)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(POLL)
        if remaining(self._run):
            work_off(self._run, progress=progress)

    def abandon(self) -> str:
        """Hangs up without a word, on which the worker stops after the job in hand."""
        self._hang_up()
        self._reap()
        return f"training died; `dynamics analyze {self._run.path}` does what is left"

    def _send(self, line: bytes) -> None:
        if self._process is not None and self._process.stdin is not None:
            with contextlib.suppress(OSError, ValueError):
                self._process.stdin.write(line)
                self._process.stdin.flush()

    def _hang_up(self) -> None:
        pipe: IO[bytes] | None = self._process.stdin if self._process else None
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()

    def _reap(self) -> None:
        """Waits for the worker's end in the background, so that no zombie stays behind."""
        if self._process is not None:
            threading.Thread(target=self._process.wait, daemon=True).start()


def _how(code: int) -> str:
    """An exit code in words; memory that has run out looks like a kill from outside."""
    if code >= 0:
        return f"exit code {code}"
    return f"signal {-code}" + (", likely out of memory" if -code == signal.SIGKILL else "")


def one_thread() -> dict[str, str]:
    """Environment of a process that leaves the other cores to training."""
    return dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
