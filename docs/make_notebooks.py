"""Run notebooks and write their outputs into them: `python docs/make_notebooks.py [NOTEBOOK...]`; default: all."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).with_name("notebooks")
TIMEOUT = 1800
"""Seconds that a cell may take."""


def run(path: Path) -> None:
    """Run all cells of a notebook from the first on, and keep what they show but for progress and messages."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=TIMEOUT, resources={"metadata": {"path": str(FOLDER)}}).execute()
    for cell in notebook.cells:
        cell.metadata.clear()
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.output_type == "execute_result"]
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(map(str, FOLDER.glob("*.ipynb"))):
        run(Path(name))
