"""What a training step of an SAE costs, beside the dense autograd way and the product that cannot be avoided.

    OMP_NUM_THREADS=1 python -m studies.benchmarks.sae [--sizes 64,320,10 128,2048,32] [--repeats 7] [--steps 20]

Per size (d_in, latents, k), the median of interleaved repeats of: `library`, this library's `train`; `dense`, the same
TopK SAE with a dense code matrix, torch's autograd and Adam; `floor`, the encoder's matrix product alone, which every
exact TopK SAE must do. Prints activations per second and the ratios, all of one thread.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from dynamics.sae import SaeConfig, initial, train

BATCH, ROWS = 2048, 20_000
SIZES = ["64,320,10", "64,512,16", "128,1024,32", "128,2048,32", "512,4096,32"]


def library(x: Tensor, config: SaeConfig, steps: int) -> Callable[[], None]:
    """Steps of ``dynamics.sae.train`` from a fresh SAE."""
    start = initial(x, config, torch.Generator().manual_seed(0))

    def measured() -> None:
        train(start, x, config, steps=steps, generator=torch.Generator().manual_seed(0))

    return measured


def dense(x: Tensor, config: SaeConfig, steps: int) -> Callable[[], None]:
    """The same number of steps as most libraries write them."""
    start, k = initial(x, config, torch.Generator().manual_seed(0)), config.k
    assert k is not None
    parameters = [p.clone().requires_grad_() for p in (start.W_enc, start.b_enc, start.W_dec, start.b_dec)]
    W_enc, b_enc, W_dec, b_dec = parameters
    adam = torch.optim.Adam(parameters, lr=1e-3, fused=True)

    def measured() -> None:
        for _ in range(steps):
            batch = x[torch.randint(len(x), (BATCH,))]
            pre = torch.relu((batch - b_dec) @ W_enc + b_enc)
            largest = pre.topk(k, dim=1)
            codes = torch.zeros_like(pre).scatter(1, largest.indices, largest.values)
            loss = (codes @ W_dec + b_dec - batch).square().sum(1).mean()
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            with torch.no_grad():
                W_dec.div_(W_dec.norm(dim=1, keepdim=True))

    return measured


def floor(x: Tensor, config: SaeConfig, steps: int) -> Callable[[], None]:
    """The encoder's matrix product of as many batches."""
    weights = initial(x, config, torch.Generator().manual_seed(0)).W_enc
    out = torch.empty(BATCH, weights.shape[1])

    def measured() -> None:
        for _ in range(steps):
            torch.mm(x[:BATCH], weights, out=out)

    return measured


def seconds(work: Callable[[], None]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--steps", type=int, default=20)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    names = ["d_in", "latents", "k", "library/s", "dense/s", "floor/s", "x dense", "of floor"]
    print("".join(f"{name:>11}" for name in names))
    for size in arguments.sizes:
        d_in, n_latents, k = (int(part) for part in size.split(","))
        x = torch.randn(ROWS, d_in, generator=torch.Generator().manual_seed(0))
        config = SaeConfig(n_latents=n_latents, k=k, batch_size=BATCH)
        works = [kind(x, config, arguments.steps) for kind in (library, dense, floor)]
        timed = [[seconds(work) for work in works] for _ in range(arguments.repeats + 1)][1:]
        rates = [BATCH * arguments.steps / statistics.median(column) for column in zip(*timed, strict=True)]
        cells = [d_in, n_latents, k, *(round(rate) for rate in rates)]
        ratios = f"{rates[0] / rates[1]:>11.1f}{rates[0] / rates[2]:>11.2f}"
        print("".join(f"{cell:>11,}" for cell in cells) + ratios, flush=True)


if __name__ == "__main__":
    main()
