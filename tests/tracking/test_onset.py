from __future__ import annotations

import pytest

from dynamics.tracking.onset import onsets
from tests.tracking import gallery

COLUMNS = ["track", "step", "low", "high", "censored"]


def by_latent(name: str) -> dict[int, dict[str, object]]:
    """The onset of each latent's track; latents that were seen twice or more."""
    f = gallery.followed(name)
    rows = {row["track"]: row for row in onsets(f).to_pylist()}
    first = {t: f.tracks.first(t) for t in rows}
    return {int(f.carrying.series[k].latents[n]): rows[t] for t, (k, n) in first.items()}


@pytest.mark.parametrize(("name", "latent", "step"), [("birth", 0, 300), ("late_birth", 0, 300), ("transient", 0, 200)])
def test_a_feature_has_its_onset_where_the_model_begins_to_carry_it(name: str, latent: int, step: int) -> None:
    row = by_latent(name)[latent]
    assert (row["step"], row["low"], row["high"], row["censored"]) == (step, step - 100, step, None)


@pytest.mark.parametrize("name", ["still", "noise", "death", "space_turn", "rescaled", "rotation", "drift"])
def test_what_was_there_from_the_start_is_censored(name: str) -> None:
    rows = by_latent(name)
    features = gallery.case(name).history.n_latents - gallery.SPARE
    assert len(rows) == features
    assert {(r["step"], r["low"], r["high"], r["censored"]) for r in rows.values()} == {(0, None, 0, "left")}


def test_a_feature_that_the_model_never_carries_has_no_onset() -> None:
    w = gallery.world(1)
    w.amplitude[:, 0] = 0
    w.imagined[2:, 0] = 1
    f = gallery.followed_history(gallery.history("imagined", w, nulls=0))
    imagined = {
        int(of[c.latents == 0][0]) for of, c in zip(f.tracks.of, f.carrying.series, strict=True) if 0 in c.latents
    }
    found = [r for r in onsets(f).to_pylist() if r["track"] in imagined]
    assert {(r["step"], r["low"], r["high"], r["censored"]) for r in found} <= {(None, 600, None, "right")}


@pytest.mark.parametrize("name", gallery.NAMES)
def test_a_row_for_every_track_seen_twice(name: str) -> None:
    f = gallery.followed(name)
    table = onsets(f)
    assert table.column_names == COLUMNS
    assert table["track"].to_pylist() == [t for t, p in enumerate(f.tracks.positions) if len(p) >= 2]
    for row in table.to_pylist():
        assert row["censored"] in (None, "left", "right")
        assert row["censored"] is not None or row["low"] < row["high"] == row["step"]
