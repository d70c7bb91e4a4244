"""The probe of a run on disk: what each row of a snapshot is."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import torch

from dynamics.capture.probe import ProbeRows
from dynamics.files.atomic import make_folder, write_bytes
from dynamics.files.commits import DamagedError
from dynamics.files.layout import RunDirectory
from dynamics.files.tensors import parse_tensors, tensor_bytes

MASK = "mask."


def write_probe(run: RunDirectory, digest: str, rows: ProbeRows) -> None:
    """Write the rows of the probe named ``digest``; nothing happens where it is there already."""
    path = run.probe(digest)
    if path.is_file():
        return
    tensors = _tensors(rows)
    make_folder(path.parent)
    write_bytes(path, tensor_bytes(tensors, {"sha256": hashlib.sha256(tensor_bytes(tensors)).hexdigest()}))


def load_probe(run: RunDirectory, digest: str) -> ProbeRows:
    """The rows of the probe named ``digest``.

    Raises:
        FileNotFoundError: if the run has no such probe.
        DamagedError: if its file is damaged.
    """
    path = run.probe(digest)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: the run has no probe {digest}")
    tensors, metadata = parse_tensors(path.read_bytes(), str(path))
    if hashlib.sha256(tensor_bytes(tensors)).hexdigest() != metadata.get("sha256"):
        raise DamagedError(f"{path} is damaged: its SHA-256 is not the one it was written with; restore it from a copy")
    return ProbeRows(
        sequence=tensors["sequence"].numpy(),
        position=tensors["position"].numpy(),
        text=_text(tensors["text"], tensors["text_offsets"]) if "text" in tensors else None,
        masks={name.removeprefix(MASK): mask.numpy() for name, mask in tensors.items() if name.startswith(MASK)},
    )


def _tensors(rows: ProbeRows) -> dict[str, torch.Tensor]:
    tensors = {"sequence": _tensor(rows.sequence, "int64"), "position": _tensor(rows.position, "int64")}
    tensors |= {MASK + name: _tensor(mask, "bool") for name, mask in rows.masks.items()}
    if rows.text is not None:
        # Half of a surrogate pair is no UTF-8, but a byte-level tokenizer may hand it over.
        encoded = [text.encode("utf-8", "surrogatepass") for text in rows.text]
        tensors["text"] = _tensor(np.frombuffer(b"".join(encoded), np.uint8), "uint8")
        tensors["text_offsets"] = _tensor(np.cumsum([0, *(len(text) for text in encoded)]), "int64")
    return tensors


def _tensor(array: np.ndarray, dtype: str) -> torch.Tensor:
    return torch.from_numpy(np.array(array, dtype=dtype))


def _text(data: torch.Tensor, offsets: torch.Tensor) -> list[str]:
    whole, edges = data.numpy().tobytes(), offsets.tolist()
    return [whole[a:b].decode("utf-8", "surrogatepass") for a, b in pairwise(edges)]
