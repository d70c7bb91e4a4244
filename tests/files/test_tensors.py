from __future__ import annotations

from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from dynamics.files.commits import DamagedError
from dynamics.files.tensors import parse_tensors, tensor_bytes, tensor_header

TENSORS = {"b": torch.arange(3), "a": torch.ones(2, 5, dtype=torch.bfloat16)}
SAID = {f"name {n}": f"välue {n}" for n in range(12)}


def test_the_same_tensors_and_metadata_are_the_same_bytes() -> None:
    """The library alone writes twelve metadata in one order once in twelve factorial times."""
    data = tensor_bytes(TENSORS, SAID)
    assert list(tensor_header(data)["__metadata__"]) == sorted(SAID)
    assert tensor_bytes(dict(reversed(TENSORS.items())), dict(reversed(SAID.items()))) == data


@pytest.mark.parametrize("metadata", [None, {}, {"k": "8"}, SAID])
def test_the_library_reads_what_is_written(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    data = tensor_bytes(TENSORS, metadata)
    (tmp_path / "file").write_bytes(data)
    with safe_open(tmp_path / "file", "pt") as file:
        assert (file.metadata() or {}) == (metadata or {})
    for found in (safetensors.torch.load(data), parse_tensors(data, "file")[0]):
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in TENSORS.items())
    assert parse_tensors(data, "file")[1] == (metadata or {})


def test_what_is_cut_is_damaged() -> None:
    with pytest.raises(DamagedError, match="file is no whole safetensors file"):
        parse_tensors(tensor_bytes(TENSORS, SAID)[:-1], "file")
