"""Rates of the error control: known answers for made-up worlds, and a tiny world through the public commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studies.planted import calibration, rates
from studies.planted.calibration_chart import calibration_chart
from studies.planted.truth import KINDS


def world(right: int = 0, false: int = 0, missing: int = 0, kind: str = "birth", **changes: Any) -> dict[str, Any]:
    nothing = {"right": 0, "false": 0, "missing": 0}
    found = {"right": right, "false": false, "missing": missing}
    return {
        "true": {k: right + missing if k == kind else 0 for k in KINDS},
        "counts": {str(level): {k: found if k == kind else nothing for k in KINDS} for level in rates.LEVELS},
        "transitions": nothing,
        "units": {},
        "seconds": 1.0,
        **changes,
    }


def test_the_false_share_is_that_of_the_worlds_not_of_the_events() -> None:
    worlds = [world(right=9, false=1, missing=1), world(right=0, false=0, missing=1)]
    mean, error = rates.false_share(worlds, "birth", "0.1")
    assert mean == pytest.approx(0.05)
    assert error == pytest.approx(0.05)
    assert rates.recall(worlds, "all", "0.1") == pytest.approx(9 / 11)
    assert np.isnan(rates.recall(worlds, "death", "0.1"))


def test_a_broken_level_is_called_broken() -> None:
    assert rates.verdict([world(right=1, false=1)] * 5, "birth", 0.2).endswith("BROKEN")
    assert rates.verdict([world(right=9, false=1)] * 5, "birth", 0.1).endswith("kept")


def test_what_never_happens_is_counted_by_worlds() -> None:
    said = rates.calm([world(false=2), world(), world(false=1), world(right=1, kind="death")])
    assert "birth 3," in said
    assert "death" not in said
    assert "none in 2 of 4 worlds, at most 2 in one" in said


def drawn(rng: np.random.Generator, shift: float) -> dict[str, Any]:
    """Scores of exchangeable units, most of them 0, or of a chain that scores higher."""
    chain, null = rng.exponential(size=12) + shift, rng.exponential(size=7)
    return {"tests": 120, "null_candidates": 70, "chain": list(chain), "null": list(null)}


def test_p_values_are_uniform_where_the_null_holds() -> None:
    rng = np.random.default_rng(0)
    worlds = [drawn(rng, 0.0) for _ in range(400)]
    best = np.array([rates.best_p_value(units, rng) for units in worlds])
    assert rates.kstest(best, "uniform").pvalue > 0.01
    units = np.concatenate([rates.unit_p_values(units, rng)[:1] for units in worlds])
    zeros = np.concatenate([rates.unit_p_values(units, rng)[-1:] for units in worlds])
    assert units.max() < zeros.max()
    every = np.concatenate([rates.unit_p_values(units, rng) for units in worlds])
    assert rates.kstest(every, "uniform").statistic < 0.02


def test_p_values_are_not_uniform_where_it_does_not() -> None:
    rng = np.random.default_rng(0)
    best = [rates.best_p_value(drawn(rng, 2.0), rng) for _ in range(40)]
    assert rates.kstest(best, "uniform").pvalue < 1e-3
    nothing = [world(units={"birth": drawn(rng, 2.0)}) for _ in range(20)]
    assert rates.null_p_values(nothing).count("| birth | 20 | p = 0.0") == 1


def test_the_chart_has_a_panel_for_each_preset(tmp_path: Path) -> None:
    chart = calibration_chart({"nothing": [world(), world(false=1)], "hard": [world(right=3, false=1)] * 2})
    assert [panel["title"] for panel in chart.to_dict()["hconcat"]] == ["nothing, 2 worlds", "hard, 2 worlds"]
    chart.save(tmp_path / "chart.png")


TINY = ["--preset", "nothing", "--rows", "300", "--checkpoints", "4", "--features", "8", "--d", "8"]


def test_worlds_are_run_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results.jsonl"
    line = [*TINY, "--results", str(results), "--seeds", "1"]
    assert calibration.main(line) == 0
    first = capsys.readouterr()
    assert "nothing 100" in first.err
    assert "## nothing: 1 worlds" in first.out
    record = json.loads(results.read_text())
    assert record["true"]["birth"] == 0
    with results.open("a") as file:
        file.write('{"job": {"pres')  # cut short by a kill
    monkeypatch.setattr(calibration, "analyzed", None)
    assert calibration.main(line) == 0
    assert capsys.readouterr() == (first.out, "")


def test_other_sizes_and_other_code_are_other_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = set()
    for arguments, code in ((TINY, "a"), (TINY, "b"), (TINY[:2], "a")):
        monkeypatch.setattr(calibration, "code_digest", lambda code=code: code)
        keys |= {job.key for job in calibration.jobs(calibration._parser().parse_args([*arguments, "--seeds", "2"]))}
    assert len(keys) == 6


def test_a_misspelt_preset_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert calibration.main(["--preset", "nothin"]) == 1
    assert "did you mean 'nothing'?" in capsys.readouterr().err
