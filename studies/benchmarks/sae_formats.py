"""Whether other libraries read what is exported, and the other way round, exactly.

    python -m studies.benchmarks.sae_formats [--peers out/peers]

SAEs of every architecture are exported and opened by the libraries' own loaders; SAEs that the libraries' own classes
saved are imported. Printed: the largest difference of a code and of a reconstructed activation, both about 1 in size.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import get_args

import torch
from torch import Tensor
from torch.nn.functional import normalize

from dynamics.files.foreign_saes import read_foreign_sae, write_foreign_sae
from dynamics.sae import SparseAutoencoder
from dynamics.sae.config import Architecture
from studies.benchmarks.peers import asked, install

D, N, K = 12, 40, 5


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", type=Path, default=Path("out/peers"), help="where the libraries are, or are put")
    pythons = install(parser.parse_args(arguments).peers.absolute())
    print("| library | direction | SAE | codes | reconstruction |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        x = torch.randn(200, D, generator=torch.Generator().manual_seed(1))
        torch.save(x, Path(scratch) / "x.pt")
        for library, python in pythons.items():
            question = {"library": library, "x": f"{scratch}/x.pt"}
            out = exported(Path(scratch) / library / "out", library)
            asked(python, question | {"do": "read", "folders": [str(folder) for folder in out]})
            back = asked(python, question | {"do": "write", "into": f"{scratch}/{library}/in"})["folders"]
            for direction, folders in (("out", out), ("in", map(Path, back))):
                for folder in folders:
                    print(f"| {library} | {direction} | {folder.parent.name} | {_differences(folder, library, x)} |")


def exported(into: Path, library: str) -> list[Path]:
    """Folders with one SAE of every architecture that the library has."""
    folders = []
    for kind in get_args(Architecture):
        if library != "sparsify" or kind == "topk":
            folders.append(into / kind / "step_0")
            write_foreign_sae(folders[-1], library, sae_of(kind), "blocks.0.mlp")
    return folders


def sae_of(kind: Architecture) -> SparseAutoencoder:
    """An SAE with weights at random."""
    generator = torch.Generator().manual_seed(2)
    tensors = {
        "W_enc": torch.randn(D, N, generator=generator) / 2,
        "b_enc": torch.randn(N, generator=generator) / 4,
        "W_dec": normalize(torch.randn(N, D, generator=generator)),
        "b_dec": torch.randn(D, generator=generator),
        "threshold": torch.rand(N, generator=generator),
    }
    return SparseAutoencoder.from_tensors(tensors, kind, None if kind == "relu" else K)


def _differences(folder: Path, library: str, x: Tensor) -> str:
    sae, theirs = read_foreign_sae(folder, library), torch.load(folder / "answer.pt")
    norms = _norms(theirs["codes"], sae.encode(x))
    codes = (sae.encode(x) - theirs["codes"] * norms).abs().max()
    return f"{float(codes):.1e} | {float((sae.forward(x) - theirs['rebuilt']).abs().max()):.1e}"


def _norms(theirs: Tensor, ours: Tensor) -> Tensor:
    """What each latent's codes are longer by here, where decoder rows have unit norm and theirs need not."""
    return (ours * theirs).sum(0) / theirs.square().sum(0).clamp_min(1e-12)


if __name__ == "__main__":
    main()
