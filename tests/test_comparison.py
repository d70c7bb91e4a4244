from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import vl_convert
from scipy.sparse import csr_array

import dynamics
from dynamics import charts
from dynamics.charts.comparison import onset_pairs
from dynamics.charts.theme import MARKS
from dynamics.cli import main
from dynamics.comparison import Compared, _alone, _matched, _overlap, _Side, compare, comparison_text
from dynamics.files.layout import RunDirectory
from dynamics.store.store import build
from tests.charts.synthetic import SITES, synthetic_run
from tests.small_runs import runs_in


def test_a_run_shares_all_its_features_with_itself(analysed: Path) -> None:
    run = dynamics.open(analysed)
    [found] = compare(run, run)
    assert len(found.shared) == found.features[0] == found.features[1]
    assert len(found.chance) < len(found.shared) / 2
    assert all(row["first"] == row["second"] and row["overlap"] == 1 for row in found.shared)
    assert all(first == second for first, second in (row["onsets"] for row in found.shared))
    assert found.alone == ([], [])


def test_features_are_matched_one_to_one_by_their_rows() -> None:
    rng = np.random.default_rng(0)
    a = (rng.random((200, 6)) < 0.2).astype(float)
    order = [3, 1, 5, 0]
    b = np.concatenate([a[:, order], (rng.random((200, 3)) < 0.2).astype(float)], axis=1)
    found = _matched(_overlap(csr_array(a), csr_array(b)))
    assert {(i, j) for i, j, overlap in found if overlap == 1} == {(i, j) for j, i in enumerate(order)}
    assert len({i for i, _, _ in found}) == len({j for _, j, _ in found}) == len(found)


def test_nothing_alike_is_no_match_and_alone() -> None:
    a, b = csr_array(np.eye(8)[:, :4]), csr_array(np.eye(8)[:, 4:])
    assert _matched(_overlap(a, b)) == []
    assert [row["track"] for row in _alone(_Side(a, [5, 6, 7, 8], [0, 1, 2, 3], "p"), _overlap(a, b))] == [5, 6, 7, 8]
    half = csr_array(np.array([[1.0, 0], [0, 1], [0, 1], [0, 1], [0, 1]]))
    [row] = _alone(_Side(half, [5, 6], [0, 1], "p"), _overlap(half, csr_array(np.array([[1.0], [1], [0], [0], [0]]))))
    assert (row["track"], row["overlap"]) == (6, 0.2)


def test_transitions_that_overlap_are_shared() -> None:
    windows = [{"from_step": 10, "to_step": 30}], [{"from_step": 20, "to_step": 50}, {"from_step": 90, "to_step": 99}]
    common = {"first": 0, "second": 1, "overlap": 0.8}
    onsets = [([10, 40], [False, False]), ([0, 0], [True, True]), ([0, 50], [True, False]), ([None, 3], [False, False])]
    shared = [{**common, "onsets": steps, "early": early} for steps, early in onsets]
    told = comparison_text([Compared("mlp", 100, (5, 7), shared, [], ([{}], [{}, {}]), windows)])
    assert "1 feature of the first run and 2 of the second are like none of the other's." in told
    assert "of 5 and 7 features 4 fire" in told
    assert "3 shared features with an onset in both runs: 1 there at the first checkpoint of both" in told
    assert "2 earlier in the first run, 0 in the second, 0 at the same step." in told
    assert "One came after the first checkpoint in both: at step 10 and at step 40." in told
    assert "Both reorganise: steps 10 to 30 and 20 to 50." in told
    assert "Only the second run reorganises in steps 90 to 99." in told


def test_the_page_has_the_pictures_and_the_words(
    analysed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "two.html"
    assert main(["compare", str(analysed), str(analysed), "-o", str(page)]) == 0
    told, text = capsys.readouterr().out, page.read_text()
    assert "fire on the same rows" in told
    assert f"wrote {page}" in told
    assert text.count("data-chart=") == 3
    assert "What shared features fire on: the most alike" in text
    assert main(["compare", str(analysed), str(analysed), "-o", str(tmp_path)]) == 2
    assert "is a folder; name a file" in capsys.readouterr().err


def test_onsets_on_the_diagonal_are_at_the_same_step() -> None:
    onsets = [[0, 0], [10, 10], [10, 10], [0, 500], [None, 3]]
    shared = [{"onsets": steps, "early": [step == 0 for step in steps]} for steps in onsets]
    chart = onset_pairs(shared, [0, 10, 500], "mlp").to_dict()
    cells = [row for rows in chart["datasets"].values() for row in rows if "when" in row]
    assert {(row["first"], row["second"]): row["features"] for row in cells} == {(0, 0): 1, (10, 10): 2, (0, 500): 1}
    title = " ".join(chart["title"]["text"])
    assert title.startswith("4 shared features: 1 there from the start in both; 1 earlier in the first run")


@pytest.mark.parametrize("checkpoints", [2, 25])
def test_two_histories_beside_each_other(checkpoints: int) -> None:
    runs = [synthetic_run(checkpoints, sites=SITES[:1], seed=seed, quiet=seed > 0) for seed in (0, 1)]
    chart = charts.side_by_side(*runs, SITES[0]).to_dict()
    drawn = {row["run"] for rows in chart["datasets"].values() for row in rows if "value" in row}
    assert drawn == {"first run", "second run"}
    assert sum(len(rows) for rows in chart["datasets"].values()) <= MARKS
    title = " ".join(chart["title"]["text"])
    assert title == (
        "Only the first run has a phase transition" if checkpoints > 2 else "Neither run has a phase transition"
    )
    vl_convert.vegalite_to_svg(chart)


def test_a_run_that_is_not_tracked_is_named(analysed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    shutil.copytree(analysed, other)
    shutil.rmtree(other / "tracking")
    build(RunDirectory.open(other))
    assert main(["compare", str(other), str(analysed)]) == 2
    assert f"blocks.0: {other} has no tracked feature at step 70; `dynamics analyze`" in capsys.readouterr().err


def test_runs_without_a_common_site_are_named(
    analysed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = runs_in(tmp_path)(2, ("head",))
    assert main(["compare", str(analysed), str(other.path)]) == 2
    assert "the runs have no site in common: blocks.0 | head" in capsys.readouterr().err
