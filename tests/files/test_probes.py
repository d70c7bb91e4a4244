"""The probe's rows on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dynamics.capture.probe import ProbeRows
from dynamics.files import DamagedError, RunDirectory, load_probe, write_probe

HOSTILE = ["", "\0", "\ud800", "a\udc80", "\u202eabc", "😀", "</script>", "'; drop table x; --", "\r\n\u2028"]


def rows(text: list[str] | None) -> ProbeRows:
    n = len(HOSTILE)
    return ProbeRows(np.arange(n) // 2, np.arange(n) % 2, text, {"has/any name": np.arange(n) % 3 == 0})


@pytest.mark.parametrize("text", [None, HOSTILE])
def test_rows_come_back_as_they_went_in(tmp_path: Path, text: list[str] | None) -> None:
    run = RunDirectory.create(tmp_path / "run")
    write_probe(run, "digest", rows(text))
    found = load_probe(run, "digest")
    assert found.text == text
    np.testing.assert_array_equal(found.sequence, rows(text).sequence)
    np.testing.assert_array_equal(found.position, rows(text).position)
    np.testing.assert_array_equal(found.masks["has/any name"], rows(text).masks["has/any name"])


def test_damage_is_found(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    write_probe(run, "digest", rows(HOSTILE))
    path = run.probe("digest")
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 2]) + whole[place + 1 :])
        with pytest.raises(DamagedError, match=r"digest\.safetensors"):
            load_probe(run, "digest")


def test_a_missing_probe_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="the run has no probe x"):
        load_probe(RunDirectory.create(tmp_path / "run"), "x")
