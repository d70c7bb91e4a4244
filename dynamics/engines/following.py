"""A background process that works while training goes on: its own side."""

from __future__ import annotations

import logging
import os
import stat
import sys
import threading
import time

import torch

from dynamics.engines.inline import work_off
from dynamics.engines.priority import leave_the_processor_to_training
from dynamics.files.layout import RunDirectory
from dynamics.files.settings import load_recording
from dynamics.pipeline.plan import missing_jobs
from dynamics.pipeline.publishing import publish_if_due
from dynamics.store.store import publish

POLL = 0.5
"""Seconds between two looks for new snapshots, at least."""
SHARE = 0.05
"""Of a processor, that looking for them takes at most: of a large run a look takes a while."""
PAUSE = 10.0
"""Seconds before going on after the disk was full."""
log = logging.getLogger("dynamics")


class Orders:
    """What the process that started us said: nothing yet, ``close``, or gone."""

    def __init__(self, run: RunDirectory) -> None:
        self._run, self._closed, self._gone = run, threading.Event(), threading.Event()
        self._piped = stat.S_ISFIFO(os.fstat(0).st_mode)
        if self._piped:
            threading.Thread(target=self._listen, daemon=True).start()

    @property
    def closed(self) -> bool:
        """No more snapshots will come."""
        return self._closed.is_set() if self._piped else load_recording(self._run) is True

    @property
    def gone(self) -> bool:
        """Training died without a word: stop after the job in hand."""
        return self._gone.is_set() and not self._closed.is_set()

    def wait(self, looked: float) -> None:
        """Sleeps a little, longer where a look took many seconds, less where an order comes."""
        self._gone.wait(max(POLL, looked / SHARE))

    def _listen(self) -> None:
        for line in sys.stdin:
            if line.strip() == "close":
                self._closed.set()
        self._gone.set()


def follow(run: RunDirectory) -> None:
    """Works until the recording is closed and nothing is left, or the parent is gone.

    Started from a terminal or a job script, without a pipe, the mark in the run directory says whether it is closed.
    """
    leave_the_processor_to_training(os.getpid())
    torch.set_num_threads(1)
    orders = Orders(run)
    unpublished = False
    while not orders.gone:
        closed, started = orders.closed, time.monotonic()
        if missing_jobs(run, growing=not closed):
            unpublished = True
            _work(run, orders)
        elif closed:
            break
        else:
            unpublished = unpublished and not publish_if_due(run)
            orders.wait(time.monotonic() - started)
    publish(run)


def _work(run: RunDirectory, orders: Orders) -> None:
    try:
        work_off(run, growing=not orders.closed, stopped=lambda: orders.gone)
    except OSError as error:
        log.warning("%s; going on in %g s", error, PAUSE)
        time.sleep(PAUSE)
