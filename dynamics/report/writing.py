"""Where a page goes, and how large it may be."""

from __future__ import annotations

from pathlib import Path

LIMIT = 2_000_000
"""Most bytes of everything but the drawing library, so that a page stays below 3 MB."""


def writable(path: str | Path) -> Path:
    """The file that a page is to be written to.

    Raises:
        IsADirectoryError: if it is a folder.
        FileNotFoundError: if its folder is not there.
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(f"{str(target)!r} is a folder; name a file, e.g. {str(target / 'report.html')!r}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no folder {str(target.parent)!r} to write the report to; make it first")
    return target
