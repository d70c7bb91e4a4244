"""Text as the database holds it."""

from __future__ import annotations

import numpy as np
import pytest

from dynamics.store.text import AROUND, surroundings, varchar


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("", ""),
        ("plain üß 😀", "plain üß 😀"),
        ("\ud800", "\ufffd"),
        ("a\udc80b", "a\ufffdb"),
        ("\ud800b", "\ufffdb"),
        ("\ud83d\ude00", "😀"),
        ("\0\u202e\r\n\u2028", "\0\u202e\r\n\u2028"),
        ("\ufeffa", "\ufeffa"),
    ],
)
def test_only_what_utf8_cannot_spell_is_replaced(text: str, held: str) -> None:
    assert varchar(text) == held
    held.encode()


def test_surroundings_stay_in_the_sequence_and_follow_positions() -> None:
    sequence, position = np.array([1, 0, 1, 0, 1]), np.array([4, 0, 0, 1, 2])
    before, after = surroundings(sequence, position, ["C", "x", "A", "y", "B"])
    assert before == ["AB", "", "", "x", "A"]
    assert after == ["", "y", "BC", "", "C"]


def test_surroundings_are_cut() -> None:
    text = ["0123456789"] * 9 + ["end"]
    before, after = surroundings(np.zeros(10, int), np.arange(10), text)
    assert before[9] == "0123456789" * 4
    assert after[0] == "0123456789" * 4
    assert max(map(len, before + after)) == AROUND


def test_the_text_of_an_example_surrounds_nothing() -> None:
    assert surroundings(np.zeros(3, int), np.arange(3), ["whole"] * 3) == ([""] * 3, [""] * 3)
