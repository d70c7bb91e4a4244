from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import dynamics
from studies.planted.matching import assign
from studies.superposition import __main__ as study
from studies.superposition import cases, runs, truth
from studies.superposition.cases import CASES, case
from studies.superposition.training import probe_inputs, record

TINY = replace(CASES["births"], instances=2, steps=240, checkpoints=6, first=20, rows=400, latents=1, k=3, sae_steps=40)


def two_pairs(*moments: tuple[float, float, float]) -> dict[int, np.ndarray]:
    """One network, hidden 4, two pairs: lengths of the pairs, and degrees between the first pair's columns."""
    weights = {}
    for i, (first, second, degrees) in enumerate(moments):
        angle = np.radians(degrees)
        W = np.zeros((1, 4, 4))
        W[0, :2, 0], W[0, :2, 1] = (first, 0), (first * np.cos(angle), first * np.sin(angle))
        W[0, 2:, 2], W[0, 2:, 3] = (second, 0), (0, second)
        weights[10 * i] = W
    return weights


def happened(weights: dict[int, np.ndarray]) -> list[tuple[str, int, tuple[int, ...], tuple[int, ...]]]:
    small = replace(CASES["splits"], instances=1, features=4, hidden=4)
    return [(e.kind, e.checkpoint, e.parents, e.children) for e in truth.truth(small, weights).events]


def test_a_pair_is_born_as_one_feature_splits_merges_and_dies() -> None:
    moments = [(0.1, 0, 0), (1, 0, 5), (1, 0, 80), (1, 0, 10), (0.1, 0, 10)]
    assert happened(two_pairs(*moments)) == [
        ("birth", 1, (), (4,)),
        ("split", 2, (4,), (0, 1)),
        ("merge", 3, (0, 1), (4,)),
        ("death", 4, (4,), ()),
    ]


def test_columns_that_are_never_together_are_two_births() -> None:
    assert happened(two_pairs((0, 0, 0), (0, 1, 0))) == [("birth", 1, (), (2,)), ("birth", 1, (), (3,))]


def test_a_crossing_counts_if_it_goes_on() -> None:
    curves = np.array([[0.1, 0.1], [0.55, 0.55], [0.4, 0.58], [0.1, 0.7], [0.1, 0.45], [0.1, 0.9]])
    states = truth.switched(curves, middle=0.5, surely_on=0.6, surely_off=0.3)
    assert states.T.tolist() == [[False] * 6, [False, True, True, True, True, True]]


def test_the_perfect_dictionary_is_matched_to_itself() -> None:
    small = replace(CASES["splits"], instances=1, features=4, hidden=4, rows=500)
    [weights] = two_pairs((1.0, 1.0, 0.0)).values()
    perfect = truth.perfect(small, {2, 3, 4}, weights, probe_inputs(small, 0).double().numpy())
    np.testing.assert_allclose(np.linalg.norm(perfect.directions, axis=1), 1)
    assert assign(perfect, perfect.directions, perfect.codes).principal == {2: 0, 3: 1, 4: 2}


def test_features_are_learned_in_the_order_of_their_importance(tmp_path: Path) -> None:
    weights = record(replace(TINY, steps=500, first=60), 0, tmp_path / "run")
    first, *_, last = (np.linalg.norm(W, axis=1) for W in weights.values())
    assert first.max() < 0.1
    assert (last[:, 0] > 0.9).all()
    assert (last[:, 8:] < 0.1).all()


def test_a_frozen_network_is_trained_and_then_stands_still(tmp_path: Path) -> None:
    frozen = replace(TINY, frozen=True)
    weights = record(frozen, 0, tmp_path / "run")
    first, *others = weights.values()
    assert np.linalg.norm(first, axis=1).max() > 0.3
    assert all((first == W).all() for W in others)
    assert truth.truth(frozen, weights).events == ()


def test_pairs_become_identical_in_training_and_stay_apart_in_the_probe() -> None:
    merges = case("merges", rows=200)
    before, after = (merges.inputs(200, step, torch.Generator().manual_seed(0)) for step in (2999, 3000))
    assert (before[..., ::2] != before[..., 1::2]).any()
    assert (after[..., ::2] == after[..., 1::2]).all()
    probe = probe_inputs(merges, 0)
    assert (probe[..., ::2] != probe[..., 1::2]).any()


def test_checkpoints_are_spaced_anew_after_a_change() -> None:
    steps = CASES["deaths"].schedule
    assert steps[0] == 0
    assert steps[-1] == 8000
    assert {4000, 4060} <= set(steps)


def test_a_misspelt_case_is_named() -> None:
    with pytest.raises(ValueError, match="no case 'birth'; did you mean 'births'\\?"):
        case("birth")


def test_the_study_prints_its_tables_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(cases.CASES, "births", TINY)
    monkeypatch.setattr(runs, "command", lambda _, run: dynamics.open(run).analyze(progress=False))  # no new process
    assert study.main(["--case", "births", "--seeds", "1", "--events", "--pictures", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "birth    true at" in printed
    assert "| births found |" in printed
    assert (tmp_path / "births.png").stat().st_size > 10_000
