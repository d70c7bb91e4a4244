"""The benchmarks run at tiny sizes, and what they compare is compared rightly."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from studies.benchmarks import growth, sae_peers, tracking
from studies.benchmarks.known_dictionary import KnownDictionary

TINY = ["--latents", "700", "--d", "32", "--rows", "6000", "--firing", "8", "--hungarian", "50"]


def test_the_pair_of_checkpoints_is_linked_as_it_was_planted(capsys: pytest.CaptureFixture[str]) -> None:
    found = tracking.main([*TINY, "--claimed", "5"])
    assert found["precision"] > 0.97
    assert found["recall"] > 0.97
    said = capsys.readouterr().out
    assert all(word in said for word in ("candidates", "links", "floor", "dense", "carried directions of 5 latents"))


def test_carried_directions_of_a_few_are_those_of_all() -> None:
    pair = tracking.planted_pair(60, 16, 2000, 4)
    x, z = tracking.activations(pair.later), pair.earlier.codes.toarray()
    z = z / np.linalg.norm(z, axis=0)
    centred = z - z.mean(axis=0)
    whole = np.linalg.solve(centred.T @ centred + tracking.RIDGE * np.eye(z.shape[1]), centred.T @ x)
    some = np.array([3, 17, 40])
    np.testing.assert_allclose(tracking.carried(pair.earlier.codes, x, some), whole[some], rtol=1e-2, atol=1e-2)


def test_growth_is_printed_for_each_length(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(growth.main(["--checkpoints", "7", "8", "--features", "30", "--rows", "600"])) == 2
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["checkpoints", "7", "8"]


def test_a_known_dictionary_is_in_its_rows_and_nothing_else_is() -> None:
    world = KnownDictionary(d=32, active=3, tail=0.5)
    x = world.rows(0, 4000)
    assert float(x.mean(0).abs().max()) < 1e-4
    assert float(x.square().sum(1).mean()) == pytest.approx(32, rel=1e-3)
    assert world.found(3 * world.truth).min() > 0.999
    assert world.found(torch.eye(32)).max() < 0.9
    assert not torch.equal(x, world.rows(1, 4000))


def test_both_tables_have_a_row_for_each_library_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    alone = ["--libraries", "dynamics", "floor", "--threads", "1"]
    sae_peers.main(["speed", "--sizes", "8,16,2,64", "--rounds", "1", "--steps", "3", *alone])
    said = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[2] for line in said[2:]] == ["dynamics", "floor"]
    assert said[2].split(" | ")[4] == "1.00"


def test_the_share_of_the_dictionary_that_was_found_is_printed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sae_peers, "STEPS", 30)
    sizes = ["--sizes", "8,32,2", "--seeds", "2", "--architectures", "batch_topk"]
    sae_peers.main(["quality", *sizes, "--libraries", "dynamics", "--threads", "1"])
    cells = capsys.readouterr().out.splitlines()[2].strip("| ").split(" | ")
    assert cells[:3] == ["batch_topk", "8, 32, 2", "dynamics"]
    assert 0.5 < float(cells[3].split(" ± ")[0]) <= 1
    assert float(cells[5].split(" ± ")[0]) == pytest.approx(2, rel=0.2)
