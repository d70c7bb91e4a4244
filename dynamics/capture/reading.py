"""Showing the probe to a model and reading what its modules put out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dynamics.answers import counted
from dynamics.capture.batches import count_examples, first_tensor, map_tensors
from dynamics.capture.guard import undisturbed
from dynamics.capture.probe import Probe
from dynamics.capture.sharded import is_spread, own_values
from dynamics.capture.share import WHOLE, Share
from dynamics.capture.sites import named_modules, site_modules

Forward = Callable[[Any, Any], Any]
STRIDED = 64

# Integers of each width, in which values can be added up in any order with one result.
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, eq=False)
class Reading:
    """The activations of one site on the probe, or on a rank's share of it."""

    activations: Float[Tensor, "rows d_in"]
    positions: int | None
    """Positions per example; None where the site puts out one row per example."""


def read_activations(
    model: nn.Module,
    probe: Probe,
    sites: Sequence[str],
    forward: Forward | None = None,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Float[Tensor, "rows d_in"]]:
    """Activations of each site on the rows of the probe, on the CPU, without a trace in the model's training.

    An output ``[example, d_in]`` gives a row per example, ``[example, position, d_in]`` and
    ``[example, d_in, height, width]`` give one per position that the probe's mask keeps.

    Raises:
        KeyError: if a site is no module of the model.
        ValueError: if a site puts out no such tensor, is called never or more than once in a forward pass, or does not
            fit the probe's mask.
        DisturbedModelError: if the forward pass wrote to the model.
    """
    readings = read_sites(model, probe, sites, forward, dtype)
    return {site: reading.activations for site, reading in readings.items()}


def read_sites(
    model: nn.Module,
    probe: Probe,
    sites: Sequence[str],
    forward: Forward | None = None,
    dtype: torch.dtype = torch.float32,
    share: Share = WHOLE,
) -> dict[str, Reading]:
    """As :func:`read_activations`, with the number of positions of each site; rows of the share alone."""
    show = forward or show_batch
    modules = site_modules(model)
    parts: dict[str, list[Tensor]] = {site: [] for site in sites}
    place = placement(model)
    with undisturbed(model):
        for batch, counts in share.shown(probe.batches):
            with _outputs({site: modules[site] for site in sites}, dtype) as outputs:
                _shown(show, model, map_tensors(batch, place))
            for site in sites:
                output = _only_output(site, outputs[site], count_examples(batch))
                parts[site].append(output if counts else output[:0])
    return {site: _reading(site, blocks, probe, share) for site, blocks in parts.items()}


def _shown(show: Forward, model: nn.Module, batch: Any) -> None:
    try:
        show(model, batch)
    except Exception as error:
        kind = type(batch).__name__ + (f" of {len(batch)}" if isinstance(batch, tuple | list) else "")
        error.add_note(
            f"The model was shown a batch of the probe, a {kind}: leave labels out of the probe, or say with "
            "forward=lambda model, batch: ... how a batch is shown."
        )
        raise


def show_batch(model: Any, batch: Any) -> Any:
    """``model(**batch)`` for a dict, ``model(*batch)`` for a tuple or list, else ``model(batch)``."""
    if isinstance(batch, Mapping):
        return model(**batch)
    return model(*batch) if isinstance(batch, tuple | list) else model(batch)


def placement(model: nn.Module) -> Callable[[Tensor], Tensor]:
    """Copies a tensor to the model's device, floating-point inputs in the data type of its weights."""
    tensors = [*model.parameters(), *model.buffers()]
    device = tensors[0].device if tensors else torch.device("cpu")
    floating = next((t.dtype for t in tensors if t.is_floating_point()), None)

    def place(tensor: Tensor) -> Tensor:
        dtype = floating if tensor.is_floating_point() and floating is not None else tensor.dtype
        return tensor.to(device=device, dtype=dtype, copy=True)

    return place


@contextmanager
def _outputs(modules: Mapping[str, nn.Module], dtype: torch.dtype) -> Iterator[dict[str, list[Tensor | str]]]:
    """Hooks the modules and collects what each puts out: copies of tensors, or in words what is no use."""
    found: dict[str, list[Tensor | str]] = {site: [] for site in modules}

    def hook_of(site: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            tensor = first_tensor(output)
            if tensor is None or tensor.is_complex():
                found[site].append(f"no tensor but a {type(output).__name__}" if tensor is None else "complex numbers")
                return
            # A copy at once: the next module may write into it, and a view would keep the whole output alive.
            found[site].append(tensor.detach().to("cpu", dtype, copy=True))

        return hook

    handles = [module.register_forward_hook(hook_of(site)) for site, module in modules.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _only_output(site: str, outputs: Sequence[Tensor | str], examples: int) -> Tensor:
    """The output as ``[example, d_in]`` or ``[example, position, d_in]``."""
    if len(outputs) != 1:
        called = "was not called" if not outputs else f"was called {len(outputs)} times"
        raise ValueError(
            f"site {site!r} {called} while the probe was shown; name a module that is called once per forward pass"
        )
    output = outputs[0]
    if isinstance(output, str):
        raise ValueError(f"site {site!r} puts out {output}; name a module inside, below or after it")
    if output.ndim not in (2, 3, 4) or len(output) != examples:
        raise ValueError(
            f"site {site!r} puts out shape {list(output.shape)} for {counted(examples, 'example')}; wanted are "
            "[example, d_in], [example, position, d_in] or [example, d_in, height, width]"
        )
    return output.flatten(2).transpose(1, 2) if output.ndim == 4 else output


def _reading(site: str, blocks: Sequence[Tensor], probe: Probe, share: Share) -> Reading:
    shapes = {tuple(block.shape[1:]) for block in blocks}
    if len(shapes) > 1:
        raise ValueError(f"site {site!r} puts out different shapes for batches of the probe: {sorted(shapes)}")
    output = torch.cat(list(blocks))
    positions = output.shape[1] if output.ndim == 3 else None
    try:
        kept = torch.from_numpy(probe.layout(positions).kept[share.examples(probe.batches)])
    except ValueError as error:
        raise ValueError(f"site {site!r}: {error}") from None
    rows = output if output.ndim == 3 else output[:, None]
    return Reading(rows.flatten(0, 1) if kept.all() else rows[kept], positions)  # picking rows costs a copy


def fingerprint(model: nn.Module, *, spread: bool = True) -> str:
    """A cheap digest of all parameters and buffers: the same weights give the same one, on any device.

    It covers names, shapes, data types, the sum of all values read as integers (so that no order of summation can
    change it, and one changed bit does) and every n-th value, 64 of each tensor. Of a model that is spread over ranks
    it is the digest of what this rank has, or without ``spread`` of what all ranks should have alike.
    """
    digest = hashlib.sha256()
    for name, module in named_modules(model):
        for key, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is not None and (spread or not is_spread(tensor)):
                digest.update(f"{name}.{key}{tuple(tensor.shape)}{tensor.dtype}".encode())
                digest.update(_sample(own_values(tensor.detach())).numpy().tobytes())
    return digest.hexdigest()


def _sample(tensor: Tensor) -> Tensor:
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    bits = real.flatten().view(_BITS[real.element_size()]).to(torch.int64)
    strided = bits[:: max(1, len(bits) // STRIDED)][:STRIDED]
    return torch.cat([bits.sum()[None], strided]).cpu()
