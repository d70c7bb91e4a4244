"""Facts that carry their own digest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dynamics.files.sealed import unsealed, write_sealed

FACTS = {"step": 12, "loss": float("nan"), "site": "blocks.0 ü", "kept": [1, 2], "none": None}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write_sealed(tmp_path / "facts.json", FACTS)
    assert repr(unsealed((tmp_path / "facts.json").read_bytes())) == repr(FACTS)


def test_every_flipped_bit_is_found_or_changes_no_fact(tmp_path: Path) -> None:
    write_sealed(tmp_path / "facts.json", FACTS)
    data = (tmp_path / "facts.json").read_bytes()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            found = unsealed(bytes(flipped))
        except ValueError:
            continue
        assert repr({name: found.get(name) for name in FACTS}) == repr(FACTS), flipped


def test_a_file_written_by_hand_needs_no_digest() -> None:
    assert unsealed(json.dumps({"fdr": 0.1}).encode()) == {"fdr": 0.1}
    with pytest.raises(ValueError, match="it is no JSON object"):
        unsealed(b"[]")
    with pytest.raises(ValueError, match="its content is not what was written"):
        unsealed(b'{"fdr": 0.1, "sha256": "0"}')
