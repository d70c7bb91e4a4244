from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from dynamics.tracking.carrying import Carrying
from dynamics.tracking.checkpoint import Checkpoint, Series
from dynamics.tracking.following import LONGEST_GAP, Followed, decoy_scores, follow
from dynamics.tracking.tracker import link_threshold
from tests.tracking import gallery

WHOLE = gallery.CHECKPOINTS
EVENTLESS = ["still", "noise", "space_turn", "rescaled"]


def latents(f: Followed, track: int) -> list[tuple[int, int]]:
    """(checkpoint, latent) of a track."""
    return [(k, int(f.carrying.series[k].latents[n])) for k, n in f.tracks.positions[track]]


@pytest.mark.parametrize("name", EVENTLESS)
def test_where_nothing_happens_every_feature_is_one_track(name: str) -> None:
    f = gallery.followed(name)
    assert len(f.tracks) == gallery.BYSTANDERS
    assert all(latents(f, t) == [(k, t) for k in range(WHOLE)] for t in range(len(f.tracks)))
    assert f.gaps == []


@pytest.mark.parametrize("name", [n for n in gallery.NAMES if n != "no_live_latents"])
def test_bystanders_are_never_confused(name: str) -> None:
    f = gallery.followed(name)
    features = gallery.case(name).history.n_latents - gallery.SPARE
    bystanders = range(features - gallery.BYSTANDERS, features)
    for track in range(len(f.tracks)):
        seen = {latent for _, latent in latents(f, track)}
        assert len(seen) == 1 or not seen & set(bystanders)


def test_every_pair_of_neighbours_is_compared() -> None:
    f = gallery.followed("noise")
    assert [(s.earlier, s.later) for s in f.steps] == [(k, k + 1) for k in range(WHOLE - 1)]
    assert all(s.candidates >= len(s.links) == gallery.BYSTANDERS for s in f.steps)


def test_a_feature_that_was_away_goes_on_as_the_same_track() -> None:
    f = gallery.followed("gap")
    assert [(g.earlier, g.later, g.links.i.tolist(), g.links.j.tolist()) for g in f.gaps] == [(2, 5, [0], [0])]
    assert latents(f, 0) == [(k, 0) for k in (0, 1, 2, 5, 6)]


@pytest.mark.parametrize("missed", [1, LONGEST_GAP - 1, LONGEST_GAP])
def test_gaps_are_closed_up_to_the_longest(missed: int) -> None:
    w = gallery.world(1)
    w.seen[1 : 1 + missed, 0] = 0
    f = gallery.followed_history(gallery.history("gap", w, nulls=0))
    lags = [g.later - g.earlier for g in f.gaps]
    assert lags == ([missed + 1] if missed < LONGEST_GAP else [])


def test_an_empty_dictionary_in_the_middle_is_a_gap_for_all() -> None:
    f = gallery.followed("empty_in_the_middle")
    assert [(g.earlier, g.later, len(g.links)) for g in f.gaps] == [(2, 4, gallery.BYSTANDERS)]
    assert len(f.tracks) == gallery.BYSTANDERS


def test_two_seen_at_once_are_not_joined_over_a_gap() -> None:
    f = gallery.followed("split")
    assert f.gaps == []
    assert sum(latents(f, t)[0] == (0, 0) for t in range(len(f.tracks))) == 1


@pytest.mark.parametrize("name", ["noise", "space_turn", "rescaled"])
def test_decoys_score_like_what_is_unrelated(name: str) -> None:
    f = gallery.followed(name)
    decoys, links = decoy_scores(f.carrying, 0, 1), f.steps[0].links
    assert len(decoys) == gallery.BYSTANDERS
    assert decoys.max() < links.score.min() - 0.3
    assert links.p_value.max() == pytest.approx(1 / (1 + gallery.BYSTANDERS))
    assert decoys.max() < link_threshold(f.carrying) + 0.1


def test_the_threshold_lies_above_decoys_and_below_links() -> None:
    f = gallery.followed("noise")
    threshold = link_threshold(f.carrying)
    decoys = np.concatenate([decoy_scores(f.carrying, k, k + 1) for k in range(WHOLE - 1)])
    assert np.mean(decoys > threshold) <= 0.02
    assert threshold < min(s.links.score.min() for s in f.steps)


def test_without_a_pair_nothing_links() -> None:
    assert link_threshold(gallery.followed("one_checkpoint").carrying) == 1
    assert link_threshold(gallery.followed("no_live_latents").carrying) == 1
    assert gallery.followed("one_checkpoint").steps == []
    assert len(gallery.followed("one_checkpoint").tracks) == gallery.BYSTANDERS


def flipped(checkpoint: Checkpoint, latent: int) -> Checkpoint:
    """The model writes one feature the other way round, on the same rows."""
    decoder = checkpoint.decoder.copy()
    decoder[latent] *= -1
    column = checkpoint.codes[:, [latent]].toarray()
    x = checkpoint.activations + 2 * column * decoder[latent]
    return replace(checkpoint, activations=x.astype(np.float32), decoder=decoder)


def test_a_direction_that_turns_round_leaves_the_track_unbroken() -> None:
    """The same inputs fire and point where the later decoder row points: cosine −1 and yet a link."""
    history = gallery.case("noise").history
    checkpoints = [history.chain[0], flipped(history.chain[1], 4)]
    carrying = Carrying(Series([0, 100], checkpoints.__getitem__), history.sequence)
    links = follow(carrying, link_threshold(carrying)).steps[0].links
    assert (links.i[4], links.j[4]) == (4, 4)
    assert links.cosine[4] < -0.99
    assert links.score[4] > 0.8
