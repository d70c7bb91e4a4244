"""What importing costs, and which names are public."""

from __future__ import annotations

import subprocess
import sys

import pytest

import dynamics

HEAVY = ("altair", "lightning", "transformers", "pandas", "marimo", "ray", "duckdb", "torch")


def in_a_new_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_dynamics_imports_nothing_heavy() -> None:
    assert in_a_new_process(f"import sys, dynamics; print([m for m in {HEAVY} if m in sys.modules])") == "[]"


@pytest.mark.parametrize("name", ["Recorder", "Run", "SaeConfig"])
def test_recording_and_opening_bring_no_charts_and_no_framework(name: str) -> None:
    code = f"import sys, dynamics; dynamics.{name}; print([m for m in {HEAVY[:6]} if m in sys.modules])"
    assert in_a_new_process(code) == "[]"


def test_every_public_name_is_there() -> None:
    for name in dynamics.__all__:
        assert getattr(dynamics, name) is not None
        assert name in dir(dynamics)
    assert dynamics.__version__.count(".") >= 1


def test_report_is_the_function_after_its_module_was_imported() -> None:
    import dynamics.report as module_import  # noqa: F401
    from dynamics.report import report

    assert dynamics.report is report


def test_an_unknown_name_is_answered_with_the_public_ones() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Recoder'; did you mean 'Recorder'"):
        dynamics.Recoder  # noqa: B018
