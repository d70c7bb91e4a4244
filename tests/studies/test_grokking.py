from __future__ import annotations

import functools
import math
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import dynamics
from studies.grokking import __main__ as study
from studies.grokking import births, truth
from studies.grokking.training import Adder, Setting, record, split
from studies.grokking.truth import Measures, Phase

TINY = functools.partial(Setting, prime=7, width=8, hidden=16, latents=14, k=3, sae_steps=40)


def measures(train: float, test: float, squared: float) -> Measures:
    return Measures(train, test, squared, 0.1, torch.zeros(4, 2))


def test_phases_are_told_by_accuracy_and_weights() -> None:
    found = {
        0: measures(0.1, 0.1, 1),
        10: measures(1.0, 0.1, 5),
        20: measures(1.0, 0.1, 9),
        30: measures(1.0, 0.6, 4),
        40: measures(1.0, 1.0, 3),
        50: measures(1.0, 1.0, 3),
    }
    told = [(p.name, p.first, p.last) for p in truth.phases(found)]
    assert told == [
        ("memorisation", 0, 10),
        ("circuit formation", 10, 20),
        ("clean-up", 20, 40),
        ("afterwards", 40, 50),
    ]


def test_windows_are_of_equal_ratio() -> None:
    assert Phase("", 100, 160).windows == pytest.approx(1)
    assert Phase("", 100, 256).windows == pytest.approx(2)


def test_gini_is_0_for_equal_power_and_near_1_for_one_frequency() -> None:
    assert truth.gini(torch.ones(30)) == pytest.approx(0, abs=1e-6)
    assert truth.gini(torch.eye(30)[0]) == pytest.approx(1 - 1 / 30)


def test_the_key_frequency_of_a_circuit_is_found_and_carries_it() -> None:
    setting = TINY()
    pairs, learned = split(setting)
    answers = torch.arange(7)
    logits = 20 * torch.cos(2 * math.pi * 2 * (pairs.sum(1, keepdim=True) - answers) / 7)
    found = {0: Measures(1, 1, 1, 1, torch.zeros_like(logits)), 5: Measures(1, 1, 1, 1, logits)}
    frequencies, losses = truth.key_losses(found, pairs, learned)
    assert frequencies == [2]
    assert losses[5][0] < 0.01  # alone it adds
    assert losses[5][1] == pytest.approx(math.log(7), abs=1e-4)  # without it nothing is known


def test_half_of_the_pairs_are_learned() -> None:
    pairs, learned = split(TINY())
    assert len(pairs) == 49
    assert len(set(learned.tolist())) == 24


def test_logits_have_mean_0() -> None:
    setting = TINY()
    logits = Adder(setting)(split(setting)[0])
    assert logits.mean(1).abs().max() < 1e-6
    assert logits.std() > 0


def test_training_learns_its_half(tmp_path: Path) -> None:
    found = record(TINY(steps=400), tmp_path / "run")
    assert list(found) == TINY(steps=400).schedule
    assert found[0].train_accuracy < 0.5
    assert found[400].train_accuracy > 0.7


def test_births_are_counted_in_their_phase() -> None:
    rows = [("birth", 100), ("birth", 150), ("birth", 160), ("death", 150), ("birth", 200)]
    run = SimpleNamespace(sql=lambda query, format: rows)
    events = births.published(run)
    assert events == Counter({**dict.fromkeys(rows, 1)})
    phase = Phase("clean-up", 100, 160)
    assert births.in_phase(events, "birth", phase) == 2
    printed = births.table([("grokking", run)], [phase])
    assert "| grokking | 2 (2.0) | 1 | 0 | 0 |" in printed


def test_the_study_prints_its_table_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(study, "Setting", TINY)
    monkeypatch.setattr(study, "command", lambda _, run: dynamics.open(run).analyze(progress=False))  # no new process
    assert study.main(["--steps", "60", "--per-window", "0.5", "--pictures", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "| grokking |" in printed
    assert "| control |" in printed
    assert (tmp_path / "grokking.png").stat().st_size > 10_000
