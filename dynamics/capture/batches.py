"""Probe inputs of any form as a list of batches of tensors on the CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from dynamics.capture.guard import isolated_random_state


def frozen_batches(data: Any, batch_size: int) -> tuple[Any, ...]:
    """Copies of the inputs, read once and without moving any global random state.

    Raises:
        TypeError: if ``data`` is an iterator or nothing that can be shown to a model.
    """
    if isinstance(data, DataLoader | IterableDataset | Dataset):
        with isolated_random_state():
            loader = data if isinstance(data, DataLoader) else DataLoader(data, batch_size=batch_size)
            batches = tuple(map_tensors(batch, _copy) for batch in loader)
            _require_tensor(batches)
            return batches
    if isinstance(data, Tensor | tuple | list | Mapping):
        _require_tensor(data)
        return tuple(_part(data, slice(start, start + batch_size)) for start in _starts(data, batch_size))
    raise TypeError(
        f"a probe is a tensor, a tuple, list or dict of tensors, a Dataset or a DataLoader, got {type(data).__name__}"
    )


def _require_tensor(data: Any) -> None:
    found = [leaf for _, leaf in leaves(data)]
    if found and not any(isinstance(leaf, Tensor) for leaf in found):
        raise TypeError(
            f"the probe holds no tensor but {type(found[0]).__name__}; give the tensors that the model is called with"
        )


def _starts(data: Any, batch_size: int) -> range:
    sizes = {len(tensor) if tensor.ndim else 0 for _, tensor in leaves(data) if isinstance(tensor, Tensor)}
    if len(sizes) > 1:
        raise ValueError(f"the probe's tensors must have one first axis, the examples; got lengths {sorted(sizes)}")
    return range(0, max(sizes, default=0), batch_size)


def _part(data: Any, examples: slice) -> Any:
    return map_tensors(data, lambda tensor: _copy(tensor[examples]))


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True)


def map_tensors(batch: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same tuple, list or dict with ``change`` applied to every tensor in it."""
    if isinstance(batch, Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        return {key: map_tensors(value, change) for key, value in batch.items()}
    if isinstance(batch, tuple | list):
        changed = [map_tensors(value, change) for value in batch]
        return type(batch)(*changed) if hasattr(batch, "_fields") else type(batch)(changed)
    return batch


def leaves(batch: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in a batch that is no container, with where it is: ``".x.0"``."""
    if isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from leaves(value, f"{path}.{key}")
    elif isinstance(batch, tuple | list):
        for index, value in enumerate(batch):
            yield from leaves(value, f"{path}.{index}")
    else:
        yield path, batch


def first_tensor(output: Any) -> Tensor | None:
    """The first tensor in an output: tuples, lists, dicts and Hugging Face's ModelOutputs are looked into."""
    return next((leaf for _, leaf in leaves(output) if isinstance(leaf, Tensor)), None)


def count_examples(batch: Any) -> int:
    """Length of the first axis of the first tensor in a batch; 0 where there is none."""
    tensor = first_tensor(batch)
    return tensor.shape[0] if tensor is not None and tensor.ndim else 0  # asked at every step: len() is slower


def content_digest(batches: tuple[Any, ...]) -> str:
    """SHA-256 over all values, types and shapes; it does not depend on how examples are batched."""
    digest = hashlib.sha256()
    parts: dict[str, list[Any]] = {}
    for batch in batches:
        for path, leaf in leaves(batch):
            parts.setdefault(path, []).append(leaf)
    for path, values in parts.items():
        digest.update(f"{path}=".encode())
        form = None
        for value in values:
            if not isinstance(value, Tensor):
                digest.update(repr(value).encode())
                continue
            if form != (form := (value.dtype, value.shape[1:])):
                digest.update(f"{form}".encode())
            digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
