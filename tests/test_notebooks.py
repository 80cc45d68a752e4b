"""The notebooks of the documentation: they were run, name nothing of a machine, and run again at small size."""

from __future__ import annotations

import ast
import re

import pytest
from common import REPOSITORY

import geopsp

NOTEBOOKS = sorted((REPOSITORY / "docs" / "notebooks").glob("*.ipynb"))
SMALL = {"MINUTES = 1.0": "MINUTES = 0.05"}
"""What makes a notebook quick."""

pytestmark = pytest.mark.skipif(not NOTEBOOKS, reason="the notebooks are not here, but in the repository")


def read(path):
    return pytest.importorskip("nbformat").read(path, as_version=4)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_was_run_in_order_without_errors(path):
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert len(outputs) >= 5
    assert {output.output_type for output in outputs} == {"execute_result"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_names_nothing_of_the_machine_that_it_ran_on(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"/(tmp|work|root|home|Users)/|site-packages", text)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_uses_public_names(path):
    for cell in read(path).cells:
        if cell.cell_type == "code":
            for node in ast.walk(ast.parse(cell.source)):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "geopsp":
                    assert node.attr in geopsp.__all__


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path):
    from nbclient import NotebookClient

    notebook = read(path)
    for cell in notebook.cells:
        for long, short in SMALL.items():
            cell.source = cell.source.replace(long, short)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(path.parent)}}).execute()
