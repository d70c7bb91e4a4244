"""The wheel holds every module, the adapters under ``dynamics.callbacks`` too."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's content in a folder; built from a copy, so that no ``build`` folder of ours gets in."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    copy_sources(source)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    subprocess.run(build, check=True, capture_output=True, text=True)
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def copy_sources(target: Path) -> None:
    target.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        (target / name).write_bytes((ROOT / name).read_bytes())
    for package in ("dynamics", "callbacks"):
        for path in sorted((ROOT / package).rglob("*")):
            if (
                path.is_file()
                and "__pycache__" not in path.parts
                and not path.is_relative_to(ROOT / "dynamics/callbacks")
            ):
                copy = target / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())


def modules() -> list[str]:
    """Every module of the sources, by its import name."""
    own = [path.relative_to(ROOT) for path in (ROOT / "dynamics").rglob("*.py") if "callbacks" not in path.parts]
    adapters = [Path("dynamics") / path.relative_to(ROOT) for path in (ROOT / "callbacks").rglob("*.py")]
    return sorted({".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in own + adapters})


def test_every_module_and_what_it_reads_is_in_the_wheel(unpacked: Path) -> None:
    packed = {
        ".".join(path.relative_to(unpacked).with_suffix("").parts).removesuffix(".__init__")
        for path in unpacked.rglob("*.py")
    }
    assert set(modules()) <= packed
    files = [path for path in (ROOT / "dynamics").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    beside = [path for path in files if path.suffix != ".py"]
    assert len(beside) >= 3
    assert [path.name for path in beside if not (unpacked / path.relative_to(ROOT)).is_file()] == []


def test_every_adapter_is_imported_from_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    adapters = [name for name in modules() if name.startswith("dynamics.callbacks")]
    assert len(adapters) >= 3
    code = (
        f"import sys; sys.path.insert(0, {str(unpacked)!r})\n"
        "import importlib, dynamics\n"
        f"assert dynamics.__file__.startswith({str(unpacked)!r}), dynamics.__file__\n"
        f"for name in {adapters}: importlib.import_module(name)"
    )
    # A callbacks.py of the user's own must not be in the way.
    (tmp_path / "callbacks.py").write_text("raise RuntimeError('the wrong callbacks')")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
