"""Run by the interpreter of another SAE library, which this project does not need: a question comes in, an answer out.

Questions: what the library's own loader makes of folders (`read`), folders that the library's own classes write
(`write`), an SAE trained by the library's own trainer, and how long that took (`train`).
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from peer_training import TRAINERS
from torch import Tensor

D, N, K = 12, 40, 5


def main() -> None:
    question = json.load(sys.stdin)
    torch.set_num_threads(question.get("threads", 1))
    kind = {"read": read, "write": write, "train": trained}[question["do"]]
    print("\n" + json.dumps(kind(question)))


def trained(question: dict[str, Any]) -> dict[str, Any]:
    """Seconds a step in the median, most memory beyond what was there before, and how the SAE does on other rows.

    A decoder is saved where the question says `decoder`.
    """
    rows = torch.load(question["x"])
    question["x"], other = rows[: question["rows"]], rows[question["rows"] :]
    stamps: list[float] = []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    batches = _batches(question["x"], question["batch"], question["seed"], stamps)
    decoder, encode = TRAINERS[question["library"]](question, batches, question["batch"])
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    steps = sorted(after - now for now, after in pairwise(stamps[1:]))
    answer = {"seconds": steps[len(steps) // 2], "gigabytes": memory / 2**20}
    if "decoder" in question:
        torch.save(decoder.clone(), question["decoder"])
        with torch.no_grad():
            fires = encode(other) > 0
        answer |= {"l0": float(fires.sum(1).float().mean()), "dead": float((~fires.any(0)).float().mean())}
    return answer


def _batches(x: Tensor, size: int, seed: int, stamps: list[float]) -> Iterator[Tensor]:
    """Rows at random, noting when each batch was asked for."""
    generator = torch.Generator().manual_seed(seed)
    while True:
        stamps.append(time.perf_counter())
        yield x[torch.randint(len(x), (size,), generator=generator)]


def read(question: dict[str, Any]) -> dict[str, Any]:
    """Codes and reconstructions, by the library's loader, of the SAEs in folders."""
    x = torch.load(question["x"])
    for folder in map(Path, question["folders"]):
        _answered(folder, *LOADERS[question["library"]](folder, x))
    return {}


def write(question: dict[str, Any]) -> dict[str, Any]:
    """SAEs of every class of the library, with weights at random, saved its own way, with what they make of x."""
    x, folders = torch.load(question["x"]), []
    for name, saved in WRITERS[question["library"]]():
        folder = Path(question["into"]) / name / "step_0"
        folder.mkdir(parents=True)
        saved(folder)
        _answered(folder, *LOADERS[question["library"]](folder, x))
        folders.append(str(folder))
    return {"folders": folders}


def _answered(folder: Path, codes: Tensor, rebuilt: Tensor) -> None:
    torch.save({"codes": codes.detach(), "rebuilt": rebuilt.detach()}, folder / "answer.pt")


def _saelens(folder: Path, x: Tensor) -> tuple[Tensor, Tensor]:
    from sae_lens import SAE

    sae = SAE.load_from_disk(folder)
    return sae.encode(x), sae(x)


def _dictionary_learning(folder: Path, x: Tensor) -> tuple[Tensor, Tensor]:
    from dictionary_learning.utils import load_dictionary

    sae, _ = load_dictionary(str(folder), "cpu")
    return sae.encode(x), sae(x)


def _sparsify(folder: Path, x: Tensor) -> tuple[Tensor, Tensor]:
    from sparsify import SparseCoder

    sae = SparseCoder.load_from_disk(folder)
    found = sae.encode(x)
    codes = torch.zeros(len(x), sae.num_latents).scatter_(1, found.top_indices, found.top_acts)
    return codes, sae(x).sae_out


LOADERS = {"saelens": _saelens, "dictionary_learning": _dictionary_learning, "sparsify": _sparsify}


def _shaken(module: Any) -> Any:
    """Every weight moved, the thresholds above zero; what the class says about norms is kept by the callers."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = noise.abs() * 0.3 if "threshold" in name else noise * 0.3
    return module


def _saelens_saes() -> Any:
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig, StandardSAE, StandardSAEConfig, TopKSAE, TopKSAEConfig

    for takes_bias in (True, False):
        size = {"d_in": D, "d_sae": N, "apply_b_dec_to_input": takes_bias}
        yield f"standard-{takes_bias}", _shaken(StandardSAE(StandardSAEConfig(**size))).save_model
        yield f"jumprelu-{takes_bias}", _shaken(JumpReLUSAE(JumpReLUSAEConfig(**size))).save_model
        topk = TopKSAEConfig(**size, k=K, rescale_acts_by_decoder_norm=True)
        yield f"topk-{takes_bias}", _shaken(TopKSAE(topk)).save_model


def _dictionary_learning_saes() -> Any:
    from dictionary_learning.dictionary import AutoEncoder, JumpReluAutoEncoder
    from dictionary_learning.trainers.batch_top_k import BatchTopKSAE
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE
    from dictionary_learning.trainers.top_k import AutoEncoderTopK

    made = [AutoEncoder(D, N), JumpReluAutoEncoder(D, N), AutoEncoderTopK(D, N, K), BatchTopKSAE(D, N, K)]
    for sae in [*made, MatryoshkaBatchTopKSAE(D, N, K, [N // 4, N - N // 4])]:
        _shaken(sae)
        if hasattr(sae, "k"):
            sae.threshold.fill_(0.4)
            rows = sae.W_dec.data if hasattr(sae, "W_dec") else sae.decoder.weight.data.T
            rows /= rows.norm(dim=1, keepdim=True)
        name = type(sae).__name__

        def saved(folder: Path, sae: Any = sae, name: str = name) -> None:
            torch.save(sae.state_dict(), folder / "ae.pt")
            (folder / "config.json").write_text(json.dumps({"trainer": {"dict_class": name, "k": K}}))

        yield name, saved


def _sparsify_saes() -> Any:
    from sparsify import SparseCoder, SparseCoderConfig

    for name, size in (("num_latents", {"num_latents": N}), ("expansion_factor", {"expansion_factor": 3})):
        sae = _shaken(SparseCoder(D, SparseCoderConfig(k=K, **size)))
        sae.set_decoder_norm_to_unit_norm()
        yield name, sae.save_to_disk


WRITERS = {"saelens": _saelens_saes, "dictionary_learning": _dictionary_learning_saes, "sparsify": _sparsify_saes}

if __name__ == "__main__":
    main()
