from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.sparse import csr_array

import dynamics
from dynamics.cli import main
from dynamics.comparison import Compared, _matched, _overlap, compare, comparison_text
from tests.small_runs import runs_in


def test_a_run_shares_all_its_features_with_itself(analysed: Path) -> None:
    run = dynamics.open(analysed)
    [found] = compare(run, run)
    assert len(found.shared) == found.features[0] == found.features[1]
    assert found.by_chance < len(found.shared) / 2
    assert all(row["first"] == row["second"] and row["overlap"] == 1 for row in found.shared)
    assert all(first == second for first, second in (row["onsets"] for row in found.shared))


def test_features_are_matched_one_to_one_by_their_rows() -> None:
    rng = np.random.default_rng(0)
    a = (rng.random((200, 6)) < 0.2).astype(float)
    order = [3, 1, 5, 0]
    b = np.concatenate([a[:, order], (rng.random((200, 3)) < 0.2).astype(float)], axis=1)
    found = _matched(_overlap(csr_array(a), csr_array(b)))
    assert {(i, j) for i, j, overlap in found if overlap == 1} == {(i, j) for j, i in enumerate(order)}
    assert len({i for i, _, _ in found}) == len({j for _, j, _ in found}) == len(found)


def test_nothing_alike_is_no_match() -> None:
    a, b = csr_array(np.eye(8)[:, :4]), csr_array(np.eye(8)[:, 4:])
    assert _matched(_overlap(a, b)) == []


def test_transitions_that_overlap_are_shared() -> None:
    windows = [{"from_step": 10, "to_step": 30}], [{"from_step": 20, "to_step": 50}, {"from_step": 90, "to_step": 99}]
    shared = [{"first": 0, "second": 1, "overlap": 0.8, "onsets": [10, 40]}]
    told = comparison_text([Compared("mlp", 100, (5, 7), shared, 0, windows)])
    assert "1 feature of 5 and 7 fire" in told
    assert "1 came earlier in the first run, 0 in the second" in told
    assert "Both reorganise: steps 10 to 30 and 20 to 50." in told
    assert "Only the second run reorganises in steps 90 to 99." in told


def test_runs_without_a_common_site_are_named(
    analysed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = runs_in(tmp_path)(2, ("head",))
    assert main(["compare", str(analysed), str(other.path)]) == 2
    assert "the runs have no site in common: blocks.0 | head" in capsys.readouterr().err
