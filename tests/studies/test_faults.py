"""A short part of `make faults`, the same every time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from studies.faults.rewinding import Rewinding


@pytest.fixture(autouse=True)
def no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def test_a_training_that_goes_back_and_forth_loses_nothing_and_contradicts_nothing() -> None:
    run_state_machine_as_test(
        Rewinding,
        settings=settings(max_examples=12, stateful_step_count=15, report_multiple_bugs=False, phases=[Phase.generate]),
    )


@pytest.mark.skipif(sys.platform != "linux" or not shutil.which("cc"), reason="takes Linux and a C compiler")
def test_calls_that_fail_lose_nothing_and_no_damage_stays_unseen() -> None:
    """A few calls of every case, in every way; ``make faults`` fails each."""
    options = ["--every", "99", "--only", "record", "publish", "--kills", "0", "--damages", "20", "--sequences", "1"]
    command = [sys.executable, "-m", "studies.faults", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
    lines = [line.split() for line in done.stdout.splitlines()[1:]]
    assert len(lines) >= 4, done.stdout
    assert all(int(injected) == int(survived) > 0 == int(lost) for *_, injected, survived, _, lost in lines)
