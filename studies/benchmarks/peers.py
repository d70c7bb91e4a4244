"""Other SAE libraries, each in an environment of its own beside this project's torch, and questions to them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import Any

PACKAGES = {
    "saelens": "sae-lens==6.54.0",
    "dictionary_learning": "dictionary-learning==0.1.0",
    "sparsify": "eai-sparsify==1.3.3",
}
CONSTRAINTS = Path(__file__).parents[2] / "constraints.txt"
ASKED = Path(__file__).with_name("peer.py")


def install(folder: Path) -> dict[str, Path]:
    """The interpreters that have the libraries; what is missing is installed first (0.9 GB in all, some minutes).

    Their environments see this project's packages too, so that torch is not installed again.

    Args:
        folder: holds an environment for each.
    """
    pythons = {name: folder / name / "bin" / "python" for name in PACKAGES}
    for name, package in PACKAGES.items():
        if not (folder / name / "installed").exists():
            print(f"installing {package} …", file=sys.stderr)
            _install(folder / name, package)
    return pythons


def _install(folder: Path, package: str) -> None:
    venv.create(folder, with_pip=True)
    packages = folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    (packages / "project.pth").write_text(sysconfig.get_path("purelib") + "\n")
    torch = next(line for line in CONSTRAINTS.read_text().splitlines() if line.startswith("torch=="))
    (folder / "constraints.txt").write_text(torch + "\n")
    pip = [str(folder / "bin" / "pip"), "install", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, "-c", str(folder / "constraints.txt"), package], check=True)
    # One built for CUDA comes along with some; beside a torch without, it breaks every import of transformers.
    subprocess.run([str(folder / "bin" / "pip"), "uninstall", "-qq", "--yes", "torchvision"], check=True)
    (folder / "installed").touch()


def asked(python: Path, question: dict[str, Any], threads: int = 1) -> dict[str, Any]:
    """What ``peer.py`` answers under another interpreter.

    Raises:
        RuntimeError: if it failed, with the end of what it said.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    environment["PYTHONPATH"] = str(CONSTRAINTS.parent)
    done = subprocess.run(
        [str(python), str(ASKED)], input=json.dumps(question), capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise RuntimeError(f"{question['library']}: {done.stderr.strip()[-800:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
