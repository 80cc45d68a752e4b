"""The notebooks of the docs, which `make docs` runs as they stand, and `make test-docs` at small size."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from common import REPOSITORY

import geopsp

NOTEBOOKS = {path.stem: path for path in sorted((REPOSITORY / "docs" / "notebooks").glob("[!i]*.md"))}
ONE_EPOCH = """
import geopsp
fit = geopsp.PixelClassifier.fit
geopsp.PixelClassifier.fit = lambda self, *args, **options: fit(self, 1)
"""
SMALL = {"sparse_labels": "SIDE = 256"}
"""What makes notebooks quick: it runs after the cell with the tag "parameters"."""

FAST = "sparse_labels"
"""The notebook that `make test` runs, because its data are the smallest."""

CELL = re.compile(r"^```\{code-cell\}\n((?::[^\n]*\n)*)(.*?)^```$", re.MULTILINE | re.DOTALL)

pytestmark = pytest.mark.skipif(not NOTEBOOKS, reason="the notebooks are not here, but in the repository")

each_notebook = pytest.mark.parametrize("name", NOTEBOOKS)


def cells(name: str) -> list[tuple[str, str]]:
    """The code cells of a notebook: their tags and their code."""
    return CELL.findall(NOTEBOOKS[name].read_text(encoding="utf-8"))


def small(name: str) -> list[str]:
    """The code of the cells, at small size."""
    more = ONE_EPOCH + SMALL.get(name, "")
    return [source + (more if "parameters" in tags else "") for tags, source in cells(name)]


def run(code: list[str], folder: Path) -> None:
    """Run code as a notebook does, in a kernel of its own."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in code])
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()


def assigned(source: str) -> set[str]:
    """The names that code assigns to."""
    nodes = [each for each in ast.walk(ast.parse(source)) if isinstance(each, ast.Name)]
    return {each.id for each in nodes if isinstance(each.ctx, ast.Store)}


@each_notebook
def test_a_notebook_can_be_made_small(name):
    (source,) = [source for tags, source in cells(name) if "parameters" in tags]
    assert assigned(SMALL.get(name, "")) <= assigned(source)


@each_notebook
def test_a_notebook_is_markdown_with_cells_of_code_and_words(name):
    text = NOTEBOOKS[name].read_text(encoding="utf-8")
    assert text.startswith("---\nfile_format: mystnb\n")
    assert len(cells(name)) == text.count("```{code-cell}") >= 5


@each_notebook
def test_a_notebook_names_nothing_of_the_machine_that_it_was_written_on(name):
    assert not re.search(r"/(tmp|work|root|home|Users)/|site-packages", NOTEBOOKS[name].read_text(encoding="utf-8"))


@each_notebook
def test_a_notebook_uses_public_names(name):
    for _, source in cells(name):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "geopsp":
                assert node.attr in geopsp.__all__


@pytest.mark.slow
@each_notebook
def test_a_notebook_runs(name, tmp_path):
    run(small(name), tmp_path)


@pytest.mark.filterwarnings("ignore")  # as a notebook goes on after one
def test_the_code_of_a_notebook_runs(tmp_path, monkeypatch):
    """In this process, which has imported what takes a kernel longest."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(geopsp.PixelClassifier, "fit", geopsp.PixelClassifier.fit)  # (the code changes it)
    names: dict[str, object] = {}
    for source in small(FAST):
        exec(compile(source, f"{FAST}.md", "exec"), names)
