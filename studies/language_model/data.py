"""Text that is on every machine: the source of Python's own standard library."""

from __future__ import annotations

import keyword
import re
import sysconfig
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor
from torch.utils.data import Dataset

CHARACTERS = 127
OTHER = CHARACTERS
VOCABULARY = CHARACTERS + 1
HELD_OUT_EVERY = 10


@dataclass(frozen=True)
class Corpus:
    """Training text and held-out text as character ids below :data:`VOCABULARY`."""

    characters: str
    train: Int64[Tensor, " train"]
    held_out: Int64[Tensor, " held_out"]
    held_out_text: str


def read_corpus(folder: Path | None = None) -> Corpus:
    """The top-level modules in the order of their names; every tenth file is held out.

    Raises:
        FileNotFoundError: if the folder has too few modules to make both parts.
    """
    folder = folder or Path(sysconfig.get_paths()["stdlib"])
    files = sorted(folder.glob("*.py"), key=lambda file: file.name)
    if len(files) <= HELD_OUT_EVERY:
        raise FileNotFoundError(
            f"the standard library's source is wanted in {folder}, which has {len(files)} .py files; "
            "install the library as source files"
        )
    texts = [file.read_text(encoding="utf-8", errors="replace") for file in files]
    held_out = "".join(texts[::HELD_OUT_EVERY])
    train = "".join(text for i, text in enumerate(texts) if i % HELD_OUT_EVERY)
    counted = sorted(Counter(train).items(), key=lambda item: (-item[1], item[0]))
    characters = "".join(character for character, _ in counted[:CHARACTERS])
    return Corpus(characters, encode(train, characters), encode(held_out, characters), held_out)


def encode(text: str, characters: str) -> Int64[Tensor, " characters"]:
    """Index of each character; :data:`OTHER` where it is none of them."""
    index = {character: i for i, character in enumerate(characters)}
    return torch.tensor([index.get(character, OTHER) for character in text])


class Batches(Dataset[Tensor]):
    """Batch i is ``[batch, length + 1]`` characters from places drawn once from ``seed``."""

    def __init__(self, text: Int64[Tensor, " characters"], *, steps: int, batch: int, length: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.starts = torch.randint(0, len(text) - length - 1, (steps, batch, 1), generator=generator)
        self.text, self.span = text, torch.arange(length + 1)

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, step: int) -> Int64[Tensor, "batch length_and_one"]:
        return self.text[self.starts[step] + self.span]


@dataclass(frozen=True)
class Windows:
    """Held-out windows, spread evenly: the inputs of the probe. One character is one probe row."""

    inputs: Int64[Tensor, "windows length"]
    text: list[str]
    concepts: dict[str, Tensor]
    """Bool ``[windows, length]`` by name: where the concept applies."""


def probe_windows(corpus: Corpus, windows: int, length: int) -> Windows:
    """``windows`` windows of held-out text at equal distances, with their characters and concepts.

    Raises:
        ValueError: if the held-out text is too short for that many windows that do not overlap.
    """
    if windows * length > len(corpus.held_out):
        raise ValueError(
            f"{windows} windows of {length} wanted, the held-out text has {len(corpus.held_out)} characters"
        )
    starts = torch.arange(windows) * (len(corpus.held_out) // windows)
    places = starts[:, None] + torch.arange(length)
    text = [corpus.held_out_text[place] for place in places.flatten().tolist()]
    masks = concepts(corpus.held_out_text)
    return Windows(corpus.held_out[places], text, {name: mask[places] for name, mask in masks.items()})


def concepts(text: str) -> dict[str, Tensor]:
    """Bool ``[len(text)]`` by name of a concept of Python source, told by patterns and not by a model."""
    patterns = {
        "newline": r"\n",
        "indentation": r"(?m)^ +",
        "opening bracket": r"[(\[{]",
        "full stop": r"\.",
        "underscore": r"_",
        "digit": r"[0-9]",
        "uppercase": r"[A-Z]",
        "self": r"\bself\b",
        "keyword": rf"\b(?:{'|'.join(keyword.kwlist)})\b",
        "colon at line end": r"(?m):$",
        "comment": r"(?m)(?:^|(?<=\s))#.*$",
    }
    return {name: _covered(text, pattern) for name, pattern in patterns.items()}


def _covered(text: str, pattern: str) -> Tensor:
    mask = torch.zeros(len(text), dtype=torch.bool)
    for match in re.finditer(pattern, text):
        mask[match.start() : match.end()] = True
    return mask
