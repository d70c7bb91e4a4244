"""The notebooks run, from the first cell to the last, on a small run, and every cell shows something."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
PATH, SITE = "out/language_model", "'norm'"


def cells(notebook: Path) -> list[str]:
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]


def run_cell(source: str, names: dict[str, Any]) -> Any:
    """What a notebook would show: the value of the last line, where that is an expression."""
    import ast

    tree = ast.parse(source)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    return None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)


def test_there_are_four() -> None:
    assert len(NOTEBOOKS) == 4


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs_from_start_to_end(
    notebook: Path, analysed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out").mkdir()
    Path(PATH).symlink_to(analysed)
    names: dict[str, Any] = {}
    for source in cells(notebook):
        shown = run_cell(source.replace('"norm"', '"blocks.0"').replace(SITE, "'blocks.0'"), names)
        if hasattr(shown, "_repr_mimebundle_"):
            bundle = shown._repr_mimebundle_()
            assert "vega" in str(bundle)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_holds_no_output(notebook: Path) -> None:
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in found)
