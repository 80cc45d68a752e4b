"""Each folder imports only from those it may; libraries stay in their folders; public names are pinned."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from common import REPOSITORY

import geopsp

HOUSE = Path(geopsp.__file__).parent

MAY_IMPORT = {
    "core": "",
    "raster": "core",
    "vector": "core",
    "labels": "core raster vector",
    "cluster": "core",
    "chips": "core raster labels cluster",
    "data": "core raster vector chips",
    "models": "core",
    "model_report": "core raster models",
    "export": "core raster chips data models",
    "training": "core raster vector chips data models export model_report",
    "polygons": "core raster vector cluster",
    "inference": "core raster vector labels cluster models export polygons",
    "active_learning": "core raster vector labels chips models inference polygons",
    "assessment": "core raster vector labels chips data models training inference polygons",
    "report": "core raster vector labels chips data models training",
    "cli": "core vector chips models export training polygons inference active_learning report assessment",
}
"""The folders that each folder may import from, beside itself and `errors`."""

ONLY_IN = {
    "torch": "data models export training inference active_learning",
    "torchvision": "data models training",
    "lightning": "training",
    "segmentation_models_pytorch": "models",
    "timm": "models",
    "safetensors": "models",
    "distributed": "cluster",
    "matplotlib": "training report",
    "onnx": "export",
    "onnxruntime": "export models",
    "click": "cli",
    "pyogrio": "vector",
    "sqlite3": "vector",
    "tifffile": "raster",
    "deflate": "raster",
    "pystac": "raster",
    "numba": "core",
    "rich": "core",
    "IPython": "core training",
    "ipyleaflet": "report",
    "ipywidgets": "report",
    "jinja2": "core",
    "PIL": "core",
    "fsspec": "core",
    "botocore": "core",
}
"""The folders that a library may be imported in."""

PUBLIC = {
    "CRFOptions", "ChipSet", "ClassInfo", "Confusion", "DeepLab", "FCNClassifier", "GeopspError", "Legend",
    "MapAccuracy", "MapChange", "ModelComparison", "PSPNetClassifier", "PixelClassifier", "Sample", "Scene",
    "TrainingData", "UnetClassifier", "__version__", "assess_map", "classify_pixels", "compare_maps", "compare_models",
    "draw_sample", "explore", "export_training_data", "find_sample_data", "prepare_data", "raster_to_polygons",
    "read_sample", "show_map", "suggest_chips", "supported_weights", "warnings_as_errors", "write_report",
}  # fmt: skip


def module_name(path: Path) -> str:
    parts = path.relative_to(HOUSE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in HOUSE.rglob("*.py") if path.parent != HOUSE or path.name == "errors.py"}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> frozenset[str]:
    """The modules that a file imports, ours without their first name; inside functions and for types alone too."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name.removeprefix("geopsp.") in MODULES else node.module for name in names}
    return frozenset(name.removeprefix("geopsp.") for name in found)


def folder(module: str) -> str:
    return module.partition(".")[0]


def lines_of_code(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function without its docstring."""
    documented = ast.get_docstring(node) is not None
    return node.end_lineno - node.lineno + 1 - (node.body[0].end_lineno - node.body[0].lineno + 1 if documented else 0)


def test_every_module_lies_in_a_folder_of_the_table():
    assert {folder(name) for name in MODULES} == {*MAY_IMPORT, "errors"}


def forbidden_imports(name: str) -> set[str]:
    """The folders that a module imports from and may not."""
    ours = {folder(other) for other in imports(MODULES[name]) if other in MODULES} - {folder(name), "errors"}
    if name == "errors":
        ours -= {"core"} if imports(MODULES[name]) & set(MODULES) == {"core.escape", "core.staging"} else set()
    return ours - set(MAY_IMPORT.get(folder(name), "").split())


def test_a_folder_imports_only_from_those_it_may():
    assert {name: found for name in MODULES if (found := forbidden_imports(name))} == {}


def test_there_is_no_cycle():
    graph = {name: (imports(path) & set(MODULES)) - {name} for name, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # CycleError names the modules


@pytest.mark.parametrize("library", sorted(ONLY_IN))
def test_libraries_stay_where_they_belong(library):
    users = {name for name, path in MODULES.items() if any(other.split(".")[0] == library for other in imports(path))}
    assert {folder(name) for name in users} <= set(ONLY_IN[library].split()), sorted(users)


def too_long(name: str) -> list[str]:
    """The module, if it has too many lines, and its functions that have."""
    lines = len(MODULES[name].read_text(encoding="utf-8").splitlines())
    functions = (
        node for node in ast.walk(tree(MODULES[name])) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    return [f"{lines} lines"] * (lines > 350) + [node.name for node in functions if lines_of_code(node) > 60]


def test_modules_and_functions_are_short():
    assert {name: found for name in MODULES if (found := too_long(name))} == {}


def test_the_architecture_page_shows_the_tree_and_the_table():
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    tree, place = set(), []
    for line in page.split("```")[3].splitlines():
        if (entry := re.match(r"( *)([a-z_]+)(/|\.py)", line)) is None:
            continue
        place = [*place[: len(entry[1]) // 2], entry[2]]
        if entry[3] == ".py":
            tree.add(".".join(place[1:]))
    modules = {name for name, path in MODULES.items() if path.stem not in {"__init__", "__main__"}}
    assert tree - {"__init__"} == modules
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) ?\|$", page, re.MULTILINE))
    assert {name: rows[name].replace(",", "") for name in MAY_IMPORT} == MAY_IMPORT


def test_public_names():
    assert set(geopsp.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(geopsp, name) is not None
    with pytest.raises(AttributeError, match="no attribute"):
        _ = geopsp.nonsense


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("geopsp, geopsp.cli", "torch lightning rasterio numpy geopandas matplotlib rich"),
        (
            "geopsp.inference.classify_pixels",
            "torch lightning matplotlib dask distributed onnxruntime geopandas pandas pyogrio",
        ),
    ],
)
def test_an_import_loads_nothing_that_it_does_not_need(module, heavy):
    """Neither does the shell's help: that is what makes it start in a fraction of a second."""
    code = (
        f"import sys, {module}; found = set({heavy.split()}) & set(sys.modules); sys.exit(repr(found) if found else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
