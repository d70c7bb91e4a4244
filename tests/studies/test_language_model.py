"""The demo: its data, its model, the truth beside it, what it prints, and the small run from start to report."""

from __future__ import annotations

import ast
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dynamics
from dynamics.schedule import at
from studies.language_model.__main__ import main
from studies.language_model.data import OTHER, VOCABULARY, Batches, concepts, encode, probe_windows, read_corpus
from studies.language_model.model import CharacterModel
from studies.language_model.summary import events, firing, remarks, transitions, truth
from studies.language_model.training import QUICK, train
from studies.language_model.truth import NgramDistance, bottom, distances, fit_ngrams, nearest

ROOT = Path(__file__).parents[2]
RUN = "out/language_model"
"""Where the notebook looks."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """Twenty small modules in place of the standard library."""
    for number in range(20):
        (tmp_path / f"m{number:02}.py").write_text(f"class C{number}:\n    x = {number}  # set\n" * 20)
    return tmp_path


def test_every_tenth_file_is_held_out(library: Path) -> None:
    corpus = read_corpus(library)
    assert "C0:" in corpus.held_out_text
    assert "C10:" in corpus.held_out_text
    assert "C1:" not in corpus.held_out_text
    assert len(corpus.held_out) == len(corpus.held_out_text)
    assert len(corpus.train) == sum(len(f.read_text()) for f in library.glob("*.py")) - len(corpus.held_out)


def test_a_library_without_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"which has 0 \.py files; install the library"):
        read_corpus(tmp_path)


def test_unknown_characters_share_an_id() -> None:
    assert encode("abø", "ba").tolist() == [1, 0, OTHER]


def test_batches_are_the_same_for_the_same_seed() -> None:
    text = torch.arange(100)
    one, two, other = (Batches(text, steps=3, batch=2, length=5, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one[1], two[1])
    assert not torch.equal(one[1], other[1])
    assert (one[2].diff(dim=1) == 1).all()


def test_windows_have_the_text_of_their_inputs(library: Path) -> None:
    corpus = read_corpus(library)
    windows = probe_windows(corpus, windows=4, length=16)
    assert windows.inputs.shape == (4, 16)
    assert encode("".join(windows.text), corpus.characters).view(4, 16).equal(windows.inputs)
    assert all(mask.shape == (4, 16) for mask in windows.concepts.values())
    with pytest.raises(ValueError, match="windows of 16 wanted"):
        probe_windows(corpus, windows=10_000, length=16)


def test_concepts_mark_the_characters_that_they_name() -> None:
    text = "if self.a == 1:  # no\n    selfish"
    marked = {name: "".join(c for c, on in zip(text, mask, strict=True) if on) for name, mask in concepts(text).items()}
    assert marked["self"] == "self"
    assert marked["keyword"] == "if"
    assert marked["comment"] == "# no"
    assert marked["indentation"] == "    "
    assert marked["colon at line end"] == ""


def test_model_has_the_stated_size_and_sees_no_future() -> None:
    torch.manual_seed(0)
    model = CharacterModel()
    assert sum(parameter.numel() for parameter in model.parameters()) == 253_824
    one = torch.randint(0, VOCABULARY, (1, 64))
    two = one.clone()
    two[0, 40:] = 0
    with torch.no_grad():
        assert torch.allclose(model(one)[0, :40], model(two)[0, :40], atol=1e-6)
        assert not torch.allclose(model(one)[0, 41:], model(two)[0, 41:], atol=1e-3)


class Bigrams(nn.Module):
    """A network that is exactly the bigram model."""

    def __init__(self, probabilities: Tensor) -> None:
        super().__init__()
        self.logits = probabilities.log()

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits[ids]


def test_a_bigram_network_is_at_no_distance_from_the_bigram_model() -> None:
    generator = torch.Generator().manual_seed(0)
    text = torch.randint(0, 6, (5000,), generator=generator).sort().values.roll(7)
    ngrams = fit_ngrams(text)
    for probabilities in (ngrams.unigram, ngrams.bigram, ngrams.trigram):
        assert torch.allclose(probabilities.sum(-1), torch.tensor(1.0), atol=1e-4)
    found = distances(Bigrams(ngrams.bigram), text[:640].view(10, 64), ngrams)
    assert found["bigram"] == pytest.approx(0, abs=1e-4)
    assert found["unigram"] > 0.5


def test_bottom_and_nearest() -> None:
    curves = {"unigram": {0: 1.0, 8: 0.1, 16: 0.9}, "bigram": {0: 2.0, 8: 0.5, 16: 0.2}}
    assert bottom(curves["unigram"]) == 8
    assert nearest(curves) == [("unigram", 0, 8), ("bigram", 16, 16)]
    assert "nearest model: unigram over steps 0 to 8, bigram over steps 16 to 16" in truth(curves)


def test_distances_are_measured_at_the_scheduled_steps_and_change_nothing(library: Path) -> None:
    corpus = read_corpus(library)
    small = replace(QUICK, steps=6, batch=4)
    windows = probe_windows(corpus, windows=2, length=64)
    watch = NgramDistance(windows.inputs, fit_ngrams(corpus.train), at(0, 3, 6))
    watched, alone = train(corpus, small, [watch]), train(corpus, small, [])
    assert list(watch.curves["bigram"]) == [0, 3, 6]
    assert all(torch.equal(a, b) for a, b in zip(watched.parameters(), alone.parameters(), strict=True))


def test_tables_of_the_summary() -> None:
    row = {"site": "blocks.0", "kind": "birth", "considered": 9, "published": 4, "retraining_alone": 0.5}
    assert events([row]).splitlines()[1].split() == ["blocks.0", "birth", "4", "0.5", "9"]
    assert events([row | {"published": 0}]) == "No events above retraining noise (9 candidates considered)."
    assert transitions([]) == "No transition window stands out."
    assert remarks([], []) == []
    assert remarks([{"site": "a", "note": "few"}], ["x: y"]) == ["Notes:\n  a: few\n  given up: x: y"]


def test_the_firing_character_is_marked() -> None:
    row = {"latent": 7, "rank": 0, "before": "a\n    def ", "text": "_", "after": "_init__", "activation": 1.0}
    lines = firing([row], "after, step 8")
    assert lines[0].startswith("  after, step 8, latent 7")
    assert lines[1].endswith("a↵    def »_«_init__")


def test_an_existing_directory_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--run", str(tmp_path)]) == 2
    assert "exists; give a new name" in capsys.readouterr().err


def test_the_small_run_from_start_to_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = seconds_of_processor()
    done = subprocess.run(
        [sys.executable, "-m", "studies.language_model", "--quick", "--run", RUN],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert seconds_of_processor() - before < 180
    assert "nearest model: unigram" in done.stdout
    assert f'dynamics sql {RUN} "with compared' in done.stdout
    assert (tmp_path / RUN / "report.html").stat().st_size > 100_000
    run = dynamics.open(tmp_path / RUN)
    steps = [step for (step,) in run.sql("select step from checkpoints", format="rows")]
    assert steps == QUICK.schedule.steps(QUICK.steps)
    assert run.sites() == ["blocks.0", "norm"]
    assert run.sql("select count(*) from contexts where text is null", format="rows") == [(0,)]
    assert list(map(int, json.loads((tmp_path / RUN / "ngrams.json").read_text())["unigram"])) == steps

    monkeypatch.chdir(tmp_path)
    run_notebook(ROOT / "notebooks" / "first_steps.ipynb")


def seconds_of_processor() -> float:
    """What ended child processes have used; on a clock, a busy machine would count too."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run_notebook(path: Path) -> None:
    """Runs the code cells in order; the value of a cell that ends in an expression must have content to show."""
    names: dict[str, Any] = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            *body, last = ast.parse("".join(cell["source"])).body
            assert isinstance(last, ast.Expr)
            exec(compile(ast.Module(body, []), path.name, "exec"), names)
            shown = eval(compile(ast.Expression(last.value), path.name, "eval"), names)
            assert shown.to_dict() if hasattr(shown, "to_dict") else shown
