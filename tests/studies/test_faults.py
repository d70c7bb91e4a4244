"""A short part of `make faults`, the same every time."""

from __future__ import annotations

import os

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
        settings=settings(max_examples=15, stateful_step_count=15, report_multiple_bugs=False, phases=[Phase.generate]),
    )
