"""SAEs of other libraries on disk: a folder each, with the files that the library itself reads and writes."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dynamics.files.atomic import json_bytes, write_bytes
from dynamics.files.commits import DamagedError
from dynamics.files.tensors import parse_tensors, tensor_bytes
from dynamics.sae import formats
from dynamics.sae.autoencoder import SparseAutoencoder


@dataclass(frozen=True)
class Library:
    """The files of one library, and what they say."""

    tensors: str
    """Name of the file with the tensors."""
    settings: str
    """Name of the file with the settings."""
    read: Callable[[dict[str, Tensor], dict[str, Any]], SparseAutoencoder]
    write: Callable[[SparseAutoencoder, str], tuple[dict[str, Tensor], dict[str, Any]]]


LIBRARIES = {
    "saelens": Library("sae_weights.safetensors", "cfg.json", formats.from_saelens, formats.to_saelens),
    "dictionary_learning": Library(
        "ae.pt", "config.json", formats.from_dictionary_learning, formats.to_dictionary_learning
    ),
    "sparsify": Library("sae.safetensors", "cfg.json", formats.from_sparsify, formats.to_sparsify),
}


def read_foreign_sae(folder: Path, format: str) -> SparseAutoencoder:
    """The SAE in a folder of another library.

    Raises:
        FileNotFoundError: if one of its two files is not there.
        ValueError: if they hold no SAE that can be used, naming the file.
    """
    library = LIBRARIES[format]
    paths = folder / library.settings, folder / library.tensors
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{folder.name} has no {path.name}, which an SAE of {format} has")
    try:
        settings = json.loads(paths[0].read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{folder.name}/{paths[0].name} is no JSON ({error})") from None
    try:
        return library.read(_tensors(paths[1]), settings)
    except (ValueError, DamagedError) as error:
        raise ValueError(f"{folder.name}: {error}") from None


def _tensors(path: Path) -> dict[str, Tensor]:
    if path.suffix != ".pt":
        return parse_tensors(path.read_bytes(), path.name)[0]
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError):
        raise ValueError(f"{path.name} cannot be read as tensors alone; save the SAE's state_dict() anew") from None
    if not isinstance(found, dict) or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise ValueError(f"{path.name} holds something else than named tensors")
    return found


def write_foreign_sae(folder: Path, format: str, sae: SparseAutoencoder, site: str) -> None:
    """An SAE as the files of another library, which then opens the folder.

    Raises:
        ValueError: if that library has no such SAEs.
    """
    library = LIBRARIES[format]
    tensors, settings = library.write(sae, site)
    folder.mkdir(parents=True)
    write_bytes(folder / library.tensors, _bytes(tensors, library.tensors))
    write_bytes(folder / library.settings, json_bytes(settings))


def _bytes(tensors: dict[str, Tensor], name: str) -> bytes:
    if not name.endswith(".pt"):
        return tensor_bytes(tensors)
    buffer = io.BytesIO()
    torch.save({key: tensor.contiguous() for key, tensor in tensors.items()}, buffer)
    return buffer.getvalue()
