"""What the rows of imported snapshots are: their text, their sequences, and the loss at each step."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dynamics.answers import counted
from dynamics.capture.probe import ProbeRows
from dynamics.files.layout import RunDirectory
from dynamics.files.probes import load_probe
from dynamics.files.snapshots import snapshots


@dataclass(frozen=True)
class ImportedProbe:
    """The probe that imported snapshots were taken on, as far as anyone said."""

    digest: str
    rows: ProbeRows


def imported_probe(run: RunDirectory, site: str, n_rows: int, text: Path | None) -> ImportedProbe:
    """The probe of an import of ``n_rows`` rows: the run's, where it has one, else one made from ``text``.

    Raises:
        FileNotFoundError: if there is no such file of text.
        ValueError: if the text does not fit the rows, or either does not fit what the run has.
    """
    known = _known(run)
    if known is not None and len(known.rows.sequence) != n_rows:
        raise ValueError(
            f"{site} has {counted(n_rows, 'row')}, the run's probe has {len(known.rows.sequence)}; "
            "all sites of a run show the same rows"
        )
    if text is None:
        return known or _probe(np.arange(n_rows), np.zeros(n_rows, np.int64), None)
    given = _with_text(text, n_rows)
    if known is not None and known.digest != given.digest:
        had = "none" if known.rows.text is None else "another"
        raise ValueError(
            f"{text} gives the rows a text and the run has {had}; "
            "leave --text out to keep the run's, or import into a new run"
        )
    return given


def _known(run: RunDirectory) -> ImportedProbe | None:
    for site in run.sites():
        for record in snapshots(run, site)[:1]:
            return ImportedProbe(record.probe, load_probe(run, record.probe))
    return None


def _with_text(path: Path, n_rows: int) -> ImportedProbe:
    sequences = read_text(path)
    lengths = [len(sequence) for sequence in sequences]
    if sum(lengths) != n_rows:
        raise ValueError(
            f"{path} has text for {counted(sum(lengths), 'row')}, the snapshots have {n_rows}; one text a row is wanted"
        )
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    position = np.arange(n_rows) - np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)
    return _probe(sequence, position, [text for texts in sequences for text in texts])


def _probe(sequence: np.ndarray, position: np.ndarray, text: list[str] | None) -> ImportedProbe:
    digest = hashlib.sha256(json.dumps([len(sequence), sequence.tolist() if text else None, text]).encode())
    rows = ProbeRows(sequence=sequence.astype(np.int64), position=position.astype(np.int64), text=text, masks={})
    return ImportedProbe(digest.hexdigest()[:32], rows)


def read_text(path: Path) -> list[list[str]]:
    """The text of the rows in ``path``, one list a sequence: a line is a sequence of one row.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is not UTF-8, or JSON of another form.
    """
    try:
        whole = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {path}; it is to hold the text of the rows") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    if path.suffix.lower() == ".json":
        return _sequences(path, whole)
    lines = whole.replace("\r\n", "\n").removesuffix("\n").split("\n") if whole else []
    return [[line] for line in lines]


def _sequences(path: Path, whole: str) -> list[list[str]]:
    try:
        content = json.loads(whole)
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error})") from None
    if _is_texts(content):
        return [[text] for text in content]
    if isinstance(content, list) and all(_is_texts(sequence) for sequence in content):
        return content
    raise ValueError(f"{path} holds neither a list of strings nor a list of lists of strings")


def _is_texts(content: Any) -> bool:
    return isinstance(content, list) and all(isinstance(text, str) for text in content)


def read_losses(path: Path) -> dict[int, float]:
    """The loss at each step in ``path``: CSV lines ``step,loss``, or JSON, an object or a list of pairs.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if a line is of another form, naming it, or a step comes twice.
    """
    try:
        whole = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise FileNotFoundError(f"no file {path}; it is to hold lines of step,loss") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 (byte {error.start}); save it as UTF-8") from None
    losses: dict[int, float] = {}
    for where, pair in _pairs(path, whole):
        try:
            step, loss = (text.strip() for text in map(str, pair))
            number, value = int(step), float(loss)
        except (ValueError, TypeError):
            raise ValueError(f"{where} of {path} is {pair!r}; step,loss is wanted, such as 100,2.31") from None
        if number in losses:
            raise ValueError(f"{where} of {path} gives step {number} a second loss; keep one")
        losses[number] = value
    return losses


def _pairs(path: Path, whole: str) -> list[tuple[str, Any]]:
    if path.suffix.lower() != ".json":
        lines = [(f"line {number}", row) for number, row in enumerate(csv.reader(whole.splitlines()), start=1) if row]
        return lines[1:] if lines and lines[0][1][0].strip().lower() == "step" else lines
    try:
        content = json.loads(whole)
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error})") from None
    pairs = list(content.items()) if isinstance(content, dict) else content
    if not isinstance(pairs, list):
        raise ValueError(f'{path} holds neither {{"step": loss, …}} nor [[step, loss], …]')
    return [(f"entry {number}", pair) for number, pair in enumerate(pairs, start=1)]
