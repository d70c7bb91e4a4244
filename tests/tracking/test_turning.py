from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg as la

from dynamics.tracking.drifting import SHORTEST, drifts
from dynamics.tracking.lineage import Edge, tracks_from
from dynamics.tracking.procrustes import nearest_orthogonal, procrustes
from dynamics.tracking.timeline import Timeline
from dynamics.tracking.turning import Turns, turns
from tests.tracking import gallery


def timeline(name: str, *, backwards: bool = False) -> Timeline:
    f = gallery.followed(name)
    forward = Timeline(f.carrying, f.tracks)
    return forward.flipped() if backwards else forward


def all_turns(name: str) -> dict[int, Turns]:
    t = timeline(name)
    return {k: turns(t, k - 1, k) for k in range(1, len(t))}


@pytest.mark.parametrize("backwards", [False, True])
def test_a_rotation_stands_out_at_its_step(backwards: bool) -> None:
    t = timeline("rotation", backwards=backwards)
    former, latter = (3, 4) if backwards else (2, 3)
    found = turns(t, former, latter)
    assert found.j[found.score.argmax()] == 0
    assert found.angle[0] - found.usual > 20
    assert found.score[0] > 2 * found.score[1:].max()


def test_a_rotation_is_measured_in_full() -> None:
    found = all_turns("rotation")[3]
    assert found.angle[0] == pytest.approx(60, abs=10)


@pytest.mark.parametrize("name", ["still", "noise", "space_turn", "rescaled", "birth", "death", "flicker"])
def test_nothing_turns_against_the_rest(name: str) -> None:
    real = all_turns("rotation")[3].score.max()
    for found in all_turns(name).values():
        assert found.usual < 10
        assert found.score.max() < real / 2


@pytest.mark.parametrize("name", gallery.NAMES)
def test_turns_are_of_tracks_live_at_both_places_and_numbers(name: str) -> None:
    t = timeline(name)
    for k, found in all_turns(name).items():
        assert t.track_of(k - 1)[found.i].tolist() == t.track_of(k)[found.j].tolist()
        assert set(t.track_of(k)[found.j]) == set(t.track_of(k - 1)) & set(t.track_of(k))
        assert np.isfinite([found.angle, found.score]).all()
        assert np.all((found.angle >= 0) & (found.angle <= 180))
        assert np.isfinite(found.usual)


def test_a_slow_drift_adds_up_over_its_track() -> None:
    found = drifts(timeline("drift"))
    steps = [t.angle[0] for t in all_turns("drift").values()]
    assert found.track[found.score.argmax()] == 0
    assert found.score[0] > 2 * np.delete(found.score, 0).max()
    assert found.angle[0] > 2 * max(steps)
    assert (found.first[0], found.last[0]) == (0, gallery.CHECKPOINTS - 1)


def test_a_drift_is_measured_in_full() -> None:
    assert drifts(timeline("drift")).angle[0] == pytest.approx(80, abs=10)


@pytest.mark.parametrize("name", ["still", "noise", "space_turn", "rescaled"])
def test_nothing_drifts_where_nothing_happens(name: str) -> None:
    found = drifts(timeline(name))
    assert sorted(found.track) == list(range(gallery.BYSTANDERS))
    assert found.score.max() < drifts(timeline("drift")).score.max() / 2


def test_of_a_track_that_became_another_feature_nothing_is_kept() -> None:
    w = gallery.world(2)
    w.amplitude[gallery.AT :, 0] = 0
    w.amplitude[: gallery.AT, 1] = 0
    f = gallery.followed_history(gallery.history("taken over", w, nulls=0))
    edges = [Edge(s.earlier, s.later, s.links.i, s.links.j) for s in f.steps]
    before, after = gallery.AT - 1, gallery.AT
    edges[before] = Edge(before, after, np.append(edges[before].i, 0), np.append(edges[before].j, 0))
    t = Timeline(f.carrying, tracks_from(edges, [len(of) for of in f.tracks.of]))
    assert t.carrying.series[before].latents[0] == 0
    assert t.carrying.series[after].latents[0] == 1
    found = turns(t, before, after)
    assert found.kept[found.i == 0] < 0.3
    assert found.kept[found.i != 0].min() > 0.8


def test_short_tracks_do_not_drift() -> None:
    assert len(drifts(timeline("two_checkpoints")).track) == 0
    t = timeline("transient")
    short = {n for n in range(len(t.tracks)) if t.tracks.last(n)[0] - t.tracks.first(n)[0] < SHORTEST}
    assert short
    assert not short & set(drifts(t).track)


@pytest.mark.parametrize("degrees", [0, 10, 75, 170])
def test_the_turn_of_a_space_is_found_exactly(degrees: float) -> None:
    x = np.random.default_rng(0).standard_normal((500, 4))
    a = np.radians(degrees)
    turn = np.kron(np.eye(2), [[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]])
    found, residual = procrustes(x, x @ turn)
    np.testing.assert_allclose(found, turn, atol=1e-5)
    assert residual == pytest.approx(0, abs=1e-9)


def test_the_turn_of_a_space_is_found_where_the_quick_way_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    svd = la.svd

    def gives_up(matrix: np.ndarray, *, lapack_driver: str = "gesdd", **options: bool) -> object:
        if lapack_driver == "gesdd":
            raise la.LinAlgError("SVD did not converge")
        return svd(matrix, lapack_driver=lapack_driver, **options)

    monkeypatch.setattr(la, "svd", gives_up)
    turn = svd(np.random.default_rng(0).standard_normal((4, 4)))[0]
    np.testing.assert_allclose(nearest_orthogonal(3 * turn), turn, atol=1e-6)


def test_what_no_turn_explains_is_left_over() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 5000, 4))
    _, residual = procrustes(x, (x + y) / np.sqrt(2))
    assert residual == pytest.approx(1 - np.sqrt(0.5), abs=0.03)
    assert procrustes(x, y)[1] > 0.9


def test_the_turn_of_a_space_takes_bystanders_along() -> None:
    """10° a step in every plane, and yet no feature turns against the others."""
    t = timeline("space_turn")
    rotation = t.carrying.rotation(0, 6)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(gallery.D_IN), atol=1e-4)
    assert np.degrees(np.arccos(np.trace(rotation) / gallery.D_IN)) == pytest.approx(60, abs=3)
