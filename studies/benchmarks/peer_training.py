"""How each library trains: batches in, one after another, by its own trainer class and with its own defaults.

Imported by `peer.py` under the interpreter that has the library. Each function takes the size of the SAE, the batches
and the number of steps that the training is planned for, and returns the decoder [latents, d_in] and what encodes rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

Trained = tuple[Tensor, Callable[[Tensor], Tensor]]
Size = dict[str, Any]
"""architecture, d, latents, k, steps, seed, and the activations x that the batches are drawn from."""


def saelens(size: Size, batches: Iterator[Tensor], batch: int) -> Trained:
    """Its `SAETrainer`."""
    import sae_lens
    from sae_lens.config import SAETrainerConfig
    from sae_lens.training.sae_trainer import SAETrainer

    torch.manual_seed(size["seed"])
    name = {"topk": "TopK", "batch_topk": "BatchTopK", "relu": "Standard", "jump_relu": "JumpReLU"}[
        size["architecture"]
    ]
    k = {"k": size["k"]} if "topk" in size["architecture"] else {}
    config = getattr(sae_lens, f"{name}TrainingSAEConfig")(d_in=size["d"], d_sae=size["latents"], **k)
    sae = getattr(sae_lens, f"{name}TrainingSAE")(config)
    samples = size["steps"] * batch
    planned = SAETrainerConfig(total_training_samples=samples, train_batch_size_samples=batch, lr_end=3e-5)
    with torch.enable_grad():
        SAETrainer(planned, sae, batches).fit()
    return sae.W_dec.detach(), sae.encode


def dictionary_learning(size: Size, batches: Iterator[Tensor], batch: int) -> Trained:
    """Its trainer of the architecture, updated as its `trainSAE` does."""
    from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
    from dictionary_learning.trainers.jumprelu import JumpReluTrainer
    from dictionary_learning.trainers.standard import StandardTrainer
    from dictionary_learning.trainers.top_k import TopKTrainer

    kinds = {"topk": TopKTrainer, "batch_topk": BatchTopKTrainer, "relu": StandardTrainer, "jump_relu": JumpReluTrainer}
    rising = {"sparsity_warmup_steps": 1000}  # of 2000 by default, which it refuses for fewer steps in all
    target = {"relu": rising, "jump_relu": rising | {"target_l0": float(size["k"])}}
    trainer = kinds[size["architecture"]](
        steps=max(size["steps"], 1500),
        activation_dim=size["d"],
        dict_size=size["latents"],
        layer=0,
        lm_name="none",
        device="cpu",
        seed=size["seed"],
        **target.get(size["architecture"], {"k": size["k"]}),
    )
    for step in range(size["steps"]):
        trainer.update(step, next(batches))
    next(batches, None)
    sae = trainer.ae
    return (sae.W_dec if hasattr(sae, "W_dec") else sae.decoder.weight.T).detach(), sae.encode


def sparsify(size: Size, batches: Iterator[Tensor], batch: int) -> Trained:
    """Its `Trainer` cannot do without a language model: its step is repeated here, with its optimiser and defaults."""
    from schedulefree import ScheduleFreeWrapper
    from sparsify import SparseCoder, SparseCoderConfig
    from sparsify.sign_sgd import SignSGD

    torch.manual_seed(size["seed"])
    sae = SparseCoder(size["d"], SparseCoderConfig(num_latents=size["latents"], k=size["k"]))
    optimizer = ScheduleFreeWrapper(
        SignSGD(sae.parameters(), lr=5e-3 / (size["latents"] / 2**14) ** 0.5), momentum=0.95
    )
    optimizer.train()
    for step in range(size["steps"]):
        x = next(batches)
        if step == 0:
            sae.b_dec.data = x.mean(0)
        sae.set_decoder_norm_to_unit_norm()
        sae(x).fvu.backward()
        sae.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
    next(batches, None)
    optimizer.eval()

    def encode(x: Tensor) -> Tensor:
        found = sae.encode(x)
        return torch.zeros(len(x), size["latents"]).scatter_(1, found.top_indices, found.top_acts)

    return sae.W_dec.detach(), encode


def dynamics(size: Size, batches: Iterator[Tensor], batch: int) -> Trained:
    """This project's `train`, which draws its own batches: one is taken for each step, so that they are counted."""
    from dynamics.sae import SaeConfig, initial, train

    x = size["x"]
    config = SaeConfig(architecture=size["architecture"], n_latents=size["latents"], k=size["k"], batch_size=batch)
    generator = torch.Generator().manual_seed(size["seed"])
    start = initial(x, config, generator)
    next(batches)

    def on_step(done: int) -> None:
        next(batches, None)

    sae, _ = train(start, x, config, steps=size["steps"], generator=generator, on_step=on_step)
    return sae.W_dec, sae.encode


def floor(size: Size, batches: Iterator[Tensor], batch: int) -> Trained:
    """The encoder's matrix product alone, which every exact SAE has to do, in one piece."""
    weights, out = torch.randn(size["d"], size["latents"]), torch.empty(batch, size["latents"])
    for _ in range(size["steps"]):
        torch.mm(next(batches), weights, out=out)
    next(batches, None)
    return weights.T, lambda x: torch.relu(x @ weights)


TRAINERS = {
    "dynamics": dynamics,
    "saelens": saelens,
    "dictionary_learning": dictionary_learning,
    "sparsify": sparsify,
    "floor": floor,
}
