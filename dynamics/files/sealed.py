"""Small facts as JSON that carries the digest of its own content: one flipped bit does not pass for a fact."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from dynamics.files.atomic import write_json

SEAL = "sha256"


def write_sealed(path: Path, content: dict[str, Any]) -> None:
    """``write_json`` of ``content`` and its digest."""
    write_json(path, {**content, SEAL: _digest(content)})


def unsealed(data: bytes) -> dict[str, Any]:
    """The content of such a file, without the digest; a file written by hand need not have one.

    Raises:
        ValueError: if it is no JSON object, or not the one that was written.
    """
    try:
        content = json.loads(data)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    seal = content.pop(SEAL, None)
    if seal is not None and seal != _digest(content):
        raise ValueError("its content is not what was written")
    return content


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
