"""Tensors as the bytes of a safetensors file, and back."""

from __future__ import annotations

import json
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from dynamics.files.commits import DamagedError


def tensor_bytes(tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """The safetensors file that holds ``tensors``; the same bytes for the same tensors and metadata."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return _ordered(bytes(safetensors.torch.save(plain, metadata)))


def _ordered(data: bytes) -> bytes:
    """The same file with its metadata in order: the library writes them in another one each time."""
    header = tensor_header(data)
    if "__metadata__" not in header:
        return data
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    return len(text).to_bytes(8, "little") + text + data[8 + int.from_bytes(data[:8], "little") :]


def parse_tensors(data: bytes, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors and the metadata in the bytes of a safetensors file; ``name`` is for the message.

    Raises:
        DamagedError: if they are not such bytes.
    """
    try:
        return safetensors.torch.load(data), tensor_header(data).get("__metadata__", {})
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedError(f"{name} is no whole safetensors file ({error})") from None


def tensor_header(data: bytes) -> dict[str, Any]:
    """The header of a safetensors file: dtype and shape of each tensor, and ``__metadata__``."""
    # The library's own reader of metadata maps the file into memory, and dies when that file is cut meanwhile.
    return dict(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]))
