"""Runs notebooks from a clean state and keeps their outputs: `python notebooks/execute.py [FILE]`.

What depends on the run and not on the notebook (timestamps, execution times) is left out, so that a
second run changes only what really changed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import nbclient
import nbformat

FOLDER = Path(__file__).parent


def execute(path: Path, seconds: int = 600) -> None:
    """Runs one notebook in place. If a cell fails, nbclient's error shows it."""
    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook, timeout=seconds, resources={"metadata": {"path": str(FOLDER.parent)}}
    ).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)


def main(words: Sequence[str]) -> int:
    """Runs the notebooks that are named, or all."""
    paths = [Path(word) for word in words] or sorted(FOLDER.glob("*.ipynb"))
    for path in paths:
        print(path.name, flush=True)
        execute(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
