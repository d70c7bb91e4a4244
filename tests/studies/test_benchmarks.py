"""The benchmarks run at tiny sizes, and what they compare is compared rightly."""

from __future__ import annotations

import numpy as np
import pytest

from studies.benchmarks import growth, tracking

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
