"""What a model loses when a site puts out an SAE's reconstruction instead of what it would."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dynamics.capture.batches import count_examples, map_tensors
from dynamics.capture.guard import undisturbed
from dynamics.capture.probe import Probe
from dynamics.capture.reading import placement
from dynamics.capture.sites import match_sites, site_modules
from dynamics.sae import SparseAutoencoder

Loss = Callable[[Any, Any], Tensor]
"""The mean loss of a model over the examples of a batch."""
Change = Callable[[Float[Tensor, "rows d_in"]], Float[Tensor, "rows d_in"]]


@dataclass(frozen=True)
class LossRecovered:
    """Mean losses over the probe, named as SAEBench names them (2503.09532); any loss may stand for cross-entropy."""

    ce_loss_without_sae: float
    """Of the model as it is."""
    ce_loss_with_sae: float
    """With the SAE's reconstructions in the site's place."""
    ce_loss_with_ablation: float
    """With zeros there."""

    @property
    def ce_loss_score(self) -> float:
        """Share of what zeros cost that reconstructions do not: 1 is perfect, 0 no better than zeros, or worse."""
        cost = self.ce_loss_with_ablation - self.ce_loss_without_sae
        return (self.ce_loss_with_ablation - self.ce_loss_with_sae) / cost


def loss_recovered(model: nn.Module, site: str, sae: SparseAutoencoder, probe: Probe, loss: Loss) -> LossRecovered:
    """The loss on a probe as it is, with a site's output reconstructed, and with zeros there.

    Leaves no trace in the model's training. Rows that the probe's mask leaves out stay as they are.

    Args:
        model: the model in the state in which the SAE's snapshot was taken.
        site: name of the module whose output is replaced.
        sae: in raw activation units, as it is in a run.
        probe: the inputs; labels may be among them, since only ``loss`` looks at a batch.
        loss: of a model and a batch on the model's device, the mean over the batch's examples.

    Raises:
        ValueError: if no module or several match ``site``; if it is not called or puts out no tensor
            ``[example, d_in]``, ``[example, position, d_in]`` or ``[example, d_in, height, width]`` of the SAE's width;
            or if zeros there change nothing, so that nothing could be recovered.
        DisturbedModelError: if the forward pass wrote to the model.
    """
    modules = site_modules(model)
    names = match_sites(modules, site)
    if len(names) > 1:
        raise ValueError(f"one site is wanted, {site!r} matches {', '.join(names)}")
    with undisturbed(model):
        plain, rebuilt, zeros = (
            _mean_loss(model, modules[names[0]], probe, loss, change)
            for change in (None, sae.forward, torch.zeros_like)
        )
    if zeros == plain:
        raise ValueError(f"the loss is {plain:.4g} with zeros at {site!r} too: it does not depend on this site")
    return LossRecovered(plain, rebuilt, zeros)


def _mean_loss(model: nn.Module, module: nn.Module, probe: Probe, loss: Loss, change: Change | None) -> float:
    total, start, place = 0.0, 0, placement(model)
    for batch in probe.batches:
        count = count_examples(batch)
        with _replaced(module, probe, slice(start, start + count), change) as calls:
            total += count * float(loss(model, map_tensors(batch, place)))
        if change is not None and not calls:
            raise ValueError("the site was not called while the loss was computed; name a module that the loss needs")
        start += count
    return total / probe.n_examples


@contextmanager
def _replaced(module: nn.Module, probe: Probe, examples: slice, change: Change | None) -> Iterator[list[bool]]:
    """Inside, the module's rows on these examples are changed; the list grows with each call."""
    calls: list[bool] = []

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        calls.append(True)
        found = output[0] if isinstance(output, tuple) else output
        if not isinstance(found, Tensor) or found.ndim not in (2, 3, 4) or change is None:
            form = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"the site puts out {form}; wanted is a tensor whose rows are activations, or a tuple")
        new = _changed(found, probe, examples, change)
        return (new, *output[1:]) if isinstance(output, tuple) else new

    handle = None if change is None else module.register_forward_hook(hook)
    try:
        yield calls
    finally:
        if handle is not None:
            handle.remove()


def _changed(output: Tensor, probe: Probe, examples: slice, change: Change) -> Tensor:
    """The same with its rows changed: the last axis is that of activations, or the second of four."""
    inner = output.movedim(1, -1) if output.ndim == 4 else output
    rows = inner.reshape(len(inner), -1, inner.shape[-1]).clone()
    kept = torch.from_numpy(probe.layout(rows.shape[1] if output.ndim > 2 else None).kept)[examples]
    kept = kept.reshape(rows.shape[:2]).to(rows.device)
    rows[kept] = change(rows[kept]).to(rows)
    back = rows.reshape(inner.shape)
    return back.movedim(-1, 1) if output.ndim == 4 else back
