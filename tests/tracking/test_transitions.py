from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import pytest

from dynamics.tracking.events import Event
from dynamics.tracking.following import Followed
from dynamics.tracking.transitions import FEWEST, Transitions, transitions
from tests.tracking import gallery

LENGTH, AT = 14, 8
CALM = [1.0 - 0.02 * k for k in range(LENGTH)]
FALL = [1.0 - 0.02 * k - 0.6 * (k >= AT) for k in range(LENGTH)]


@cache
def reorganised(at: int | None) -> Followed:
    """Fourteen checkpoints; at one of them half of the features give way to new ones."""
    w = gallery.world(10, checkpoints=LENGTH)
    if at is None:
        w.amplitude[:, :10] = 0
    else:
        w.amplitude[:at, :10] = 0
        w.amplitude[at:, 10:20] = 0
    return gallery.followed_history(gallery.history("reorganised", w, nulls=0))


def rows(found: Transitions) -> list[dict[str, object]]:
    return found.table.to_pylist()


def test_a_reorganisation_is_a_transition() -> None:
    [row] = rows(transitions(reorganised(AT), [], FALL))
    assert row["peak_step"] == 100 * AT
    assert row["from_step"] == 100 * (AT - 1)
    assert row["to_step"] == 100 * AT
    assert 0 < row["p_value"] <= 0.01
    assert set(str(row["series"]).split(",")) == {"loss", "movement", "turnover"}


def test_without_a_loss_a_peak_in_all_series_is_as_rare_as_one_shift_in_all() -> None:
    births = [Event("birth", AT, (), ((AT, n),), 3.0, q_value=0.01) for n in range(10)]
    [row] = rows(transitions(reorganised(AT), births))
    assert row["p_value"] == 1 / (LENGTH - 1) ** 2


def test_an_escape_from_initialisation_is_labelled() -> None:
    [row] = rows(transitions(reorganised(1), [], [2.0, *([1.0] * (LENGTH - 1))]))
    assert row["from_step"] == 0
    assert str(row["series"]).endswith("escape from initialisation")


@pytest.mark.parametrize("losses", [(), CALM, FALL])
def test_where_no_two_families_agree_there_is_none(losses: Sequence[float]) -> None:
    found = transitions(reorganised(None), [], losses)
    assert rows(found) == []
    assert any(note.startswith("no transition beyond chance; the likeliest window is") for note in found.notes)


@pytest.mark.parametrize("name", ["noise", "one_checkpoint", "two_checkpoints", "no_live_latents"])
def test_few_checkpoints_cannot_tell(name: str) -> None:
    f = gallery.followed(name)
    n = len(f.carrying.series)
    found = transitions(f, [])
    assert rows(found) == []
    assert found.notes == [
        f"whether there was a transition cannot be told from {n} checkpoint{'s' * (n != 1)}; {FEWEST} are needed"
    ]


def test_what_the_null_resolves_is_said_either_way() -> None:
    for at, losses in ((AT, FALL), (None, CALM)):
        assert any("resolves p down to" in n for n in transitions(reorganised(at), [], losses).notes)


def test_the_curves_have_a_value_for_every_pair() -> None:
    change = transitions(reorganised(AT), [], FALL).change
    curves = {s: [r for r in change.to_pylist() if r["series"] == s] for s in set(change["series"].to_pylist())}
    assert set(curves) == {"turnover", "events", "movement", "loss"}
    for curve in curves.values():
        assert [r["step"] for r in curve] == [100 * k for k in range(1, LENGTH)]
        assert np.isfinite([r["value"] for r in curve]).all()
    assert max(curves["turnover"], key=lambda r: r["value"])["step"] == 100 * AT
    assert max(curves["loss"], key=lambda r: r["value"])["value"] == pytest.approx(0.62)


@pytest.mark.parametrize("losses", [(), [1.0], [None] * LENGTH, [float("nan"), *CALM[1:]], [None, *CALM[1:]]])
def test_losses_that_are_not_all_known_are_left_out(losses: Sequence[float | None]) -> None:
    series = set(transitions(reorganised(None), [], losses).change["series"].to_pylist())
    assert series == {"turnover", "events", "movement"}


def test_the_same_history_gives_the_same_answer() -> None:
    once, again = (transitions(reorganised(AT), [], FALL) for _ in range(2))
    assert once.table.equals(again.table)
    assert once.notes == again.notes
