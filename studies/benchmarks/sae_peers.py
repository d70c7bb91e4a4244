"""This project's SAE training beside SAELens's, dictionary_learning's and sparsify's, each through its own trainer.

    python -m studies.benchmarks.sae_peers speed [--sizes 512,8192,32,4096] [--threads 2] [--rounds 3] [--steps 6]
    python -m studies.benchmarks.sae_peers quality [--sizes 128,512,16] [--seeds 3] [--architectures topk …]

The libraries are installed into environments of their own first (--peers says where). Every training is a process of
its own. `speed`: medians of interleaved rounds: activations a second, beside the encoder's matrix product alone
(`floor`), which every exact SAE has to do, and the most memory beyond the activations. `quality`: 1,500 steps of 2,048
rows, default settings, on a dictionary of 2 · d directions that is known: the mean over its directions of the largest
cosine with a latent, the share above 0.9, L0 and the share of latents that fire on none of 10,000 other rows.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from studies.benchmarks.known_dictionary import KnownDictionary
from studies.benchmarks.peers import asked, install

ROWS, BATCH, STEPS = 90_000, 2048, 1500
LIBRARIES = ["dynamics", "saelens", "dictionary_learning", "sparsify", "floor"]
ARCHITECTURES = ["topk", "batch_topk", "jump_relu", "relu", "matryoshka"]


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    here = Path(sys.executable)
    wanted = set(options.libraries)
    peers = {} if wanted <= {"dynamics", "floor"} else install(options.peers.absolute())
    pythons = {"dynamics": here, "floor": here, **peers}
    print(options.header, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        for size in options.sizes:
            numbers = [int(part) for part in size.split(",")]
            for architecture in options.architectures:
                libraries = [name for name in LIBRARIES if name in wanted and _has(name, architecture, options.table)]
                chosen = {name: pythons[name] for name in libraries}
                question = {"do": "train", "architecture": architecture, "threads": options.threads}
                options.table(options, chosen, question, numbers, Path(scratch))


def _has(library: str, architecture: str, table: Any) -> bool:
    if library == "floor":
        return table is speed
    if architecture == "matryoshka":
        return library == "dynamics"
    return library != "sparsify" or architecture == "topk"


def speed(
    options: argparse.Namespace, pythons: dict[str, Path], question: dict[str, Any], size: list[int], scratch: Path
) -> None:
    """A row for each library: activations a second, of the floor, and memory."""
    d, latents, k, batch = size
    x = torch.randn(20_000, d, generator=torch.Generator().manual_seed(0))
    torch.save(x, scratch / "x.pt")
    question |= {"d": d, "latents": latents, "k": k, "batch": batch, "steps": options.steps, "seed": 0}
    question |= {"x": str(scratch / "x.pt"), "rows": len(x)}
    rounds = [
        {name: asked(python, question | {"library": name}, options.threads) for name, python in pythons.items()}
        for _ in range(options.rounds)
    ]
    rates = {name: batch / statistics.median(answers[name]["seconds"] for answers in rounds) for name in pythons}
    memory = {name: statistics.median(answers[name]["gigabytes"] for answers in rounds) for name in pythons}
    for name, rate in rates.items():
        cells = [question["architecture"], f"{d}, {latents}, {k}, {batch}", name, f"{rate:,.0f}"]
        cells += [f"{rates['dynamics'] / rate:.2f}" if "dynamics" in rates else "", f"{memory[name]:.2f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


def quality(
    options: argparse.Namespace, pythons: dict[str, Path], question: dict[str, Any], size: list[int], scratch: Path
) -> None:
    """A row for each library, as soon as it is known: how much of the dictionary was found, mean ± standard deviation
    over seeds."""
    d, latents, k = size
    world = KnownDictionary(d, options.active or k, options.tail)
    question |= {"d": d, "latents": latents, "k": k, "steps": STEPS, "batch": BATCH, "rows": ROWS}
    question |= {"x": str(scratch / "x.pt"), "decoder": str(scratch / "decoder.pt")}
    for name, python in pythons.items():
        rows = []
        for seed in range(options.seeds):
            torch.save(world.rows(seed), scratch / "x.pt")
            answer = asked(python, question | {"library": name, "seed": seed}, options.threads)
            cosine = world.found(torch.load(scratch / "decoder.pt"))
            rows.append([float(cosine.mean()), float((cosine > 0.9).float().mean()), answer["l0"], answer["dead"]])
        cells = [question["architecture"], f"{d}, {latents}, {k}", name]
        for column, form in zip(zip(*rows, strict=True), (".4f", ".3f", ".1f", ".3f"), strict=True):
            cells.append(f"{statistics.mean(column):{form}} ± {statistics.pstdev(column):{form}}")
        print(f"| {' | '.join(cells)} |", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tables = parser.add_subparsers(required=True, metavar="speed | quality")
    first, second = tables.add_parser("speed"), tables.add_parser("quality")
    first.set_defaults(
        table=speed, header="| SAE | d, latents, k, batch | library | a second | ours is × | GB |\n|" + 6 * "---|"
    )
    first.add_argument("--sizes", nargs="+", default=["512,8192,32,4096", "128,2048,32,2048", "64,512,16,2048"])
    first.add_argument("--architectures", nargs="+", default=["topk"], choices=ARCHITECTURES)
    first.add_argument("--rounds", type=int, default=3)
    first.add_argument("--steps", type=int, default=6)
    second.set_defaults(
        table=quality, header="| SAE | d, latents, k | library | cosine | > 0.9 | L0 | dead |\n|" + 7 * "---|"
    )
    second.add_argument("--sizes", nargs="+", default=["128,512,16"])
    second.add_argument("--architectures", nargs="+", default=ARCHITECTURES, choices=ARCHITECTURES)
    second.add_argument("--seeds", type=int, default=3)
    second.add_argument("--active", type=int, help="features on a row (default: k)")
    second.add_argument("--tail", type=float, default=0.0, help="how fast frequencies fall: the n-th as n^-tail")
    for table in (first, second):
        table.add_argument("--libraries", nargs="+", default=LIBRARIES, choices=LIBRARIES)
        table.add_argument("--threads", type=int, default=2)
        table.add_argument("--peers", type=Path, default=Path("out/peers"), help="where the libraries are, or are put")
    return parser


if __name__ == "__main__":
    main()
