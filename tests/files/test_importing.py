"""Snapshots that other programs made."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from dynamics.files import RunDirectory, import_snapshots, load_activations, load_probe, snapshots
from dynamics.files.settings import only_recorder

SITE = "blocks.0.mlp"


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory.create(tmp_path / "run")


def save(folder: Path, name: str, x: torch.Tensor, tensor: str = "activations") -> None:
    folder.mkdir(exist_ok=True)
    safetensors.torch.save_file({tensor: x}, folder / name)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Steps 0, 7 and 20 of 4 rows of width 3."""
    for name, step in (("step_0", 0), ("step_000020", 20), ("step_7", 7)):
        save(tmp_path / "source", f"{name}.safetensors", torch.full((4, 3), float(step)).bfloat16())
    (tmp_path / "source" / "notes.txt").write_text("not a step")
    return tmp_path / "source"


def refused(error: type[Exception], match: str, *arguments: object, **named: object) -> None:
    with pytest.raises(error, match=match) as caught:
        import_snapshots(*arguments, **named)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_steps_come_in_order_in_their_own_dtype(run: RunDirectory, source: Path) -> None:
    told: list[tuple[int, int]] = []
    records = import_snapshots(source, run, SITE, on_step=lambda done, all_: told.append((done, all_)))
    assert records == snapshots(run, SITE)
    assert [(record.step, record.dtype, record.rows, record.d_in) for record in records] == [
        (step, "bfloat16", 4, 3) for step in (0, 7, 20)
    ]
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert torch.equal(load_activations(run, records[2]), torch.full((4, 3), 20.0))


def test_each_row_is_its_own_sequence(run: RunDirectory, source: Path) -> None:
    (record, *_) = import_snapshots(source, run, SITE)
    rows = load_probe(run, record.probe)
    assert rows.text is None
    assert rows.sequence.tolist() == [0, 1, 2, 3]
    assert rows.position.tolist() == [0, 0, 0, 0]


def test_importing_again_changes_nothing_and_adds_what_is_new(run: RunDirectory, source: Path) -> None:
    first = import_snapshots(source, run, SITE)
    stamps = [(run.path / record.path).stat().st_mtime_ns for record in first]
    save(source, "step_30.safetensors", torch.ones(4, 3))
    again = import_snapshots(source, run, SITE)
    assert again[:3] == first
    assert [(run.path / record.path).stat().st_mtime_ns for record in again[:3]] == stamps
    assert [record.step for record in again] == [0, 7, 20, 30]


def test_other_content_at_a_step_is_an_error(run: RunDirectory, source: Path) -> None:
    import_snapshots(source, run, SITE)
    save(source, "step_7.safetensors", torch.full((4, 3), 8.0).bfloat16())
    refused(FileExistsError, "step 7 of blocks.0.mlp is committed with other activations", source, run, SITE)


def test_no_directory_or_no_steps(run: RunDirectory, tmp_path: Path) -> None:
    refused(FileNotFoundError, "no directory .*nowhere", tmp_path / "nowhere", run, SITE)
    (tmp_path / "empty").mkdir()
    refused(FileNotFoundError, r"no step_<n>\.safetensors in .*; it is empty", tmp_path / "empty", run, SITE)
    save(tmp_path / "other", "checkpoint_3.safetensors", torch.ones(2, 2))
    refused(FileNotFoundError, r"it holds checkpoint_3\.safetensors", tmp_path / "other", run, SITE)


def test_two_files_of_one_step(run: RunDirectory, source: Path) -> None:
    save(source, "step_007.safetensors", torch.ones(4, 3))
    refused(ValueError, r"step_007\.safetensors and step_7\.safetensors in .* are both of step 7", source, run, SITE)


@pytest.mark.parametrize("shape", [(5, 3), (4, 2)])
def test_mixed_shapes_name_both_files(run: RunDirectory, source: Path, shape: tuple[int, int]) -> None:
    save(source, "step_20.safetensors", torch.ones(shape))
    (source / "step_000020.safetensors").unlink()
    match = rf"step_0\.safetensors has shape \[4, 3\] and step_20\.safetensors \[{shape[0]}, {shape[1]}\]"
    refused(ValueError, match, source, run, SITE)
    assert run.sites() == []


@pytest.mark.parametrize(
    ("x", "tensor", "match"),
    [
        (torch.ones(4, 3), "acts", "has no tensor `activations`; it has: acts"),
        (torch.ones(2, 2, 3), "activations", r"has shape \[2, 2, 3\]; \[rows, d_in\] is wanted"),
        (torch.ones(4), "activations", r"has shape \[4\]; \[rows, d_in\] is wanted"),
        (torch.ones(4, 3).double(), "activations", "is F64; one of float32, float16, bfloat16 is wanted"),
        (torch.ones(4, 3).int(), "activations", "is I32; one of float32"),
        (torch.ones(0, 3), "activations", r"is empty: its shape is \[0, 3\]"),
    ],
)
def test_a_wrong_tensor_is_named(run: RunDirectory, source: Path, x: torch.Tensor, tensor: str, match: str) -> None:
    save(source, "step_7.safetensors", x, tensor)
    refused(ValueError, match, source, run, SITE)
    assert run.sites() == []


def test_values_that_are_not_finite_are_counted(run: RunDirectory, source: Path) -> None:
    x = torch.ones(4, 3)
    x[1, 1], x[2, 0], x[3, 0] = float("nan"), float("inf"), float("-inf")
    save(source, "step_7.safetensors", x)
    refused(ValueError, r"25\.00% of the values in step_7\.safetensors are not finite \(3 of 12\)", source, run, SITE)


@pytest.mark.parametrize("data", [b"", b"\x00" * 8, b"not safetensors at all", b"\xff" * 40])
def test_a_file_that_is_no_safetensors_is_named(run: RunDirectory, source: Path, data: bytes) -> None:
    (source / "step_7.safetensors").write_bytes(data)
    refused(ValueError, r"step_7\.safetensors is no whole safetensors file", source, run, SITE)


def test_a_file_cut_short_is_named(run: RunDirectory, source: Path) -> None:
    path = source / "step_7.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    refused(ValueError, r"step_7\.safetensors is no whole safetensors file .*write it again", source, run, SITE)


def test_text_is_one_line_a_row(run: RunDirectory, source: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_bytes("a\u2028b\r\n\nüß\nlast".encode())
    (record, *_) = import_snapshots(source, run, SITE, text=tmp_path / "rows.txt")
    assert load_probe(run, record.probe).text == ["a\u2028b", "", "üß", "last"]


def test_lists_of_tokens_are_sequences(run: RunDirectory, source: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text(json.dumps([["a", "b", "\ud800"], [], ["d"]]))
    (record, *_) = import_snapshots(source, run, SITE, text=tmp_path / "rows.json")
    rows = load_probe(run, record.probe)
    assert rows.text == ["a", "b", "\ud800", "d"]
    assert rows.sequence.tolist() == [0, 0, 0, 2]
    assert rows.position.tolist() == [0, 1, 2, 0]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("rows.txt", b"a\nb\nc\n", "has text for 3 rows, the snapshots have 4"),
        ("rows.txt", b"", "has text for 0 rows, the snapshots have 4"),
        ("rows.txt", b"a\xff\n", r"is not UTF-8 \(byte 1\)"),
        ("rows.json", b'["a", 1]', "neither a list of strings nor a list of lists of strings"),
        ("rows.json", b"[", "is no JSON"),
    ],
)
def test_text_that_does_not_fit(
    run: RunDirectory, source: Path, tmp_path: Path, name: str, content: bytes, match: str
) -> None:
    (tmp_path / name).write_bytes(content)
    refused(ValueError, match, source, run, SITE, text=tmp_path / name)
    refused(
        FileNotFoundError, "no file .*nowhere; it is to hold the text", source, run, SITE, text=tmp_path / "nowhere"
    )


def test_a_second_site_inherits_the_text(run: RunDirectory, source: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("a\nb\nc\nd\n")
    first = import_snapshots(source, run, SITE, text=tmp_path / "rows.txt")
    second = import_snapshots(source, run, "blocks.1.mlp")
    third = import_snapshots(source, run, "blocks.2.mlp", text=tmp_path / "rows.txt")
    assert {record.probe for record in (*first, *second, *third)} == {first[0].probe}
    (tmp_path / "rows.txt").write_text("a\nb\nc\nother\n")
    refused(ValueError, "the run has another; leave --text out", source, run, "blocks.3", text=tmp_path / "rows.txt")


def test_a_second_site_must_have_the_same_rows(run: RunDirectory, source: Path, tmp_path: Path) -> None:
    import_snapshots(source, run, SITE)
    save(tmp_path / "other", "step_0.safetensors", torch.ones(9, 3))
    refused(ValueError, "blocks.1 has 9 rows, the run's probe has 4", tmp_path / "other", run, "blocks.1")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("loss.csv", "step,loss\n0,2.5\n 7 , 1e-1\n\n99,3\n"),
        ("loss.csv", "0,2.5\r\n7,0.1"),
        ("loss.txt", "\ufeffStep,Loss\n0,2.5\n7,0.1\n"),
        ("loss.json", '{"0": 2.5, "7": 0.1}'),
        ("loss.json", "[[0, 2.5], [7, 0.1]]"),
    ],
)
def test_losses_are_read(run: RunDirectory, source: Path, tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    records = import_snapshots(source, run, SITE, loss=tmp_path / name)
    assert [record.loss for record in records] == [2.5, 0.1, None]


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("loss.csv", "0,2.5\n7;0.1\n", r"line 2 of .* is \['7;0.1'\]; step,loss is wanted"),
        ("loss.csv", "0,high\n", "line 1 of"),
        ("loss.csv", "0,1\n0,2\n", "line 2 of .* gives step 0 a second loss"),
        ("loss.json", "[3]", "entry 1 of .* is 3"),
        ("loss.json", "3", "neither"),
        ("loss.json", "{", "is no JSON"),
    ],
)
def test_losses_that_cannot_be_read(
    run: RunDirectory, source: Path, tmp_path: Path, name: str, content: str, match: str
) -> None:
    (tmp_path / name).write_text(content)
    refused(ValueError, match, source, run, SITE, loss=tmp_path / name)


def test_a_run_that_is_being_recorded_takes_no_import(
    run: RunDirectory, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dynamics.files.settings._PATIENCE", 0.0)
    with only_recorder(run), pytest.raises(RuntimeError, match="is being recorded"):
        import_snapshots(source, run, SITE)
    assert len(import_snapshots(source, run, SITE)) > 0
